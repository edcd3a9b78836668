"""Leases that last as long as their batches are worked on, on an event loop."""

from __future__ import annotations

import asyncio
import time

from telemetry_broker.aio.batch import Batch
from telemetry_broker.aio.transport import Transport, run
from telemetry_broker.errors import BrokerError
from telemetry_broker.extending import failed, keep, plan
from telemetry_broker.leases import Lease, LeaseBook


class Extender:
    """Extends the leases of one asynchronous consumer.

    One timer, which runs only while there is something to extend, wakes when the first lease is due and looks again at
    all: a batch that is handled fast costs no wake-up.
    """

    def __init__(self, leases: LeaseBook, transport: Transport) -> None:
        self._leases = leases
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0  # when the timer ends, by ``time.monotonic``
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def keep(self, batch: Batch, seconds: float) -> None:
        """Extends the batch's lease for so many seconds, while it is open and somebody has the batch."""
        if seconds <= 0 or not batch or self._closed:
            return
        lease, _ = batch.part()
        due = keep(lease, batch, seconds)
        if self._task is None and (self._timer is None or due < self._due):
            self._wake_at(due)

    def close(self) -> None:
        """Extends nothing more."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()

    def _wake_at(self, due: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._due = due
        self._timer = self._loop.call_later(max(0.0, due - time.monotonic()), self._wake)

    def _wake(self) -> None:
        self._timer = None
        due, next_due = plan(self._leases.kept(), time.monotonic())
        if due:
            self._task = self._loop.create_task(self._extend(due))
            self._task.add_done_callback(self._extended)
        elif next_due is not None:
            self._wake_at(next_due)

    async def _extend(self, due: dict[int, list[Lease]]) -> None:
        for timeout_ms, leases in due.items():
            try:
                await run(self._leases.extend(leases, timeout_ms), self._transport)
            except BrokerError as error:
                failed(leases, error)

    def _extended(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if not self._closed and not task.cancelled():
            self._wake()
