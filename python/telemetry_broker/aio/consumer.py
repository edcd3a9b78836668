"""Asynchronous consumers: leased batches of a group, waited for on the event loop without polling."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from types import TracebackType
from typing import Self

from telemetry_broker import _core, calls
from telemetry_broker.admin import GroupPartition
from telemetry_broker.aio.batch import Batch
from telemetry_broker.aio.extending import Extender
from telemetry_broker.aio.feed import Feed
from telemetry_broker.aio.home import Home
from telemetry_broker.aio.transport import Caller, Transport, run
from telemetry_broker.batch import Records
from telemetry_broker.errors import ClosedError, UnavailableError
from telemetry_broker.leases import Lease, LeaseBook
from telemetry_broker.positions import Position
from telemetry_broker.receiving import Demand, Outage, check_wait

_log = logging.getLogger(__name__)


class _Iteration(AsyncIterator[Batch]):
    """One ``async for`` over a consumer; while it is kept, the broker may send ahead."""

    def __init__(
        self, home: Home, feed: Feed | None, next_batch: Callable[[Feed | None], Awaitable[Batch | None]]
    ) -> None:
        self._home = home
        self._feed = feed
        self._next_batch = next_batch
        self._entered = False

    async def __anext__(self) -> Batch:
        self._home.check()
        if self._feed is not None and not self._entered:
            self._entered = True
            self._feed.enter()
        batch = await self._next_batch(self._feed)
        if batch is None:
            raise StopAsyncIteration
        return batch

    def __del__(self) -> None:
        if self._feed is not None and self._entered and not self._home.forked:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._home.loop.call_soon_threadsafe(self._feed.leave)  # garbage is collected anywhere


class Consumer:
    """Gets records for one group of a topic. Made by ``Broker.consumer``; used on the event loop where it was made.

    ``async for batch in consumer`` waits for records until the consumer is closed or nothing came for ``idle_timeout``
    seconds. Leaving the ``async with`` block (or ``close``) gives back at once what is neither acked nor nacked.

    A batch from iterating is yours for as long as you work on it: while you have it un-acked, its lease is extended,
    for up to ``max_lease_extension``. To give a batch up, nack it, or let go of it and it comes again when its
    visibility timeout ends. Nothing is kept for a process that has ended.

    Several tasks may receive from one consumer. A cancelled ``receive`` loses nothing: what the broker leased for it is
    for the next one, or is given back after a few seconds.

    Attributes:
        topic: what is read.
        group: for whom.
        name: identifies this consumer to an ordered group, where it can hold partitions.
    """

    def __init__(self, transport: Transport, demand: Demand) -> None:
        self._demand = demand
        self.topic = demand.topic
        self.group = demand.group
        self.name = demand.name
        self._transport = transport
        self._home = Home(f"this consumer of {demand.topic}")
        self._leases = LeaseBook(demand.topic, demand.group, ordered=demand.mode == "ordered")
        self._receiver = transport.receiver(demand.topic)
        self._feed: Feed | None = None
        self._caller: Caller = transport
        if transport.prefetches:
            self._feed = Feed(transport, self._leases, demand, self._fetch)
            self._caller = self._feed.caller
        self._extender = Extender(self._leases, self._caller)
        # An ordered group rewinds at a nack, and what was taken ahead of it would then come out of order.
        self._streams = transport.prefetches and demand.mode == "shared"
        self._closing = asyncio.Event()

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._closing.is_set()

    async def receive(self, max_records: int | None = None, wait: float | None = 0.0) -> Batch:
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
        self._home.check()
        if self.closed:
            raise self._demand.closed_error()
        check_wait(wait)
        batch = await self._receive(self._demand.records(max_records), wait)
        self._extender.keep(batch, self._demand.keep_received)
        return batch

    async def ack(self, batches: Iterable[Batch]) -> int:
        """Acks several batches of this consumer at once: one call, and one write per partition. See ``Batch.ack``."""
        return await run(self._leases.ack([batch.part() for batch in batches]), self._caller)

    async def seek(self, to: Position, partitions: Iterable[int] | None = None) -> tuple[GroupPartition, ...]:
        """Moves the group, forwards or back, and goes on from there; see ``Broker.seek``. Makes the group if need be.

        It is the whole group that moves: other consumers' leases end too. A batch that was received before is not to
        be acked any more.

        Args:
            to: ``START``, ``END``, an offset, an ``Offset``, or ``at_time(...)``.
            partitions: only these; None: those of this consumer.
        """
        self._home.check()
        wanted = self._demand.partitions if partitions is None else partitions
        steps = calls.seek_consumer(self.topic, self.group, self._demand.mode, to, wanted)
        moved = await run(steps, self._transport)
        self._leases.end(state.partition for state in moved)
        return moved

    async def peek(self, max_records: int = 10) -> list[Records]:
        """Looks at the oldest records that the group has not acked, leased or not, without leasing them.

        Makes no group and counts no attempt. Records that were acked out of their order may be among them.

        Args:
            max_records: how many, of all partitions of this consumer together, 1 to 65,536.

        Returns:
            Ranges of records, in the order of the partitions; none when all is acked.
        """
        self._home.check()
        steps = calls.peek(
            self.topic, self.group, self._demand.partitions, self._demand.records(max_records), self._demand.max_bytes
        )
        return await run(steps, self._transport)

    async def close(self, *, give_back: bool = True) -> None:
        """Ends every wait and, unless told not to, gives back what is open; repeating it is fine.

        When the broker cannot be reached, that is logged, and the leases end with their visibility timeouts.
        """
        if self.closed or self._home.forked:
            return
        self._home.check()
        self._closing.set()
        self._receiver.close()
        self._extender.close()
        if self._feed is not None:
            await self._feed.close()
        try:
            if give_back:
                await run(self._leases.give_back(), self._caller)
        except (UnavailableError, ClosedError) as error:
            _log.warning("%r could not give back its leases, they end with their visibility timeouts: %s", self, error)
        finally:
            if self._feed is not None:
                await self._feed.end(keep_leases=not give_back)

    def __aiter__(self) -> AsyncIterator[Batch]:
        return _Iteration(self._home, self._feed if self._streams else None, self._next)

    async def _next(self, feed: Feed | None) -> Batch | None:
        """The next batch of an iteration, None at its end."""
        while not self.closed:
            wait = self._demand.idle_timeout
            if feed is not None:
                taken = await feed.advance(wait)
                if taken is not None:
                    return self._keep(Batch(*taken, self._leases, self._caller))
                if self.closed:
                    break
                wait = 0.0  # one definite look: the time may have been over before the stream had begun
            batch = await self._receive(self._demand.max_records, wait)
            if batch:
                return self._keep(batch)
            if self._demand.idle_timeout is not None:
                break
        return None

    def _keep(self, batch: Batch) -> Batch:
        self._extender.keep(batch, self._demand.keep_iterated)
        return batch

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<Consumer {self.name!r} of {self.topic!r} for {self.group!r} at {self._transport.url}>"

    async def _receive(self, max_records: int, wait: float | None) -> Batch:
        taken = None
        if self._feed is not None:
            taken = await self._feed.next(max_records, wait)
        else:
            # From a lease to the return nothing is awaited: a cancelled receive has leased nothing.
            deliveries = await self._fetch(max_records, wait)
            if deliveries:
                taken = deliveries[0], self._leases.add(deliveries[0])
        delivery, lease = taken or (self._demand.empty, Lease(self._demand.empty))
        return Batch(delivery, lease, self._leases, self._caller)

    async def _fetch(self, max_records: int, wait: float | None) -> list[_core.Delivery]:
        """Runs one Receive, and sits out a broker that is away as long as the wait allows."""
        request = self._demand.encode(max_records)
        end = None if wait is None else time.monotonic() + wait
        outage = Outage(end, self._demand.reconnect_timeout)
        while True:
            left = None if end is None else max(0.0, end - time.monotonic())
            try:
                return await self._receiver.receive(request, left)
            except UnavailableError as error:
                pause = outage.pause(error)
            try:
                async with asyncio.timeout(pause):
                    await self._closing.wait()
                return []
            except TimeoutError:
                pass
