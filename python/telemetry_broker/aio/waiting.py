"""Long polls without polling: one subscription of the core wakes, on the event loop, whoever waits for a topic."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from telemetry_broker import _core
from telemetry_broker.errors import UnavailableError


class Waiters:
    """Calls that wait for records. Used on one event loop only.

    Look for records inside `waiting`, and wait only when there are none: a change after it was entered is not missed.
    """

    def __init__(self, core: _core.Broker) -> None:
        self._core = core
        self._subscription: _core.Subscription | None = None  # none while nobody waits: each change costs a turn
        self._by_topic: dict[str, set[asyncio.Event]] = {}
        self._loop = asyncio.get_running_loop()
        self.closed = False

    @contextmanager
    def waiting(self, topic: str) -> Iterator[asyncio.Event]:
        """An event that is set when the topic changes; clear it before each look."""
        event = asyncio.Event()
        if self._subscription is None and not self.closed:
            self._subscription = self._core.subscribe()
            self._loop.add_reader(self._subscription.fileno(), self._wake_changed)
        self._by_topic.setdefault(topic, set()).add(event)
        try:
            yield event
        finally:
            events = self._by_topic[topic]
            events.discard(event)
            if not events:
                del self._by_topic[topic]

    async def wait(self, event: asyncio.Event, seconds: float | None) -> None:
        """Waits for a change, the end of the time (None: never), or the end of all waiting."""
        if self.closed:
            return
        try:
            async with asyncio.timeout(seconds):
                await event.wait()
        except TimeoutError:
            return

    def refuse_when_closed(self) -> None:
        """A broker that stops ends waits with an error: an empty answer would be asked for again at once."""
        if self.closed:
            raise UnavailableError(
                "the broker is stopping; ask another one, or this one again later",
                code="broker.draining",
                retry_after=1.0,
            )

    def close(self) -> None:
        """Ends every wait, now and later."""
        if self.closed:
            return
        self.closed = True
        self._unsubscribe()
        for events in self._by_topic.values():
            for event in events:
                event.set()

    def _unsubscribe(self) -> None:
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            self._loop.remove_reader(subscription.fileno())
            subscription.close()

    def _wake_changed(self) -> None:
        if self._subscription is None:
            return
        if not self._by_topic:
            self._unsubscribe()  # not sooner: who waits often need not subscribe as often
            return
        for topic in self._subscription.drain():
            for event in self._by_topic.get(topic, ()):
                event.set()
