"""BrokerService on raw bytes: wire to core and back, with no state but the calls that wait."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import grpc

from telemetry_broker import _core
from telemetry_broker.aio.core_calls import CoreCalls
from telemetry_broker.aio.waiting import Waiters
from telemetry_broker.errors import BrokerError, InvalidArgumentError
from telemetry_broker.v1 import broker_pb2 as pb
from telemetry_services.broker.consume import ConsumeStreams
from telemetry_services.broker.produce import produce_stream
from telemetry_services.broker.wire import first_field
from telemetry_services.observability import metrics
from telemetry_services.serving.grpc_server import abort_with, compress_if_asked

SERVICE: Final = pb.DESCRIPTOR.services_by_name["BrokerService"].full_name
MAX_WAIT_MS: Final = 60_000
_DELIVERIES_TAG: Final = b"\x0a"  # field 1 of ReceiveResponse and ReadResponse; the core writes it first
_TOPIC: Final = 1  # of every request that has one

Context = grpc.aio.ServicerContext[Any, Any]
Unary = Callable[[bytes, Context], Awaitable[bytes]]


class BrokerServicer:
    """BrokerService over a core.

    Args:
        calls: of the same core.
        service: label of the metrics.
    """

    def __init__(self, core: _core.Broker, calls: CoreCalls, waiters: Waiters, service: str = "broker") -> None:
        self._core = core
        self._calls = calls
        self._waiters = waiters
        self._consume_streams = ConsumeStreams(core, calls, waiters)
        self._active = metrics.ACTIVE_CONNECTIONS.labels(service)

    def handler(self) -> grpc.GenericRpcHandler:
        """All methods of the service; messages stay bytes."""
        handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            method.name: grpc.unary_unary_rpc_method_handler(self._unary(method.name))
            for method in pb.DESCRIPTOR.services_by_name["BrokerService"].methods
        }
        handlers["ProduceStream"] = grpc.stream_stream_rpc_method_handler(self._produce_stream)
        handlers["Consume"] = grpc.stream_stream_rpc_method_handler(self._consume)
        return grpc.method_handlers_generic_handler(SERVICE, handlers)

    def _unary(self, method: str) -> Unary:
        run: Callable[[bytes], Awaitable[bytes]]
        match method:
            case "Receive":
                run = self._receive
            case "Read":
                run = self._read
            case _:

                async def run(request: bytes) -> bytes:
                    return await self._call(method, request)

        async def answer(request: bytes, context: Context) -> bytes:
            await compress_if_asked(context)
            with self._active.track_inprogress():
                try:
                    return await run(request)
                except BrokerError as error:
                    await abort_with(context, error)

        return answer

    async def _call(self, method: str, request: bytes | memoryview) -> bytes:
        return await self._calls.call(method, request, _text(first_field(request, _TOPIC)))

    async def _receive(self, request: bytes) -> bytes:
        answer = self._core.call("Receive", request)
        if answer.startswith(_DELIVERIES_TAG):
            return answer
        asked = pb.ReceiveRequest.FromString(request)
        _check_wait(asked.wait_ms)
        end = time.monotonic() + asked.wait_ms / 1000
        with self._waiters.waiting(asked.topic) as changed:
            while True:
                changed.clear()
                answer = self._core.call("Receive", request)
                left = end - time.monotonic()
                if answer.startswith(_DELIVERIES_TAG) or left <= 0:
                    return answer
                self._waiters.refuse_when_closed()
                due = pb.ReceiveResponse.FromString(answer).next_due_ms / 1000
                await self._waiters.wait(changed, min(left, due) if due else left)

    async def _read(self, request: bytes) -> bytes:
        answer = self._core.call("Read", request)
        if answer.startswith(_DELIVERIES_TAG):
            return answer
        asked = pb.ReadRequest.FromString(request)
        _check_wait(asked.wait_ms)
        # From here on by position: what "the end" and a time mean moves with every record that comes.
        at = pb.ReadResponse.FromString(answer)
        getattr(asked, "from").CopyFrom(pb.Position(offset=at.next_offset, log_id=at.log_id))
        request = asked.SerializeToString()
        end = time.monotonic() + asked.wait_ms / 1000
        with self._waiters.waiting(asked.topic) as changed:
            while True:
                changed.clear()
                answer = self._core.call("Read", request)
                left = end - time.monotonic()
                if answer.startswith(_DELIVERIES_TAG) or left <= 0:
                    return answer
                self._waiters.refuse_when_closed()
                await self._waiters.wait(changed, left)

    async def _produce_stream(self, requests: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:
        async def produce(request: memoryview) -> bytes:
            self._waiters.refuse_when_closed()
            return await self._call("Produce", request)

        await compress_if_asked(context)
        with self._active.track_inprogress():
            async for response in produce_stream(produce, requests, self._waiters.until_closed):
                yield response

    async def _consume(self, requests: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:
        await compress_if_asked(context)
        with self._active.track_inprogress():
            try:
                async for response in self._consume_streams.run(requests):
                    yield response
            except BrokerError as error:
                await abort_with(context, error)


def _text(value: memoryview) -> str:
    # Bytes that are not UTF-8 name no topic: the core refuses them with its own words.
    return bytes(value).decode("utf-8", "replace")


def _check_wait(wait_ms: int) -> None:
    if wait_ms > MAX_WAIT_MS:
        raise InvalidArgumentError(
            f"wait_ms is {wait_ms}: expected 0 to {MAX_WAIT_MS}; call again after that", field="wait_ms"
        )
