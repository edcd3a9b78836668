"""The ProduceStream: requests for several partitions side by side, answers in the order of the requests."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Final

from telemetry_broker.errors import BrokerError
from telemetry_broker.v1 import broker_pb2 as pb
from telemetry_services.broker.wire import first_field, first_number, wrap

IN_FLIGHT: Final = 16
"""Requests of one stream that are not answered yet; behind them, the client's next ones wait in its connection."""

_PRODUCE: Final = 1
_PRODUCED: Final = 1
_ERROR: Final = 2
_TOPIC: Final = 1
_PARTITION: Final = 2

Place = tuple[bytes, int | None]
"""Topic and partition; None: any."""


async def produce_stream(
    produce: Callable[[memoryview], Awaitable[bytes]], requests: AsyncIterator[bytes]
) -> AsyncIterator[bytes]:
    """Runs one stream; gives encoded ProduceStreamResponses. ``produce`` stores one encoded ProduceRequest.

    Two requests for one partition are stored one after the other: the second one overtaking would make the first one's
    sequence a duplicate.
    """
    answers: asyncio.Queue[asyncio.Task[bytes] | None] = asyncio.Queue(IN_FLIGHT)
    reader = asyncio.create_task(_read(produce, requests, answers))
    try:
        while (answer := await answers.get()) is not None:
            yield await answer
        await reader
    finally:
        reader.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await reader


async def _read(
    produce: Callable[[memoryview], Awaitable[bytes]],
    requests: AsyncIterator[bytes],
    answers: asyncio.Queue[asyncio.Task[bytes] | None],
) -> None:
    last: dict[Place, asyncio.Task[bytes]] = {}  # what is not answered yet

    def forget(answer: asyncio.Task[bytes], place: Place) -> None:
        if last.get(place) is answer:
            del last[place]

    async for request in requests:
        place = _place(request)
        before = [answer for other, answer in last.items() if _share(place, other)]
        answer = last[place] = asyncio.create_task(_answer(produce, request, before))
        answer.add_done_callback(partial(forget, place=place))
        await answers.put(answer)
    await answers.put(None)


async def _answer(
    produce: Callable[[memoryview], Awaitable[bytes]], request: bytes, before: list[asyncio.Task[bytes]]
) -> bytes:
    if before:
        await asyncio.wait(before)
    try:
        return wrap(_PRODUCED, await produce(first_field(request, _PRODUCE)))
    except BrokerError as error:
        return wrap(_ERROR, stream_error(error).SerializeToString())


def _place(request: bytes) -> Place:
    try:
        inner = first_field(request, _PRODUCE)
        return bytes(first_field(inner, _TOPIC)), first_number(inner, _PARTITION)
    except BrokerError:
        return b"", None  # no protobuf: whoever stores it says so


def _share(one: Place, other: Place) -> bool:
    return one[0] == other[0] and (one[1] == other[1] or None in (one[1], other[1]))


def stream_error(error: BrokerError) -> pb.Error:
    """An error inside a stream that goes on."""
    return pb.Error(code=error.code, message=error.message, retry_after_ms=round((error.retry_after or 0) * 1000))
