"""The asynchronous way from a producer's buffer to the broker: a task for each batch that is on its way."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from functools import partial

from telemetry_broker import _core
from telemetry_broker.aio.transport import Transport
from telemetry_broker.outbox import Appended, Outbox, Outcome, SentBatch, all_appended, no_room, not_flushed, not_free


class Sender:
    """Sends the batches of one producer. Used on one event loop.

    Batches belong to the sender: a caller that is cancelled while it waits takes nothing back.

    Attributes:
        watched: whether a timer will send what is in the buffer; else who adds a record calls ``linger_on``.
    """

    def __init__(self, transport: Transport, outbox: Outbox, buffer: _core.ProducerBuffer, linger: float) -> None:
        self.watched = False
        self._producing = transport.producing()
        self._outbox = outbox
        self._buffer = buffer
        self._linger = linger
        self._loop = asyncio.get_running_loop()
        # A task and no timer: a loop that ends cancels tasks, whereas a timer would go on and start new ones.
        self._timer: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._settled: set[asyncio.Future[None]] = set()  # of those who wait for a batch to be settled

    async def make_way(self, max_block: float) -> None:
        """Leaves a turn to other tasks, waits until there is room for a record, or says why none is taken."""
        outbox = self._outbox
        outbox.refuse_record()
        await asyncio.sleep(0)
        await self._await(
            lambda: not outbox.stalled or outbox.error is not None, time.monotonic() + max_block, no_room(max_block)
        )
        outbox.refuse_record()
        outbox.look_again()

    def linger_on(self) -> None:
        """Lets the buffer's records leave ``linger`` from now; where that is nothing, once the caller leaves a turn."""
        if self._linger == 0:
            if not self.watched:
                self.watched = True
                self._loop.call_soon(self._leave)
            return
        if self._timer is not None:
            self._timer.cancel()
        self.watched = True
        self._timer = self._loop.create_task(self._lingered())

    async def _lingered(self) -> None:
        await asyncio.sleep(self._linger)
        self._leave()

    def _leave(self) -> None:
        self.watched = False
        for partition in self._buffer.waiting():
            self.dispatch(partition, small=self._linger == 0)

    def dispatch(self, partition: int, *, stall: bool = False, small: bool = False) -> bool:
        """Sends the partition's batch now, or leaves it to follow what is on its way; then returns False.

        ``stall``: the batch is full, so that no record is taken until it has left. ``small``: it can wait for its like,
        see ``Outbox.gather``.
        """
        if not self._outbox.is_free(partition):
            self._outbox.follow(partition, stall=stall)
            return False
        if small and self._outbox.gather():
            return False
        batch = self._outbox.take(partition)
        if batch is not None:
            self._start(batch)
        if stall:
            self._outbox.halted = True  # before the next record: who sends without a pause leaves turns to others
        return True

    async def flush(self, timeout: float | None) -> None:  # noqa: ASYNC109
        """Sends what is in the buffer and returns when all of it, and all before it, is settled."""
        end = None if timeout is None else time.monotonic() + timeout
        late = not_flushed(timeout)
        for partition in self._buffer.waiting():
            while not self.dispatch(partition):
                await self._await(partial(self._outbox.is_free, partition), end, late)
        sent = self._outbox.unsettled()
        await self._await(lambda: sent.isdisjoint(self._outbox.unsettled()), end, late)

    async def append(self, requests: Sequence[tuple[int, bytes]]) -> list[Appended]:
        """Sends complete Produce requests, each to its partition, side by side; returns when all are settled."""
        waiters: list[asyncio.Future[Outcome]] = []
        for partition, request in requests:
            waiter: asyncio.Future[Outcome] = self._loop.create_future()
            batch = self._outbox.append(partition, request, partial(_tell, waiter))
            late = not_free(self._outbox.delivery_timeout, partition)
            await self._await(partial(self._outbox.claim, batch), batch.deadline, late)
            self._start(batch)
            waiters.append(waiter)
        return all_appended([await waiter for waiter in waiters])

    async def close(self) -> None:
        """Gives up what is not settled, and counts it."""
        if self._outbox.closed:
            return
        self._give_up()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _give_up(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._producing.close()
        for batch in self._outbox.close():
            if batch.waiter is not None:
                batch.waiter(self._outbox.closed_error())
        self._wake()

    async def _await(self, condition: Callable[[], bool], end: float | None, late: str) -> None:
        """Sleeps until the condition holds; it is looked at whenever a batch was settled."""
        while not condition():
            if self._outbox.closed:
                raise self._outbox.closed_error()
            settled = self._loop.create_future()
            self._settled.add(settled)
            try:
                async with asyncio.timeout(None if end is None else max(0.0, end - time.monotonic())):
                    await settled
            except TimeoutError:
                if not condition():
                    raise self._outbox.late_error(late) from None
            finally:
                self._settled.discard(settled)

    def _wake(self) -> None:
        for settled in self._settled:
            if not settled.done():
                settled.set_result(None)

    def _start(self, batch: SentBatch) -> None:
        task = self._loop.create_task(self._deliver(batch))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _deliver(self, batch: SentBatch) -> None:
        """Sends a batch until it is settled."""
        try:
            outcome = None
            while outcome is None:
                answer = await self._producing.produce(batch.request, self._outbox.topic, batch.attempt())
                outcome = self._outbox.answered(batch, answer)
                if self._outbox.closed:
                    return  # close() has counted it
                if outcome is not None:
                    self._outbox.settle(batch, outcome)
                self._wake()  # where it is set aside, its partition is free
                for following in self._outbox.following(batch):
                    self._start(following)
                if outcome is None:
                    await asyncio.sleep((batch.retry_at or 0.0) - time.monotonic())
                    batch.retry_at = None
            self._outbox.tell(batch, outcome)
        except asyncio.CancelledError:
            # By close(), or by an event loop that ends and takes the producer with it.
            if not self._outbox.closed:
                self._give_up()
            raise


def _tell(waiter: asyncio.Future[Outcome], outcome: Outcome) -> None:
    if not waiter.done():  # else whoever called append was cancelled
        waiter.set_result(outcome)
