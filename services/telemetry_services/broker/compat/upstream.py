"""What the endpoints stand on: the core of this process, or brokers behind a channel.

They differ in how to wait for records. A core tells of every change, and is then asked again; what is elsewhere is
asked to hold its answer back until there are records.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Final, Protocol

from telemetry_broker import _core
from telemetry_broker.aio.core_calls import CoreCalls
from telemetry_broker.aio.remote import RemoteTransport
from telemetry_broker.aio.waiting import Waiters
from telemetry_broker.errors import ProduceUnknownError, UnavailableError
from telemetry_broker.remote import CALL_TIMEOUT
from telemetry_broker.transport import UnansweredError
from telemetry_broker.v1 import broker_pb2 as pb

_POLL_SECONDS: Final = 20.0
_PAUSE_SECONDS: Final = 0.5
"""Before the next question after one that was answered too early: the broker asked is stopping."""


class Feed(Protocol):
    """One stream's way to its records."""

    def wake(self) -> None:
        """Lets a `take` under way, or the next one, return before there are records."""

    async def take(self, request: pb.ReceiveRequest | None, until: float) -> list[_core.Delivery]:
        """Leases records as soon as there are some.

        Args:
            request: without a wait; None: no records are wanted now.
            until: the monotonic time at which it returns without any.

        Raises:
            BrokerError: the topic or partition is gone, or the broker is.
        """

    def close(self) -> list[_core.Delivery]:
        """Takes no more; returns what was leased and not taken."""


class Upstream(Protocol):
    """A broker, or several as one. Used on one event loop."""

    @property
    def has_other_doors(self) -> bool:
        """Whether an event that was sent here may be acked elsewhere, at another proxy for one."""

    @property
    def stopped(self) -> bool:
        """No stream goes on."""

    async def call(self, method: str, request: bytes, topic: str = "") -> bytes:
        """Runs one unary call of BrokerService and returns its encoded answer.

        Raises:
            BrokerError: a Produce that was sent and not answered raises ProduceUnknownError.
        """

    def feed(self, topic: str) -> AbstractContextManager[Feed]:
        """A stream's way to records of a topic."""

    def stop(self) -> None:
        """Ends every stream, now and later."""


def refuse_when_stopped(upstream: Upstream) -> None:
    """Raises UnavailableError once no stream goes on."""
    if upstream.stopped:
        raise UnavailableError(
            "this server is stopping; ask another one, or this one again later",
            code="broker.draining",
            retry_after=1.0,
        )


class CoreUpstream:
    """The broker in this process."""

    has_other_doors: Final = False

    def __init__(self, core: _core.Broker) -> None:
        self._calls = CoreCalls(core)
        self._waiters = Waiters(core)

    @property
    def stopped(self) -> bool:
        """See Upstream."""
        return self._waiters.closed

    async def call(self, method: str, request: bytes, topic: str = "") -> bytes:
        """See Upstream."""
        return await self._calls.call(method, request, topic)

    @contextmanager
    def feed(self, topic: str) -> "Iterator[_CoreFeed]":
        """See Upstream."""
        with self._waiters.waiting(topic) as changed:
            yield _CoreFeed(self._calls, self._waiters, topic, changed)

    def stop(self) -> None:
        """See Upstream."""
        self._waiters.close()

    def close(self) -> None:
        """Stops, and takes no more calls."""
        self.stop()
        self._calls.close()


