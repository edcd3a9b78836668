"""What a consumer asks a broker for, and how long it sits out one that is away: the decisions of both faces."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable
from typing import Final

from telemetry_broker import _core
from telemetry_broker.admin import MODES, Mode
from telemetry_broker.errors import ClosedError, InvalidArgumentError, UnavailableError
from telemetry_broker.extending import check_extension
from telemetry_broker.positions import milliseconds, unsigned
from telemetry_broker.v1 import broker_pb2 as pb

_MAX_RECORDS: Final = 65_536
_MAX_BYTES: Final = 8 * 1024 * 1024
_FIRST_BACKOFF: Final = 0.1
_LONGEST_BACKOFF: Final = 2.0


class Demand:
    """What one consumer wants, checked; made by ``Broker.consumer``, where each argument is explained.

    Attributes:
        topic: what to read.
        group: for whom.
        name: the consumer's, given or made up.
        mode: of the group.
        max_records: of a batch, where a receive says nothing else.
        max_bytes: of a batch.
        idle_timeout: seconds without a record after which iterating ends; None: never.
        reconnect_timeout: seconds that a broker is sat out.
        keep_iterated: seconds for which a batch of an iteration is kept.
        keep_received: seconds for which a batch of a receive is kept.
        empty: a delivery of no records.
    """

    def __init__(
        self,
        topic: str,
        group: str,
        *,
        mode: Mode,
        visibility_timeout: float | None,
        partitions: Iterable[int] | None,
        max_records: int,
        max_bytes: int,
        idle_timeout: float | None,
        reconnect_timeout: float,
        max_lease_extension: float | None,
        name: str | None,
    ) -> None:
        if mode not in MODES:
            raise InvalidArgumentError(f"mode={mode!r}: give 'shared' or 'ordered'")
        if not 1 <= max_bytes <= _MAX_BYTES:
            raise InvalidArgumentError(f"max_bytes={max_bytes}: give 1 to {_MAX_BYTES}")
        if not (idle_timeout is None or idle_timeout >= 0) or not reconnect_timeout >= 0:
            raise InvalidArgumentError(
                f"idle_timeout={idle_timeout}, reconnect_timeout={reconnect_timeout}: give 0 or more seconds, "
                "or None as the first to iterate without an end"
            )
        self.topic = topic
        self.group = group
        self.idle_timeout = idle_timeout
        self.reconnect_timeout = reconnect_timeout
        self.keep_iterated, self.keep_received = check_extension(max_lease_extension)
        self.name = name if name is not None else f"consumer-{uuid.uuid4().hex}"
        self.mode = mode
        self.max_records = self.records(max_records)
        self.max_bytes = max_bytes
        self._request = pb.ReceiveRequest(
            topic=topic,
            group=group,
            consumer=self.name,
            partitions=[unsigned("a partition", partition, bits=32) for partition in partitions or ()],
            max_bytes=max_bytes,
            visibility_timeout_ms=0
            if visibility_timeout is None
            else milliseconds("visibility_timeout", visibility_timeout, least=0.001),
            mode=MODES[mode],
        )
        self.empty = _core.Delivery.parse(
            pb.ReceiveResponse(deliveries=[pb.Delivery(topic=topic)]).SerializeToString()
        )[0]

    @property
    def partitions(self) -> list[int]:
        """Those that are read; empty: all."""
        return list(self._request.partitions)

    def records(self, max_records: int | None) -> int:
        """How many records a receive means."""
        if max_records is None:
            return self.max_records
        if not 1 <= max_records <= _MAX_RECORDS:
            raise InvalidArgumentError(f"max_records={max_records}: give 1 to {_MAX_RECORDS}")
        return max_records

    def encode(self, max_records: int) -> bytes:
        """A Receive for so many."""
        request = pb.ReceiveRequest(max_records=max_records)
        request.MergeFrom(self._request)
        return request.SerializeToString()

    def encode_start(self, credit: int) -> bytes:
        """The first message of a Consume stream, with credit for so many deliveries. Shared groups only.

        Each stream is a consumer of its own: its death gives back what it brought, and nothing of a later stream or of
        a Receive.
        """
        receive = pb.ReceiveRequest(max_records=self.max_records)
        receive.MergeFrom(self._request)
        receive.consumer = f"stream-{uuid.uuid4().hex}"
        start = pb.ConsumeStart(receive=receive, credit_deliveries=credit)
        return pb.ConsumeRequest(start=start).SerializeToString()

    def closed_error(self) -> ClosedError:
        """What a closed consumer answers."""
        return ClosedError(f"this consumer of {self.topic} was closed; make another with broker.consumer()")


def check_wait(wait: float | None) -> None:
    """Refuses what is no time to wait."""
    if wait is not None and not wait >= 0:
        raise InvalidArgumentError(f"wait={wait}: give 0 or more seconds, or None for no bound")


class Outage:
    """A broker that cannot be reached while somebody waits for records: asked again with growing pauses.

    Args:
        end: when the wait ends, by ``time.monotonic``; None: never.
        reconnect_timeout: seconds after which it is no use.
    """

    def __init__(self, end: float | None, reconnect_timeout: float) -> None:
        self._end = end
        self._reconnect_timeout = reconnect_timeout
        self.over()

    def over(self) -> None:
        """The broker was there: the next time that it cannot be reached is another outage."""
        self._since: float | None = None
        self._pause = _FIRST_BACKOFF

    def pause(self, error: UnavailableError) -> float:
        """Seconds until the broker may be asked again; raises the error when the time is over."""
        now = time.monotonic()
        self._since = now if self._since is None else self._since
        until = self._since + self._reconnect_timeout
        if now + self._pause > (until if self._end is None else min(until, self._end)):
            raise error
        pause, self._pause = self._pause, min(_LONGEST_BACKOFF, self._pause * 2)
        return pause
