"""A broker behind gRPC on an event loop: ``grpc://`` and ``grpc+unix://``."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from telemetry_broker import _core
from telemetry_broker.aio.home import Home
from telemetry_broker.aio.produce_stream import ProduceStream
from telemetry_broker.errors import BrokerError, ClosedError, UnavailableError
from telemetry_broker.remote import CALL_TIMEOUT, broker_error, closed_error
from telemetry_broker.transport import MAX_WAIT_MS, Done, Streamed
from telemetry_broker.v1 import broker_pb2 as pb


class _News:
    """Passes on the news of a connection's exchanges; the event loop watches one descriptor for all of them."""

    def __init__(self) -> None:
        self.notifier = _core.Notifier()
        self._told: dict[int, Callable[[], None]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    def watch(self, exchange: _core.Exchange, told: Callable[[], None]) -> None:
        """Has ``told`` called after each turn of the loop in which the exchange had news, until ``forget``."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._loop.add_reader(self.notifier.fileno(), self.pass_on)
        self._told[exchange.number] = told

    def forget(self, exchange: _core.Exchange) -> None:
        """Nobody wants to be told of it any more."""
        self._told.pop(exchange.number, None)

    def pass_on(self) -> None:
        """Tells of what is new."""
        for number in self.notifier.drain():
            if (told := self._told.get(number)) is not None:
                told()

    def close(self) -> None:
        """Nothing new comes any more."""
        self.pass_on()
        if self._loop is not None:
            self._loop.remove_reader(self.notifier.fileno())


class RemoteTransport:
    """Drives a channel of the core; it connects at the first call and again after every break."""

    prefetches: Final = True

    def __init__(self, url: str, channel: _core.Channel) -> None:
        self.url = url
        self._home = Home(f"the connection to {url}")
        self._channel = channel
        self._news = _News()
        self._closed = False

    async def call(self, method: str, request: bytes, topic: str = "") -> bytes:  # noqa: ARG002
        """See Transport; gives up after ``CALL_TIMEOUT`` seconds."""
        return await self.ask(method, request, CALL_TIMEOUT)

    async def ask(
        self,
        method: str,
        request: bytes,
        timeout: float,  # noqa: ASYNC109
        *,
        maybe_done: bool = False,
    ) -> bytes:
        """Runs a call; with ``maybe_done`` one that may have been carried out all the same raises UnansweredError."""
        self._refuse()
        call = self._channel.ask(method, request, timeout, self._news.notifier)
        ended = asyncio.Event()
        self._news.watch(call, ended.set)
        try:
            await ended.wait()
            return call.answer()
        except _core.CallError as error:
            raise self.broker_error(method, error, maybe_done=maybe_done) from error
        finally:
            self._news.forget(call)
            call.cancel()

    def exchange(self, method: str, told: Callable[[], None]) -> _core.Exchange:
        """Begins a stream; ``told`` is called when it has news, until ``forget``."""
        self._refuse()
        exchange = self._channel.exchange(method, notifier=self._news.notifier)
        self._news.watch(exchange, told)
        return exchange

    def forget(self, exchange: _core.Exchange) -> None:
        """Ends a stream, if it has not ended."""
        exchange.cancel()
        self._news.forget(exchange)

    def broker_error(self, method: str, error: _core.CallError, *, maybe_done: bool = False) -> BrokerError:
        """See ``telemetry_broker.remote``."""
        return broker_error(self.url, method, error, self._refused(), maybe_done)

    def _refused(self) -> ClosedError | None:
        return closed_error(self.url) if self._closed else None

    def _refuse(self) -> None:
        self._home.check()
        if (refused := self._refused()) is not None:
            raise refused

    def producing(self) -> ProduceStream:
        """See Transport."""
        return ProduceStream(self)

    def consume(self, came: Callable[[Sequence[Streamed]], None]) -> RemoteStream:
        """See Transport."""
        return RemoteStream(self, came)

    def receiver(self, topic: str) -> RemoteReceiver:  # noqa: ARG002 - the request names it
        """See Transport."""
        return RemoteReceiver(self)

    async def close(self, *, flush: bool = True) -> None:  # noqa: ARG002 - nothing is buffered here
        """See Transport."""
        if not self._closed:
            self._closed = True
            self._channel.close()
            if not self._home.forked:  # else the descriptors are the parent's, too
                self._news.close()


class RemoteStream:
    """See transport.Stream."""

    def __init__(self, transport: RemoteTransport, came: Callable[[Sequence[Streamed]], None]) -> None:
        self._transport = transport
        self._came = came
        self._ended = asyncio.Event()
        self._error: BrokerError | None = None
        self._exchange = transport.exchange("Consume", self._take)

    def send(self, message: bytes, waiting: deque[Done] | None = None, who: Done | None = None) -> None:
        """See Stream."""
        self._exchange.send(message, waiting, who)

    async def end(self) -> None:
        """See Stream."""
        await self._ended.wait()
        if self._error is not None:
            raise self._error

    def cancel(self) -> None:
        """See Stream."""
        self._transport.forget(self._exchange)
        self._ended.set()

    def _take(self) -> None:
        if self._ended.is_set():
            return
        try:
            messages = self._exchange.drain_consume()
            if messages:
                self._came(messages)
            elif messages is None:
                self._ended.set()
        except _core.CallError as error:
            self._fail(self._transport.broker_error("Consume", error))
        except BrokerError as error:  # what the broker said of a failure
            self._fail(error)

    def _fail(self, error: BrokerError) -> None:
        self._error = error
        self._ended.set()


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