class _CoreFeed:
    """Asks the core after each change of the topic, and when a lease or delay is due to end."""

    def __init__(self, calls: CoreCalls, waiters: Waiters, topic: str, changed: asyncio.Event) -> None:
        self._calls = calls
        self._waiters = waiters
        self._topic = topic
        self._changed = changed

    def wake(self) -> None:
        """See Feed."""
        self._changed.set()

    async def take(self, request: pb.ReceiveRequest | None, until: float) -> list[_core.Delivery]:
        """See Feed."""
        self._changed.clear()  # first clear, then look, then wait: what changes from here on ends the wait
        seconds = until - time.monotonic()
        if request is not None:
            answer = await self._calls.call("Receive", request.SerializeToString(), self._topic)
            if deliveries := _core.Delivery.parse(answer):
                return deliveries
            due_ms = pb.ReceiveResponse.FromString(answer).next_due_ms
            seconds = min(seconds, due_ms / 1000) if due_ms else seconds
        await self._waiters.wait(self._changed, seconds)
        return []

    def close(self) -> list[_core.Delivery]:
        """See Feed: what is leased is taken in the same step."""
        return []


class ChannelUpstream:
    """Brokers behind a channel of the core.

    Args:
        transport: closed by whoever made it.
    """

    has_other_doors: Final = True

    def __init__(self, transport: RemoteTransport) -> None:
        self.stopped = False
        self._transport = transport
        self._feeds: set[_ChannelFeed] = set()

    async def call(self, method: str, request: bytes, topic: str = "") -> bytes:  # noqa: ARG002
        """See Upstream."""
        try:
            return await self._transport.ask(method, request, CALL_TIMEOUT, maybe_done=method == "Produce")
        except UnansweredError as error:
            raise ProduceUnknownError(
                f"{error.message}; the record may be stored or not, so sending it again may store it twice"
            ) from error.cause

    @contextmanager
    def feed(self, topic: str) -> "Iterator[_ChannelFeed]":  # noqa: ARG002 (the request names it)
        """See Upstream."""
        feed = _ChannelFeed(self._transport)
        self._feeds.add(feed)
        try:
            yield feed
        finally:
            self._feeds.discard(feed)

    def stop(self) -> None:
        """See Upstream."""
        self.stopped = True
        for feed in self._feeds:
            feed.wake()


class _ChannelFeed:
    """Has one question open, also while the stream does something else."""

    def __init__(self, transport: RemoteTransport) -> None:
        self._transport = transport
        self._woken = asyncio.Event()
        self._asking: asyncio.Task[list[_core.Delivery]] | None = None

    def wake(self) -> None:
        """See Feed."""
        self._woken.set()

    async def take(self, request: pb.ReceiveRequest | None, until: float) -> list[_core.Delivery]:
        """See Feed."""
        self._woken.clear()
        if self._asking is None and request is not None:
            self._asking = asyncio.create_task(self._ask(request.SerializeToString()))
            self._asking.add_done_callback(_waker(self._woken))
        if self._asking is None or not self._asking.done():
            try:
                async with asyncio.timeout(until - time.monotonic()):
                    await self._woken.wait()
            except TimeoutError:
                return []
        if self._asking is None or not self._asking.done():
            return []
        asked, self._asking = self._asking, None
        return asked.result()

    async def _ask(self, encoded: bytes) -> list[_core.Delivery]:
        request = pb.ReceiveRequest.FromString(encoded)
        request.wait_ms = round(_POLL_SECONDS * 1000)
        asked = time.monotonic()
        answer = await self._transport.ask("Receive", request.SerializeToString(), _POLL_SECONDS + CALL_TIMEOUT)
        deliveries = _core.Delivery.parse(answer)
        if not deliveries and time.monotonic() - asked < _PAUSE_SECONDS:
            await asyncio.sleep(_PAUSE_SECONDS)
        return deliveries

    def close(self) -> list[_core.Delivery]:
        """See Feed. What a question that is cancelled would have leased is given back by who leased it."""
        asked, self._asking = self._asking, None
        if asked is None or asked.cancel() or asked.exception() is not None:
            return []
        return asked.result()


def _waker(woken: asyncio.Event) -> "Callable[[asyncio.Task[list[_core.Delivery]]], None]":
    """Called when a question is answered; one that nobody takes up any more ends without a word."""

    def wake(asked: "asyncio.Task[list[_core.Delivery]]") -> None:
        if not asked.cancelled():
            asked.exception()
        woken.set()

    return wake
