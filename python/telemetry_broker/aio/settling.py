"""Calls that wait for the disk, on an event loop: the writes are made on the loop, the waits of all share a thread."""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor
from typing import Final

from telemetry_broker import _core
from telemetry_broker.transport import Request

METHODS: Final = frozenset({"Produce", "Ack"})
"""What `Settling.call` can run; on a topic that is not ``fsync`` these take microseconds."""


class Settling:
    """Makes Produce and Ack calls of one core. Used on one event loop only.

    What is written while one sync of a partition runs is covered by the next, for all callers: however many there are,
    a partition needs one thread.
    """

    def __init__(self, core: _core.Broker, executor: Executor) -> None:
        """``executor`` runs the waits, one at a time for each partition."""
        self._core = core
        self._executor = executor
        self._lanes: dict[str, list[tuple[_core.Unsettled, asyncio.Future[None]]]] = {}  # one there: its thread is busy
        self._tasks: set[asyncio.Task[None]] = set()

    async def call(self, method: str, request: Request | memoryview) -> bytes:
        """Runs one call and returns the answer once what it wrote is as durable as the topic promises.

        Raises:
            BrokerError: as ``_core.Broker.call``.
        """
        answer, unsettled = self._core.call_unsettled(method, request)
        if unsettled is not None:
            await self._settled(unsettled)
        return answer

    async def _settled(self, unsettled: _core.Unsettled) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        lane = self._lanes.get(unsettled.lane)
        if lane is None:
            self._lanes[unsettled.lane] = [(unsettled, future)]
            task = asyncio.create_task(self._run(unsettled.lane))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        else:
            lane.append((unsettled, future))
        await future

    async def _run(self, lane: str) -> None:
        loop = asyncio.get_running_loop()
        while waiting := self._lanes[lane]:
            self._lanes[lane] = []
            writes = [unsettled for unsettled, _ in waiting]
            try:
                outcomes = await loop.run_in_executor(self._executor, self._core.settle, writes)
            except BaseException as error:  # whoever waits must be told, whatever ended the thread or the task
                for _, future in waiting + self._lanes.pop(lane):
                    if not future.done():
                        future.set_exception(error if isinstance(error, Exception) else asyncio.CancelledError())
                raise
            for (_, future), outcome in zip(waiting, outcomes, strict=True):
                if future.done():
                    continue
                if outcome is None:
                    future.set_result(None)
                else:
                    future.set_exception(outcome)
        del self._lanes[lane]
