"""Receiving ahead from a remote broker, so that handling one batch and fetching the next happen at the same time."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from telemetry_broker import _core
from telemetry_broker.errors import BrokerError, StaleLeaseError
from telemetry_broker.leases import Lease, Leases
from telemetry_broker.pace import Pace
from telemetry_broker.transport import Transport

_REQUEST_TIMEOUT: Final = 30.0
_CLOSE_TIMEOUT: Final = 5.0

_log = logging.getLogger(__name__)

Taken = tuple[_core.Delivery, Lease]


class Ahead:
    """Deliveries that came before they were asked for; at most one Receive is in flight for them.

    How many depends on the pace: what is taken ahead is worked off within a second or a tenth of its lease, so a slow
    handler takes nothing ahead. Requests ahead never wait in the server: one that is answered after its caller went
    away would keep records from everybody until their lease ends.
    """

    def __init__(
        self,
        transport: Transport,
        leases: Leases,
        encode: Callable[[int], bytes],
        fetch: Callable[[int, float | None], list[_core.Delivery]],
    ) -> None:
        """``encode`` makes a Receive for so many deliveries; ``fetch`` runs one and waits."""
        self._transport = transport
        self._leases = leases
        self._encode = encode
        self._fetch = fetch
        self._changed = threading.Condition()
        self._ready: deque[Taken] = deque()
        self._in_flight = False
        self._dry = True  # the last answer was empty
        self._pace = Pace()
        self._closed = False

    def next(self, wait: float | None) -> Taken | None:
        """The next delivery; waits for one as ``Consumer.receive`` does."""
        called_at = time.monotonic()
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._ready or not self._in_flight)
                taken = self._ready.popleft() if self._ready else None
            if taken is None or self._is_fresh(taken[1]):
                break
        if taken is None:
            deliveries = self._fetch(self._pace.depth(called_at), wait)
            if not deliveries:
                return None
            entries = [(delivery, self._leases.add(delivery)) for delivery in deliveries]
            taken = entries[0]
            with self._changed:
                self._ready.extend(entries[1:])
                self._dry = False
        self._go_on(self._pace.depth(called_at, taken[1].timeout))
        self._pace.handed_out()
        return taken

    def close(self) -> None:
        """Takes nothing more; what came ahead is left to ``Leases.give_back``."""
        with self._changed:
            self._closed = True
            self._changed.wait_for(lambda: not self._in_flight, _CLOSE_TIMEOUT)
            self._ready.clear()

    def _is_fresh(self, lease: Lease) -> bool:
        """Whether there is time enough to handle the records; makes time if not."""
        if lease.ended:
            return False
        if time.monotonic() - lease.received < lease.timeout / 2:
            return True
        try:
            self._leases.extend([lease], max(1, round(lease.timeout * 1000)))
        except StaleLeaseError:
            return False  # it ended, the broker gives the records to somebody else
        return True

    def _go_on(self, depth: int) -> None:
        with self._changed:
            if depth == 1 or self._in_flight or self._dry or self._closed or len(self._ready) > depth // 2:
                return
            self._in_flight = True
        self._transport.start("Receive", self._encode(depth), _REQUEST_TIMEOUT, self._answered)

    def _answered(self, answer: bytes | BrokerError) -> None:
        deliveries: list[_core.Delivery] = []
        if isinstance(answer, bytes):
            deliveries = _core.Delivery.parse(answer)
        else:
            _log.debug("receiving ahead failed, the next receive will meet the cause itself: %s", answer)
        with self._changed:
            self._ready.extend((delivery, self._leases.add(delivery)) for delivery in deliveries)
            self._dry = not deliveries
            self._in_flight = False
            self._changed.notify_all()
