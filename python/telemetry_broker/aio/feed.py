"""Deliveries from a remote broker: none is lost to a cancelled caller, and some come ahead of a fast one."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

from telemetry_broker import _core
from telemetry_broker.aio.transport import Transport, run
from telemetry_broker.errors import BrokerError
from telemetry_broker.leases import Lease, LeaseBook
from telemetry_broker.pace import Pace

_KEPT: Final = 5.0  # seconds, or half of the lease where that is less
_CLOSE_TIMEOUT: Final = 5.0

_log = logging.getLogger(__name__)

Taken = tuple[_core.Delivery, Lease]
Fetch = Callable[[int, int, float | None], Awaitable[list[_core.Delivery]]]
"""Runs a Receive for so many records and deliveries, with a wait."""


class Feed:
    """The Receive requests of one consumer and what they brought.

    A request belongs to the feed and not to the caller for whom it was made: once it is on its way, the broker may have
    leased records for it. The request of a cancelled caller goes on, and the next caller who waits takes it over. What
    came and is claimed by nobody for some seconds is given back.

    Requests ahead never wait in the server, and there is at most one.
    """

    def __init__(
        self, transport: Transport, leases: LeaseBook, fetch: Fetch, *, ordered: bool, ahead: int | None
    ) -> None:
        """``ahead``: the ``max_records`` of requests that are made ahead; None: none are made."""
        self._transport = transport
        self._leases = leases
        self._fetch = fetch
        self._ordered = ordered
        self._ahead_records = ahead
        self._pace = Pace()
        self._loop = asyncio.get_running_loop()
        self._ready: deque[Taken] = deque()
        self._ahead: asyncio.Task[bool] | None = None
        self._dry = True  # the last answer was empty
        self._left: dict[asyncio.Task[bool], int] = {}  # waits of cancelled callers, and their max_records
        self._tasks: set[asyncio.Task[bool]] = set()
        self._changed: set[asyncio.Future[None]] = set()  # of callers who wait for something to come
        self._givers: set[asyncio.Task[None]] = set()
        self._sweeper: asyncio.TimerHandle | None = None
        self._closed = False

    async def next(self, max_records: int, wait: float | None) -> Taken | None:
        """The next delivery of at most so many records; waits for one as ``Consumer.receive`` does."""
        called_at = time.monotonic()
        end = None if wait is None else called_at + wait
        while not self._closed:
            taken = self._pop(max_records)
            if taken is not None:
                self._go_on(self._pace.depth(called_at, taken[1].timeout), max_records)
                self._pace.handed_out()
                return taken
            if self._ordered and self._ready:
                await self._give_back(self._unclaimed(everything=True))  # what does not fit must not be overtaken
            ahead = max_records == self._ahead_records
            if ahead and self._ahead is not None:
                await self._next_change(None)  # it is quick, and brings what there is
                continue
            request = self._take_over(max_records) if wait != 0 else None
            taken_over = request is not None
            if request is None:
                left = None if end is None else max(0.0, end - time.monotonic())
                request = self._ask(max_records, self._pace.depth(called_at) if ahead else 1, left)
            found = await self._wait_for(request, max_records, end if taken_over else None)
            if not found and (not taken_over or (end is not None and time.monotonic() >= end)):
                break
        return None

    async def _wait_for(self, request: asyncio.Task[bool], max_records: int, end: float | None) -> bool:
        """Sleeps until the request is done, another one brought what fits, or the time is over.

        Returns whether there was something, which others may have claimed by now. Raises the request's error.
        """
        try:
            while not request.done() and not self._fits(max_records):
                if not await self._next_change(end):
                    break
        finally:
            if not request.done():
                self._left[request] = max_records
        found = request.done() and not request.cancelled() and request.result()
        return found or self._fits(max_records)

    async def _next_change(self, end: float | None) -> bool:
        """Sleeps until some request is done; False when the time is over."""
        changed = self._loop.create_future()
        self._changed.add(changed)
        try:
            async with asyncio.timeout(None if end is None else max(0.0, end - time.monotonic())):
                await changed
        except TimeoutError:
            return False
        finally:
            self._changed.discard(changed)
        return True

    def _take_over(self, max_records: int) -> asyncio.Task[bool] | None:
        for request, records in self._left.items():
            if records == max_records:
                del self._left[request]
                return request
        return None

    def _ask(self, max_records: int, deliveries: int, wait: float | None) -> asyncio.Task[bool]:
        request = self._loop.create_task(self._run(max_records, deliveries, wait))
        self._tasks.add(request)
        request.add_done_callback(self._done)
        return request

    async def _run(self, max_records: int, deliveries: int, wait: float | None) -> bool:
        """Makes one request; returns whether it brought something."""
        found = await self._fetch(max_records, deliveries, wait)
        self._ready.extend((delivery, self._leases.add(delivery)) for delivery in found)
        self._dry = not found
        if found and self._sweeper is None:
            self._sweep()
        return bool(found)

    def _done(self, request: asyncio.Task[bool]) -> None:
        self._tasks.discard(request)
        if request is self._ahead:
            self._ahead = None
        left = self._left.pop(request, None) is not None
        if not request.cancelled() and (error := request.exception()) is not None and left:
            _log.debug("a receive that nobody waits for failed, the next one will meet the cause itself: %s", error)
        for changed in self._changed:
            if not changed.done():
                changed.set_result(None)

    def _pop(self, max_records: int) -> Taken | None:
        while self._ready and self._ready[0][1].ended:
            self._ready.popleft()
        for place, (delivery, lease) in enumerate(self._ready):
            if lease.ended:
                continue
            if len(delivery) <= max_records:
                taken = self._ready[place]
                del self._ready[place]
                return taken
            if self._ordered:
                break
        return None

    def _fits(self, max_records: int) -> bool:
        return any(len(delivery) <= max_records for delivery, _ in self._ready)

    def _go_on(self, depth: int, max_records: int) -> None:
        if max_records != self._ahead_records or depth == 1 or self._ahead is not None or self._dry:
            return
        if len(self._ready) <= depth // 2:
            self._ahead = self._ask(max_records, depth, 0.0)
            self._left[self._ahead] = 0  # nobody's: an error is for the next caller's own request

    def _sweep(self) -> None:
        """Gives back what nobody claimed, and looks again when the next of it is due."""
        self._sweeper = None
        unclaimed = self._unclaimed()
        if unclaimed:
            giver = self._loop.create_task(self._give_back(unclaimed))
            self._givers.add(giver)
            giver.add_done_callback(self._givers.discard)
        if self._ready:
            due = min(lease.received + _kept(lease) for _, lease in self._ready)
            self._sweeper = self._loop.call_later(max(0.001, due - time.monotonic()), self._sweep)

    def _unclaimed(self, *, everything: bool = False) -> list[Lease]:
        """Takes out what has waited for too long, or all."""
        now = time.monotonic()
        found = [entry for entry in self._ready if everything or entry[1].received + _kept(entry[1]) <= now]
        for entry in found:
            self._ready.remove(entry)
        return [lease for _, lease in found]

    async def _give_back(self, unclaimed: list[Lease]) -> None:
        try:
            await run(self._leases.nack([(lease, lease.open) for lease in unclaimed]), self._transport)
        except BrokerError as error:
            _log.debug("what nobody claimed could not be given back, its leases end by themselves: %s", error)

    async def close(self) -> None:
        """Ends every wait; what came is left to ``LeaseBook.give_back``."""
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        ahead = self._ahead
        for request in list(self._tasks):
            if request is not ahead:
                request.cancel()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_TIMEOUT):
                await asyncio.gather(*self._tasks, *self._givers, return_exceptions=True)
        self._ready.clear()


def _kept(lease: Lease) -> float:
    return min(_KEPT, lease.timeout / 2)
