"""The Consume stream of an asynchronous consumer, which brings deliveries before they are asked for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final

from telemetry_broker.aio.transport import Stream, Transport
from telemetry_broker.errors import BrokerError, UnavailableError
from telemetry_broker.inflow import Inflow, encode_end
from telemetry_broker.receiving import Outage
from telemetry_broker.stream_messages import ended_error, in_consume
from telemetry_broker.transport import Streamed

_SETTLE_TIMEOUT: Final = 5.0
_ANSWER_TIMEOUT: Final = 10.0
"""Seconds until what was asked over a stream is asked by a call."""


class Ahead:
    """Runs the stream as ``telemetry_broker.ahead`` does, in a task; what it brings is in the ``Inflow``.

    Attributes:
        failure: why the stream was given up; None: it was not.
    """

    def __init__(
        self, transport: Transport, inflow: Inflow, reconnect_timeout: float, changed: Callable[[], None]
    ) -> None:
        """``changed`` is called when something came, and when the stream has ended."""
        self.failure: BrokerError | None = None
        self._transport = transport
        self._inflow = inflow
        self._outage = Outage(None, reconnect_timeout)
        self._changed = changed
        self._stream: Stream | None = None
        self._task: asyncio.Task[None] | None = None
        self._asks: set[asyncio.Future[bytes | BrokerError | None]] = set()  # over the stream, without an answer

    async def settle(self, next_change: Callable[[float | None], Awaitable[bool]]) -> None:
        """Waits until nothing is on its way that nobody asks for any more; ``next_change`` waits for ``changed``."""
        end = time.monotonic() + _SETTLE_TIMEOUT
        while not self._inflow.settled and await next_change(end):
            pass

    async def call(self, method: str, request: bytes, topic: str = "") -> bytes:
        """Makes a call, over the stream where there is one and it has that call: that takes half as long.

        What a stream left without an answer is asked again by itself: each of these calls may be repeated.
        """
        message = in_consume(method, request)
        answer: asyncio.Future[bytes | BrokerError | None] = asyncio.get_running_loop().create_future()
        if message is None or not self._inflow.ask(message, partial(_settle, answer)):
            return await self._transport.call(method, request, topic)
        self._asks.add(answer)
        try:
            async with asyncio.timeout(_ANSWER_TIMEOUT):
                answered = await answer
        except TimeoutError:
            answered = None
        finally:
            self._asks.discard(answer)
        if answered is None:
            return await self._transport.call(method, request, topic)
        if isinstance(answered, BrokerError):
            raise answered
        return answered

    def begin(self) -> None:
        """Begins the stream, if there is none."""
        if self._task is None:
            self.failure = None
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def end(self, *, keep_leases: bool) -> None:
        """Ends the stream, which gives back what it brought unless told to keep it."""
        task, stream = self._task, self._stream
        if task is None:
            return
        if stream is not None:
            stream.send(encode_end(keep_leases=keep_leases))
            await asyncio.wait([task], timeout=_SETTLE_TIMEOUT)
        task.cancel()
        await asyncio.wait([task])

    async def _run(self) -> None:
        self._outage.over()
        try:
            while self._inflow.needed:
                stream = self._stream = self._transport.consume(self._came)
                self._inflow.begin(stream.send)
                error = ended_error(self._transport.url)
                try:
                    await stream.end()
                except BrokerError as caught:
                    error = caught
                finally:
                    stream.cancel()
                    self._stream = None
                    self._inflow.ended()
                    for answer in self._asks:
                        _settle(answer, None)
                if not isinstance(error, UnavailableError):
                    raise error
                if self._inflow.needed:
                    await asyncio.sleep(self._outage.pause(error))
        except BrokerError as error:
            self.failure = error
        finally:
            self._task = None
            self._changed()

    def _came(self, messages: Sequence[Streamed]) -> None:
        """Takes messages as the event loop hears of them: a task for that would cost as much as all else of it."""
        self._outage.over()
        for message in messages:
            self._inflow.came(message)
        self._changed()


def _settle(answer: asyncio.Future[bytes | BrokerError | None], answered: bytes | BrokerError | None) -> None:
    if not answer.done():  # else nobody waits any more
        answer.set_result(answered)
