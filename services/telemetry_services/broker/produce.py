"""The ProduceStream: several requests under way, answers in their order."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

from telemetry_broker.errors import BrokerError
from telemetry_broker.stream_messages import wrap
from telemetry_broker.v1 import broker_pb2 as pb
from telemetry_services.broker.wire import first_field

IN_FLIGHT: Final = 16
"""Requests of one stream that are not answered yet; behind them, the client's next ones wait in its connection."""

_PRODUCE: Final = 1
_PRODUCED: Final = 1
_ERROR: Final = 2


async def produce_stream(
    produce: Callable[[memoryview], Awaitable[bytes]],
    requests: AsyncIterator[bytes],
    stopping: Callable[[], Awaitable[None]],
) -> AsyncIterator[bytes]:
    """Runs one stream; gives encoded ProduceStreamResponses.

    Once the broker is stopping it answers what it has read and ends: a client that is connected and has nothing to say
    must not hold up the end.

    Args:
        stopping: waits for that.
        produce: stores one encoded ProduceRequest. It must write before it first waits: requests are stored in their
            order, and those of an ``fsync`` topic wait for their sync together.
    """
    answers: asyncio.Queue[asyncio.Task[bytes] | None] = asyncio.Queue(IN_FLIGHT)
    reader = asyncio.create_task(_read(produce, requests, answers))
    stopper = asyncio.create_task(_stop(stopping, reader, answers))
    try:
        while (answer := await answers.get()) is not None:
            yield await answer
        if reader.done() and not reader.cancelled():
            reader.result()
    finally:
        for task in (stopper, reader):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


async def _stop(
    stopping: Callable[[], Awaitable[None]],
    reader: asyncio.Task[None],
    answers: asyncio.Queue[asyncio.Task[bytes] | None],
) -> None:
    await stopping()
    reader.cancel()
    await answers.put(None)


async def _read(
    produce: Callable[[memoryview], Awaitable[bytes]],
    requests: AsyncIterator[bytes],
    answers: asyncio.Queue[asyncio.Task[bytes] | None],
) -> None:
    async for request in requests:
        await answers.put(asyncio.create_task(_answer(produce, request)))  # tasks begin in the order of their making
    await answers.put(None)


async def _answer(produce: Callable[[memoryview], Awaitable[bytes]], request: bytes) -> bytes:
    try:
        return wrap(_PRODUCED, await produce(first_field(request, _PRODUCE)))
    except BrokerError as error:
        return wrap(_ERROR, stream_error(error).SerializeToString())


def stream_error(error: BrokerError) -> pb.Error:
    """An error inside a stream that goes on."""
    return pb.Error(
        code=error.code,
        message=error.message,
        retry_after_ms=round((error.retry_after or 0) * 1000),
        field=error.field or "",
    )
