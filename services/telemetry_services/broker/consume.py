"""The Consume stream: the broker sends while credit lasts; when the stream dies, its leases are given back at once."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

from google.protobuf.message import DecodeError

from telemetry_broker import _core
from telemetry_broker.aio.core_calls import CoreCalls
from telemetry_broker.aio.waiting import Waiters
from telemetry_broker.errors import BrokerError, ClosedError, InvalidArgumentError
from telemetry_broker.v1 import broker_pb2 as pb
from telemetry_services.broker.produce import stream_error

HEARTBEAT_SECONDS: Final = 10.0
MAX_CREDIT: Final = 1_000_000
MAX_CREDIT_DELIVERIES: Final = 1000
_DEFAULT_RECORDS: Final = 500
_ANSWERS_WAITING: Final = 1000  # answers to acks that a client does not read; then its requests are not read either
_DELIVERY_TAG: Final = b"\x0a"  # field 1 of ReceiveResponse and of ConsumeResponse


class ConsumeStreams:
    """The Consume streams of a broker: one a consumer, so that a late death takes nothing from who came after."""

    def __init__(self, core: _core.Broker, calls: CoreCalls, waiters: Waiters) -> None:
        self._core = core
        self._calls = calls
        self._waiters = waiters
        self._by_consumer: dict[tuple[str, str, str], _Stream] = {}

    async def run(self, requests: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Runs one stream; gives encoded ConsumeResponses.

        Raises:
            InvalidArgumentError: the first message is no start, or the start is wrong.
            ClosedError: another stream of the same consumer took its place.
        """
        first = await anext(requests, None)
        opening = _decoded(first) if first is not None else pb.ConsumeRequest()
        if opening.WhichOneof("request") != "start":
            raise InvalidArgumentError("the first message of a Consume stream must be `start`; send it first")
        stream = _Stream(self._core, self._calls, self._waiters, opening.start)
        older = self._by_consumer.get(stream.consumer)
        if older is not None:
            older.replace()
            self._release(older)
        self._by_consumer[stream.consumer] = stream
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
            if self._by_consumer.get(stream.consumer) is stream:
                del self._by_consumer[stream.consumer]
                self._release(stream)

    def _release(self, stream: "_Stream") -> None:
        if not stream.keep_leases:
            self._core.release(*stream.consumer)


def _decoded(request: bytes) -> pb.ConsumeRequest:
    try:
        return pb.ConsumeRequest.FromString(request)
    except DecodeError:
        raise InvalidArgumentError("a message of a Consume stream is no ConsumeRequest") from None


class _Stream:
    def __init__(self, core: _core.Broker, calls: CoreCalls, waiters: Waiters, start: pb.ConsumeStart) -> None:
        self._counts_deliveries = start.credit_deliveries > 0
        if start.credit_deliveries > MAX_CREDIT_DELIVERIES:
            raise InvalidArgumentError(
                f"credit_deliveries is {start.credit_deliveries}: expected 1 to {MAX_CREDIT_DELIVERIES:,}, or 0 for "
                "a credit in records"
            )
        if not self._counts_deliveries and not 1 <= start.credit_records <= MAX_CREDIT:
            raise InvalidArgumentError(f"credit_records is {start.credit_records}: expected 1 to {MAX_CREDIT:,}")
        self._core = core
        self._calls = calls
        self._waiters = waiters
        self._credit = start.credit_deliveries or start.credit_records
        self._answers: asyncio.Queue[pb.ConsumeResponse] = asyncio.Queue(_ANSWERS_WAITING)
        self._changed: asyncio.Event | None = None
        self._ended = False
        self._replaced = False
        self.consumer = (start.receive.topic, start.receive.group, start.receive.consumer)
        self.keep_leases = start.keep_leases
        self._receive = pb.ReceiveRequest()
        self._receive.CopyFrom(start.receive)
        self._receive.wait_ms = 0
        self._receive.max_deliveries = 1
        self._max_records = self._receive.max_records = start.receive.max_records or _DEFAULT_RECORDS
        self._full_request = self._receive.SerializeToString()

    def replace(self) -> None:
        """Ends this stream in favour of another one; from here on it receives nothing."""
        self._replaced = self._ended = True
        self._wake()

    async def read(self, requests: AsyncIterator[bytes]) -> None:
        """Takes the client's messages until it ends its side."""
        try:
            async for request in requests:
                await self._take(_decoded(request))
                self._wake()
                if self._ended:
                    return
        finally:
            self._ended = True
            self._wake()

    async def responses(self) -> AsyncIterator[bytes]:
        """What to send, until the client ends its side or the broker stops."""
        with self._waiters.waiting(self.consumer[0]) as changed:
            self._changed = changed
            while not self._ended:
                changed.clear()
                while not self._answers.empty():
                    yield self._answers.get_nowait().SerializeToString()
                if self._waiters.closed:
                    yield pb.ConsumeResponse(goodbye=pb.Goodbye()).SerializeToString()
                    return
                wait = HEARTBEAT_SECONDS
                if self._credit > 0 and not self._ended:
                    response = self._next_delivery()
                    if response.startswith(_DELIVERY_TAG):
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
        if self._replaced:
            raise ClosedError(
                f"another Consume stream of consumer {self.consumer[2]!r} took the place of this one; "
                "give each consumer a name of its own"
            )

    def _next_delivery(self) -> bytes:
        """A ReceiveResponse with one delivery, paid for with credit, or with none."""
        if self._counts_deliveries:
            response = self._core.call("Receive", self._full_request)
            self._credit -= response.startswith(_DELIVERY_TAG)
            return response
        self._receive.max_records = min(self._credit, self._max_records)
        response = self._core.call("Receive", self._receive.SerializeToString())
        self._credit -= sum(map(len, _core.Delivery.parse(response)))
        return response

    async def _take(self, request: pb.ConsumeRequest) -> None:
        answer = pb.ConsumeResponse()
        try:
            match request.WhichOneof("request"):
                case "credit":
                    await self._grant(request.credit)
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
                case "end":
                    self.keep_leases = self.keep_leases or request.end.keep_leases
                    self._ended = True
                    return
                case _:
                    raise InvalidArgumentError("a message of a Consume stream was empty, or a second `start`")
        except BrokerError as error:
            answer = pb.ConsumeResponse(error=stream_error(error))
        await self._answers.put(answer)

    async def _call(self, method: str, request: pb.AckRequest | pb.NackRequest) -> bytes:
        return await self._calls.call(method, request.SerializeToString(), request.topic)

    async def _grant(self, credit: pb.ConsumeCredit) -> None:
        if credit.replace:
            self._credit = 0  # until the answer has its place in front of what the new credit brings
            await self._answers.put(pb.ConsumeResponse(credited=pb.Credited()))
        if self._counts_deliveries:
            self._credit = min(self._credit + credit.deliveries, MAX_CREDIT_DELIVERIES)
        else:
            self._credit = min(self._credit + credit.records, MAX_CREDIT)

    def _address(self, request: pb.AckRequest | pb.NackRequest | pb.ExtendRequest) -> None:
        topic, group, _ = self.consumer
        request.topic = request.topic or topic
        request.group = request.group or group

    def _wake(self) -> None:
        if self._changed is not None:
            self._changed.set()
