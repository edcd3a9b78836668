"""Deliveries from a remote broker: none is lost to a cancelled caller, and some come ahead of a fast one."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable
from itertools import chain
from typing import Final

from telemetry_broker import _core
from telemetry_broker.aio.ahead import Ahead
from telemetry_broker.aio.alarm import Alarm
from telemetry_broker.aio.transport import Caller, Transport, run
from telemetry_broker.errors import BrokerError
from telemetry_broker.inflow import Inflow, Taken, pop
from telemetry_broker.leases import Lease, LeaseBook
from telemetry_broker.receiving import Demand

_KEPT: Final = 5.0  # seconds, or half of the lease where that is less
_CLOSE_TIMEOUT: Final = 5.0

_log = logging.getLogger(__name__)

Fetch = Callable[[int, float | None], Awaitable[list[_core.Delivery]]]
"""Runs a Receive for so many records, with a wait."""


class Feed:
    """The Receive requests of one consumer, its Consume stream, and what they brought.

    A request belongs to the feed and not to the caller for whom it was made: once it is on its way, the broker may have
    leased records for it. The request of a cancelled caller goes on, and the next caller who waits takes it over. What
    came and is claimed by nobody for some seconds is given back.
    """

    def __init__(
        self,
        transport: Transport,
        leases: LeaseBook,
        demand: Demand,
        fetch: Fetch,
    ) -> None:
        self._transport = transport
        self._leases = leases
        self._max_records = demand.max_records
        self._fetch = fetch
        self._ordered = demand.mode == "ordered"
        self._loop = asyncio.get_running_loop()
        self._ready: deque[Taken] = deque()  # what requests brought
        self._inflow = Inflow(demand, leases.add)  # and the stream
        self._ahead = Ahead(transport, self._inflow, demand.reconnect_timeout, self._came)
        self._left: dict[asyncio.Task[bool], int] = {}  # waits of cancelled callers, and their max_records
        self._tasks: set[asyncio.Task[bool]] = set()
        self._changed: dict[asyncio.Future[bool], float] = {}  # callers who wait for something to come, and until when
        self._alarm = Alarm(self._look_for_late)
        self._givers: set[asyncio.Task[None]] = set()
        self._sweeper: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def caller(self) -> Caller:
        """Who makes the consumer's calls, over the stream while there is one."""
        return self._ahead

    def enter(self) -> None:
        """An iteration over the stream begins. Not in an ordered group."""
        self._inflow.enter()

    def leave(self) -> None:
        """It has ended, and the broker sends nothing more for it."""
        self._inflow.leave()

    async def advance(self, wait: float | None) -> Taken | None:
        """The next delivery of an iteration; None: the time is over or the consumer was closed.

        Raises what ended the stream, where waiting does not mend it.
        """
        called_at = time.monotonic()
        end = None if wait is None else called_at + wait
        self._inflow.wait()
        try:
            self._ahead.begin()
            while (taken := self._pop(self._max_records)) is None and not self._closed and self._ahead.failure is None:
                if not await self._next_change(end):
                    break
        finally:
            self._inflow.wait(over=True)
        if taken is None and not self._closed:
            if self._ahead.failure is not None:
                raise self._ahead.failure
            self._inflow.rest()
            await self._ahead.settle(self._next_change)
            taken = self._pop(self._max_records)
        if taken is not None:
            self._inflow.handed_out(taken, called_at)
        return taken

    async def next(self, max_records: int, wait: float | None) -> Taken | None:
        """The next delivery of at most so many records; waits for one as ``Consumer.receive`` does."""
        end = None if wait is None else time.monotonic() + wait
        if self._inflow.asking:
            await asyncio.sleep(0)  # an iterator that was let go says so in a turn of the loop
        await self._ahead.settle(self._next_change)
        while not self._closed:
            taken = self._pop(max_records)
            if taken is not None:
                return taken
            if self._ordered and self._ready:
                await self._give_back(self._unclaimed(everything=True))  # what does not fit must not be overtaken
            request = self._take_over(max_records) if wait != 0 else None
            taken_over = request is not None
            if request is None:
                request = self._ask(max_records, None if end is None else max(0.0, end - time.monotonic()))
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
        """Sleeps until something may have come; False when the time is over."""
        changed: asyncio.Future[bool] = self._loop.create_future()
        self._changed[changed] = math.inf if end is None else end
        if end is not None:
            self._alarm.by(end)
        try:
            return await changed
        finally:
            del self._changed[changed]

    def _look_for_late(self) -> None:
        """Wakes those whose time is over."""
        now = time.monotonic()
        for changed, end in self._changed.items():
            if end <= now and not changed.done():
                changed.set_result(False)
        next_end = min((end for end in self._changed.values() if end > now), default=math.inf)
        if next_end < math.inf:
            self._alarm.by(next_end)

    def _take_over(self, max_records: int) -> asyncio.Task[bool] | None:
        for request, records in self._left.items():
            if records == max_records:
                del self._left[request]
                return request
        return None

    def _ask(self, max_records: int, wait: float | None) -> asyncio.Task[bool]:
        request = self._loop.create_task(self._run(max_records, wait))
        self._tasks.add(request)
        request.add_done_callback(self._done)
        return request

    async def _run(self, max_records: int, wait: float | None) -> bool:
        """Makes one request; returns whether it brought something."""
        found = await self._fetch(max_records, wait)
        self._ready.extend((delivery, self._leases.add(delivery)) for delivery in found)
        return bool(found)

    def _done(self, request: asyncio.Task[bool]) -> None:
        self._tasks.discard(request)
        left = self._left.pop(request, None) is not None
        if not request.cancelled() and (error := request.exception()) is not None and left:
            _log.debug("a receive that nobody waits for failed, the next one will meet the cause itself: %s", error)
        self._came()

    def _came(self) -> None:
        """Something came, or what might have brought something has ended."""
        if self._sweeper is None and not self._closed and (self._ready or self._inflow.ready):
            self._sweep()
        for changed in self._changed:
            if not changed.done():
                changed.set_result(True)

    def _pop(self, max_records: int) -> Taken | None:
        return pop(self._ready, max_records, in_order=self._ordered) or self._inflow.pop(max_records)

    def _fits(self, max_records: int) -> bool:
        return any(len(delivery) <= max_records for delivery, _ in chain(self._ready, self._inflow.ready))

    def _sweep(self) -> None:
        """Gives back what nobody claimed, and looks again when the next of it is due."""
        self._sweeper = None
        unclaimed = self._unclaimed()
        if unclaimed:
            giver = self._loop.create_task(self._give_back(unclaimed))
            self._givers.add(giver)
            giver.add_done_callback(self._givers.discard)
        leases = [lease for _, lease in chain(self._ready, self._inflow.ready)]
        if leases:
            due = min(lease.received + _kept(lease) for lease in leases)
            self._sweeper = self._loop.call_later(max(0.001, due - time.monotonic()), self._sweep)

    def _unclaimed(self, *, everything: bool = False) -> list[Lease]:
        """Takes out what has waited for too long, or all."""
        now = time.monotonic()
        found: list[Lease] = []
        for ready in (self._ready, self._inflow.ready):
            for entry in list(ready):
                if everything or entry[1].received + _kept(entry[1]) <= now:
                    ready.remove(entry)
                    found.append(entry[1])
        return found

    async def _give_back(self, unclaimed: list[Lease]) -> None:
        try:
            await run(self._leases.nack([(lease, lease.open) for lease in unclaimed]), self._transport)
        except BrokerError as error:
            _log.debug("what nobody claimed could not be given back, its leases end by themselves: %s", error)

    async def close(self) -> None:
        """Ends every wait; what came is left to ``LeaseBook.give_back``."""
        self._closed = True
        self._inflow.rest()
        self._came()
        if self._sweeper is not None:
            self._sweeper.cancel()
        for request in list(self._tasks):
            request.cancel()
        await self._ahead.settle(self._next_change)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_TIMEOUT):
                await asyncio.gather(*self._tasks, *self._givers, return_exceptions=True)
        self._ready.clear()
        self._inflow.ready.clear()

    async def end(self, *, keep_leases: bool) -> None:
        """Ends the stream, after ``close``."""
        await self._ahead.end(keep_leases=keep_leases)
        self._alarm.cancel()


def _kept(lease: Lease) -> float:
    return min(_KEPT, lease.timeout / 2)
