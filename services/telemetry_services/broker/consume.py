"""The Consume stream: the broker sends while credit lasts; when the stream dies, its leases are given back at once."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

from google.protobuf.message import DecodeError

from telemetry_broker import _core
from telemetry_broker.aio.core_calls import CoreCalls
from telemetry_broker.aio.waiting import Waiters
from telemetry_broker.errors import BrokerError, InvalidArgumentError
from telemetry_broker.v1 import broker_pb2 as pb

HEARTBEAT_SECONDS: Final = 10.0
MAX_CREDIT: Final = 1_000_000
_DEFAULT_RECORDS: Final = 500
_ANSWERS_WAITING: Final = 1000  # answers to acks that a client does not read; then its requests are not read either


async def consume(
    core: _core.Broker, calls: CoreCalls, waiters: Waiters, requests: AsyncIterator[bytes]
) -> AsyncIterator[bytes]:
    """Runs one stream; gives encoded ConsumeResponses.

    Raises:
        InvalidArgumentError: the first message is no start, or the start is wrong.
    """
    first = await anext(requests, None)
    opening = _decoded(first) if first is not None else pb.ConsumeRequest()
    if opening.WhichOneof("request") != "start":
        raise InvalidArgumentError("the first message of a Consume stream must be `start`; send it first")
    stream = _Stream(core, calls, waiters, opening.start)
    reader = asyncio.create_task(stream.read(requests))
    try:
        async for response in stream.responses():
            yield response
        if reader.done():
            reader.result()
    finally:
        reader.cancel()
        with contextlib.suppress(asyncio.CancelledError, BrokerError):
            await reader
        if not opening.start.keep_leases:
            core.release(stream.topic, stream.receive.group, stream.receive.consumer)


def _decoded(request: bytes) -> pb.ConsumeRequest:
    try:
        return pb.ConsumeRequest.FromString(request)
    except DecodeError:
        raise InvalidArgumentError("a message of a Consume stream is no ConsumeRequest") from None


class _Stream:
    def __init__(self, core: _core.Broker, calls: CoreCalls, waiters: Waiters, start: pb.ConsumeStart) -> None:
        if not 1 <= start.credit_records <= MAX_CREDIT:
            raise InvalidArgumentError(f"credit_records is {start.credit_records}: expected 1 to {MAX_CREDIT:,}")
        self._core = core
        self._calls = calls
        self._waiters = waiters
        self._credit = start.credit_records
        self._answers: asyncio.Queue[pb.ConsumeResponse] = asyncio.Queue(_ANSWERS_WAITING)
        self._changed: asyncio.Event | None = None
        self._ended = False
        self.topic = start.receive.topic
        self.receive = pb.ReceiveRequest()
        self.receive.CopyFrom(start.receive)
        self.receive.wait_ms = 0
        self.receive.max_deliveries = 1
        self._max_records = start.receive.max_records or _DEFAULT_RECORDS

    async def read(self, requests: AsyncIterator[bytes]) -> None:
        """Takes the client's messages until it ends its side."""
        try:
            async for request in requests:
                await self._take(_decoded(request))
                self._wake()
        finally:
            self._ended = True
            self._wake()

    async def responses(self) -> AsyncIterator[bytes]:
        """What to send, until the client ends its side or the broker stops."""
        with self._waiters.waiting(self.topic) as changed:
            self._changed = changed
            while not self._ended:
                changed.clear()
                while not self._answers.empty():
                    yield self._answers.get_nowait().SerializeToString()
                if self._waiters.closed:
                    yield pb.ConsumeResponse(goodbye=pb.Goodbye()).SerializeToString()
                    return
                wait = HEARTBEAT_SECONDS
                if self._credit > 0:
                    self.receive.max_records = min(self._credit, self._max_records)
                    response = self._core.call("Receive", self.receive.SerializeToString())
                    deliveries = _core.Delivery.parse(response)
                    if deliveries:
                        self._credit -= sum(map(len, deliveries))
                        # A ReceiveResponse with one delivery is, byte for byte, a ConsumeResponse with it.
                        yield response
                        continue
                    due = pb.ReceiveResponse.FromString(response).next_due_ms / 1000
                    wait = min(wait, due) if due else wait
                await self._waiters.wait(changed, wait)
                if not changed.is_set() and wait == HEARTBEAT_SECONDS:
                    yield pb.ConsumeResponse(heartbeat=pb.Heartbeat()).SerializeToString()
            while not self._answers.empty():
                yield self._answers.get_nowait().SerializeToString()

    async def _take(self, request: pb.ConsumeRequest) -> None:
        answer = pb.ConsumeResponse()
        try:
            match request.WhichOneof("request"):
                case "credit":
                    self._credit = min(self._credit + request.credit.records, MAX_CREDIT)
                    return
                case "ack":
                    self._address(request.ack)
                    answer.acked.MergeFromString(await self._call("Ack", request.ack))
                    answer.acked.SetInParent()
                case "nack":
                    self._address(request.nack)
                    answer.nacked.MergeFromString(await self._call("Nack", request.nack))
                    answer.nacked.SetInParent()
                case "extend":
                    self._address(request.extend)
                    answer.extended.MergeFromString(self._core.call("Extend", request.extend.SerializeToString()))
                    answer.extended.SetInParent()
                case _:
                    raise InvalidArgumentError("a message of a Consume stream was empty, or a second `start`")
        except BrokerError as error:
            answer = pb.ConsumeResponse(error=pb.Error(code=error.code, message=error.message))
        await self._answers.put(answer)

    async def _call(self, method: str, request: pb.AckRequest | pb.NackRequest) -> bytes:
        return await self._calls.call(method, request.SerializeToString(), request.topic)

    def _address(self, request: pb.AckRequest | pb.NackRequest | pb.ExtendRequest) -> None:
        request.topic = request.topic or self.topic
        request.group = request.group or self.receive.group

    def _wake(self) -> None:
        if self._changed is not None:
            self._changed.set()
