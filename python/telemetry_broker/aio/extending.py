"""Leases that last as long as their batches are worked on, on an event loop."""

from __future__ import annotations

import asyncio
import time

from telemetry_broker.aio.batch import Batch
from telemetry_broker.aio.transport import Caller, run
from telemetry_broker.errors import BrokerError
from telemetry_broker.extending import failed, keep, plan
from telemetry_broker.leases import LeaseBook


class Extender:
    """Extends the leases of one asynchronous consumer.

    A task does it, which is there only while there is something to extend. It sleeps until the first lease is due, and
    once awake it looks again at all: a batch that is handled fast costs no wake-up.
    """

    def __init__(self, leases: LeaseBook, caller: Caller) -> None:
        self._leases = leases
        self._caller = caller
        self._task: asyncio.Task[None] | None = None
        self._wake_at = 0.0  # when the task looks again, by ``time.monotonic``
        self._sooner = asyncio.Event()
        self._closed = False

    def keep(self, batch: Batch, seconds: float) -> None:
        """Extends the batch's lease for so many seconds, while it is open and somebody has the batch."""
        if seconds <= 0 or not batch or self._closed:
            return
        lease, _ = batch.part()
        due = keep(lease, batch, seconds)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run())
        elif due < self._wake_at:
            self._sooner.set()

    def close(self) -> None:
        """Extends nothing more."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        while True:
            now = time.monotonic()
            due, wake_at = plan(self._leases.kept(), now)
            if wake_at is None:
                self._task = None
                return
            self._wake_at = wake_at
            for timeout_ms, leases in due.items():
                try:
                    await run(self._leases.extend(leases, timeout_ms), self._caller)
                except BrokerError as error:
                    failed(leases, error)
            if not due:
                self._sooner.clear()
                try:
                    async with asyncio.timeout(wake_at - now):
                        await self._sooner.wait()
                except TimeoutError:
                    pass
