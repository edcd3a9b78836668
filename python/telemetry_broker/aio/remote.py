"""A broker behind gRPC on an event loop: ``grpc://`` and ``grpc+unix://``."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Final

import grpc

from telemetry_broker import _core
from telemetry_broker.aio.home import Home
from telemetry_broker.aio.produce_stream import ProduceStream
from telemetry_broker.errors import BrokerError, ClosedError, UnavailableError
from telemetry_broker.remote import CALL_TIMEOUT, OPTIONS, SERVICE, broker_error, closed_error
from telemetry_broker.transport import MAX_WAIT_MS, UnansweredError
from telemetry_broker.v1 import broker_pb2 as pb


class RemoteTransport:
    """Drives a ``grpc.aio`` channel; it connects at the first call and again after every break."""

    prefetches: Final = True

    def __init__(self, url: str, target: str) -> None:
        self.url = url
        self._home = Home(f"the connection to {url}")
        self._channel = grpc.aio.insecure_channel(target, options=OPTIONS)
        self._methods: dict[str, grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]] = {}
        self._closed = False

    async def call(self, method: str, request: bytes, topic: str = "") -> bytes:  # noqa: ARG002
        """See Transport; gives up after ``CALL_TIMEOUT`` seconds."""
        return await self.ask(method, request, CALL_TIMEOUT)

    async def ask(self, method: str, request: bytes, timeout: float, *, maybe_done: bool = False) -> bytes:  # noqa: ASYNC109
        """Runs a call; ``maybe_done``: raises UnansweredError where the broker may have done the work all the same."""
        self._home.check()
        if (refused := self.refused()) is not None:
            raise refused
        known = self._methods.get(method)
        if known is None:
            known = self._methods[method] = self._channel.unary_unary(SERVICE + method)
        try:
            return await known(request, timeout=timeout)
        except grpc.RpcError as error:
            raise broker_error(self.url, method, error, self.refused(), maybe_done) from error
        except (asyncio.CancelledError, grpc.aio.UsageError) as error:
            # A channel that closes cancels its calls, which must not look as if somebody had cancelled the caller.
            task = asyncio.current_task()
            if (refused := self.refused()) is None or (task is not None and task.cancelling()):
                raise
            raise (UnansweredError(refused) if maybe_done else refused) from error

    def stream(self, method: str, requests: AsyncIterator[bytes]) -> grpc.aio.StreamStreamCall[bytes, bytes]:
        """Begins a stream."""
        self._home.check()
        if (refused := self.refused()) is not None:
            raise refused
        known: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = self._channel.stream_stream(SERVICE + method)
        return known(requests)

    def stream_error(self, method: str, error: grpc.RpcError) -> BrokerError:
        """What ended a stream."""
        return broker_error(self.url, method, error, self.refused(), maybe_done=False)

    def produce_error(self, method: str, error: grpc.RpcError) -> BrokerError:
        """What ended a stream of requests that may have been carried out all the same."""
        return broker_error(self.url, method, error, self.refused(), maybe_done=True)

    def refused(self) -> ClosedError | None:
        """Why no call can be made, if so."""
        return closed_error(self.url) if self._closed else None

    def producing(self) -> ProduceStream:
        """See Transport."""
        return ProduceStream(self)

    def consume(self) -> RemoteStream:
        """See Transport."""
        return RemoteStream(self)

    def receiver(self, topic: str) -> RemoteReceiver:  # noqa: ARG002 - the request names it
        """See Transport."""
        return RemoteReceiver(self)

    async def close(self, *, flush: bool = True) -> None:  # noqa: ARG002 - nothing is buffered here
        """See Transport."""
        if not self._closed:
            self._closed = True
            await self._channel.close()


class RemoteStream:
    """See transport.Stream."""

    def __init__(self, transport: RemoteTransport) -> None:
        self._transport = transport
        self._requests: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._call: grpc.aio.StreamStreamCall[bytes, bytes] | None = None

    def send(self, message: bytes) -> None:
        """See Stream."""
        self._requests.put_nowait(message)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            self._call = self._transport.stream("Consume", self._sent())
            async for message in self._call:
                yield message
        except grpc.RpcError as error:
            raise self._transport.stream_error("Consume", error) from error

    def cancel(self) -> None:
        """See Stream."""
        self._requests.put_nowait(None)  # ends the task that sends for gRPC
        if self._call is not None:
            self._call.cancel()

    async def _sent(self) -> AsyncIterator[bytes]:
        while (message := await self._requests.get()) is not None:
            yield message


class RemoteReceiver:
    """Waits in the server: each Receive asks it to hold the answer back until there are records."""

    def __init__(self, transport: RemoteTransport) -> None:
        self._transport = transport
        self._closed = False

    async def receive(self, request: bytes, wait: float | None) -> list[_core.Delivery]:
        """See Receiver."""
        if self._closed:
            return []
        # First without a wait: that is the cheaper call, and while there are records the only one.
        deliveries = _core.Delivery.parse(await self._transport.call("Receive", request))
        if deliveries or wait == 0:
            return deliveries
        template = pb.ReceiveRequest.FromString(request)
        end = None if wait is None else time.monotonic() + wait
        while not self._closed:
            left_ms = MAX_WAIT_MS if end is None else max(0, round((end - time.monotonic()) * 1000))
            template.wait_ms = min(left_ms, MAX_WAIT_MS)
            asked = time.monotonic()
            timeout = template.wait_ms / 1000 + CALL_TIMEOUT
            try:
                answer = await self._transport.ask("Receive", template.SerializeToString(), timeout)
            except ClosedError:
                if self._closed:
                    break
                raise
            deliveries = _core.Delivery.parse(answer)
            if deliveries or left_ms == template.wait_ms < MAX_WAIT_MS:
                return deliveries
            if time.monotonic() - asked < template.wait_ms / 2000:
                raise UnavailableError(f"{self._transport.url} ended a wait before its time: it is stopping")
        return []

    def close(self) -> None:
        """See Receiver; the calls themselves are their tasks' to cancel."""
        self._closed = True
