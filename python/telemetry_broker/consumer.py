"""Consumers: leased batches of a group, waited for without polling."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Self

from telemetry_broker import _core
from telemetry_broker.admin import Mode
from telemetry_broker.ahead import Ahead
from telemetry_broker.batch import Batch
from telemetry_broker.errors import ClosedError, UnavailableError
from telemetry_broker.leases import Lease, Leases
from telemetry_broker.receiving import Demand, Outage, check_wait
from telemetry_broker.transport import Transport, forked_error

_log = logging.getLogger(__name__)


class Consumer:
    """Gets records for one group of a topic. Made by ``Broker.consumer``; thread-safe; refused after a fork.

    Iterating waits for records until the consumer is closed or nothing came for ``idle_timeout`` seconds. Leaving the
    ``with`` block (or ``close``) gives back at once what is neither acked nor nacked.

    Attributes:
        topic: what is read.
        group: for whom.
        name: identifies this consumer to an ordered group, where it can hold partitions.
    """

    def __init__(
        self,
        transport: Transport,
        topic: str,
        group: str,
        *,
        mode: Mode = "shared",
        visibility_timeout: float | None = None,
        partitions: Iterable[int] | None = None,
        max_records: int = 500,
        max_bytes: int = 1024 * 1024,
        idle_timeout: float | None = None,
        reconnect_timeout: float = 120.0,
        name: str | None = None,
    ) -> None:
        self._demand = Demand(
            topic,
            group,
            mode=mode,
            visibility_timeout=visibility_timeout,
            partitions=partitions,
            max_records=max_records,
            max_bytes=max_bytes,
            name=name,
        )
        self.topic = topic
        self.group = group
        self.name = self._demand.name
        self._transport = transport
        self._idle_timeout = idle_timeout
        self._reconnect_timeout = reconnect_timeout
        self._max_records = self._demand.max_records
        self._leases = Leases(transport, topic, group)
        self._receiver = transport.receiver(topic)
        self._closed = threading.Event()
        self._ahead: Ahead | None = None
        # An ordered group rewinds at a nack, and what was taken ahead of it would then come out of order.
        if transport.prefetches and mode == "shared":
            self._ahead = Ahead(transport, self._leases, self._demand, reconnect_timeout)
        self._pid = os.getpid()

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._closed.is_set()

    def receive(self, max_records: int | None = None, wait: float | None = 0.0) -> Batch:
        """Leases records: one batch, of one partition.

        Args:
            max_records: 1 to 65,536; None: as the consumer was made.
            wait: seconds to wait for a first record; 0: not at all; None: until there is one.

        Returns:
            A batch; an empty one (``not batch``) when nothing came in time or the consumer was closed meanwhile.

        Raises:
            ClosedError: the consumer was closed before.
            NotFoundError: there is no such topic or partition.
            ConflictError: the group has another mode.
            UnavailableError: the broker cannot be reached: at once with ``wait=0``, else when it stays away for
                ``wait``, at most ``reconnect_timeout``.
        """
        if self._closed.is_set():
            raise self._demand.closed_error()
        check_wait(wait)
        return self._receive(self._demand.records(max_records), wait)

    def ack(self, batches: Iterable[Batch]) -> int:
        """Acks several batches of this consumer at once: one call, and one write per partition. See ``Batch.ack``."""
        return self._leases.ack([batch.part() for batch in batches])

    def close(self, *, give_back: bool = True) -> None:
        """Ends every wait and, unless told not to, gives back what is open; repeating it is fine.

        When the broker cannot be reached, that is logged, and the leases end with their visibility timeouts.
        """
        if self._closed.is_set() or os.getpid() != self._pid:
            return
        self._closed.set()
        self._receiver.close()
        if self._ahead is not None:
            self._ahead.stop()
        try:
            if give_back:
                self._leases.give_back()
        except (UnavailableError, ClosedError) as error:
            _log.warning("%r could not give back its leases, they end with their visibility timeouts: %s", self, error)
        finally:
            if self._ahead is not None:
                self._ahead.end(keep_leases=not give_back)

    def __iter__(self) -> Iterator[Batch]:
        while not self._closed.is_set():
            wait = self._idle_timeout
            if self._ahead is not None:
                self._refuse_fork()
                for delivery, lease in self._ahead.iterate(wait):
                    yield Batch(delivery, lease, self._leases)
                if self._closed.is_set():
                    return
                wait = 0.0  # one definite look: the time may have been over before the stream had begun
            batch = self._receive(self._max_records, wait)
            if batch:
                yield batch
            elif self._idle_timeout is not None:
                return

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Consumer {self.name!r} of {self.topic!r} for {self.group!r} at {self._transport.url}>"

    def _refuse_fork(self) -> None:
        if os.getpid() != self._pid:
            raise forked_error(f"this consumer of {self.topic}")

    def _receive(self, max_records: int, wait: float | None) -> Batch:
        self._refuse_fork()
        taken = self._ahead.take(max_records) if self._ahead is not None else None
        if taken is None:
            deliveries = self._fetch(max_records, wait)
            if deliveries:
                taken = deliveries[0], self._leases.add(deliveries[0])
        return Batch(*(taken or (self._demand.empty, Lease(self._demand.empty))), self._leases)

    def _fetch(self, max_records: int, wait: float | None) -> list[_core.Delivery]:
        """Runs one Receive, and sits out a broker that is away as long as the wait allows."""
        request = self._demand.encode(max_records)
        end = None if wait is None else time.monotonic() + wait
        outage = Outage(end, self._reconnect_timeout)
        while True:
            left = None if end is None else max(0.0, end - time.monotonic())
            try:
                return self._receiver.receive(request, left)
            except UnavailableError as error:
                pause = outage.pause(error)
            if self._closed.wait(pause):
                return []
