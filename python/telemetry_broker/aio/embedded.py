"""The broker in this process on an event loop, behind ``file://`` and ``mem://``."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final

from telemetry_broker import _core
from telemetry_broker.aio.core_calls import CoreCalls
from telemetry_broker.aio.home import Home
from telemetry_broker.aio.transport import Stream
from telemetry_broker.aio.waiting import Waiters
from telemetry_broker.errors import BrokerError, ClosedError, UnsupportedError
from telemetry_broker.transport import Request, Streamed, UnansweredError
from telemetry_broker.v1 import broker_pb2 as pb


class EmbeddedTransport:
    """Drives ``_core.Broker``: what is quick on the loop, what waits for the disk in a thread.

    Waits for records sleep until the core signals a file descriptor that the loop watches; nothing polls.
    """

    prefetches: Final = False  # a receive is made in one go, so that a cancelled one has leased nothing

    def __init__(self, url: str, core: _core.Broker, release: Callable[[bool], None]) -> None:
        """``release`` lets go of the core and is told whether to flush; one core may serve several connections."""
        self.url = url
        self._core = core
        self._calls = CoreCalls(core)
        self._release = release
        self._home = Home(f"the connection to {url}")
        self._waiters: Waiters | None = None
        self._closed = False

    async def call(self, method: str, request: Request, topic: str = "") -> bytes:
        """See Transport."""
        self._home.check()
        self._refuse_closed()
        answer = await self._calls.call(method, request, topic)
        if method == "Read" and not _core.Delivery.parse(answer):
            asked = pb.ReadRequest.FromString(bytes(request))
            if asked.wait_ms:
                answer = await self._read_after_wait(asked, request)
        return answer

    async def _read_after_wait(self, asked: pb.ReadRequest, request: Request) -> bytes:
        end = time.monotonic() + asked.wait_ms / 1000
        waiters = self.waiters()
        with waiters.waiting(asked.topic) as changed:
            while True:
                changed.clear()  # first clear, then look, then wait: what changes from here on ends the wait
                self._refuse_closed()
                answer = self._core.call("Read", request)
                left = end - time.monotonic()
                if left <= 0 or _core.Delivery.parse(answer):
                    return answer
                await waiters.wait(changed, left)

    def producing(self) -> EmbeddedProducing:
        """See Transport."""
        return EmbeddedProducing(self)

    def look(self, request: bytes) -> tuple[list[_core.Delivery], int]:
        """What a Receive finds without waiting; see ``_core.Broker.receive``."""
        self._refuse_closed()
        return self._core.receive(request)

    def waiters(self) -> Waiters:
        """Who waits for records here."""
        self._refuse_closed()
        if self._waiters is None:
            self._waiters = Waiters(self._core)
        return self._waiters

    def consume(self, came: Callable[[Sequence[Streamed]], None]) -> Stream:  # noqa: ARG002
        """See Transport."""
        raise UnsupportedError(f"{self.url} has no streams: its calls are no round trips")

    def receiver(self, topic: str) -> EmbeddedReceiver:
        """See Transport."""
        return EmbeddedReceiver(self, topic)

    async def close(self, *, flush: bool = True) -> None:
        """See Transport; ``flush=False`` leaves behind what kill -9 would, for tests of recovery."""
        if self._closed:
            return
        self._closed = True
        if self._waiters is not None:
            self._waiters.close()
        await asyncio.to_thread(self._release, flush)
        self._calls.close()  # not before: who waits for a sync has its thread until the core has flushed

    def _refuse_closed(self) -> None:
        if self._closed:
            raise ClosedError(f"{self.url} was closed; call connect() again")


class EmbeddedProducing:
    """Calls the core, which answers by itself, without a timeout."""

    def __init__(self, transport: EmbeddedTransport) -> None:
        self._transport = transport

    async def produce(self, request: Request, topic: str, timeout: float) -> bytes | BrokerError:  # noqa: ARG002, ASYNC109
        """See Producing."""
        try:
            return await self._transport.call("Produce", request, topic)
        except ClosedError as error:
            return UnansweredError(error)
        except BrokerError as error:
            return error

    def close(self) -> None:
        """See Producing."""


class EmbeddedReceiver:
    """Looks for records and sleeps until there may be some."""

    def __init__(self, transport: EmbeddedTransport, topic: str) -> None:
        self._transport = transport
        self._topic = topic
        self._waits: set[asyncio.Event] = set()
        self._closed = False

    async def receive(self, request: bytes, wait: float | None) -> list[_core.Delivery]:
        """See Receiver. Between a look that leases and the return nothing is awaited, so nothing can be lost."""
        await asyncio.sleep(0)  # a consumer that always finds records leaves turns to the other tasks
        if self._closed:
            return []
        deliveries, _ = self._transport.look(request)
        if deliveries or wait == 0:
            return deliveries
        end = None if wait is None else time.monotonic() + wait
        waiters = self._transport.waiters()
        with waiters.waiting(self._topic) as changed:
            self._waits.add(changed)
            try:
                while not self._closed:
                    changed.clear()  # first clear, then look, then wait: what changes from here on ends the wait
                    deliveries, due_ms = self._transport.look(request)
                    left = None if end is None else max(0.0, end - time.monotonic())
                    if deliveries or left == 0:
                        return deliveries
                    due = due_ms / 1000 if due_ms else None  # 0: no lease and no delay will end
                    await waiters.wait(changed, min((s for s in (left, due) if s is not None), default=None))
            finally:
                self._waits.discard(changed)
        return []

    def close(self) -> None:
        """See Receiver."""
        self._closed = True
        for changed in self._waits:
            changed.set()
