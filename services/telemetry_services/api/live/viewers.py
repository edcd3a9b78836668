"""Events to many viewers: each has a bounded queue, and one that reads too slowly loses events, and holds up nobody.

An event is encoded once for all who get it. What did not fit into a viewer's queue is counted, and told to it in the
next event that does.
"""

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, Generic, TypeVar

from telemetry_services.api.problems import ApiError

HEARTBEAT_SECONDS: Final = 15.0
MAX_VIEWERS: Final = 1000
MAX_QUEUED_BYTES: Final = 1 << 20
"""Of one viewer. One event may be larger, and is then queued alone."""
HEADERS: Final = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
"""Of a stream of Server-Sent Events."""
SSE_HEARTBEAT: Final = b": still here\n\n"
SSE_RETRY: Final = b"retry: 1000\n\n"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Event(Generic[T]):
    """One event, encoded.

    Attributes:
        nbytes: that it takes in a queue.
        samples: in it, for the count of what was dropped.
    """

    data: T
    nbytes: int
    samples: int


def encode_event(name: str, body: Any, event_id: str = "", samples: int = 0) -> Event[bytes]:
    """A Server-Sent Event with a body as JSON."""
    head = f"id: {event_id}\nevent: {name}\n" if event_id else f"event: {name}\n"
    data = f"{head}data: {json.dumps(body, separators=(',', ':'), allow_nan=False)}\n\n".encode()
    return Event(data, len(data), samples)


class Viewer(Generic[T]):
    """One client of a stream.

    Args:
        is_welcome: asked at each event and heartbeat; the stream ends once it is False.
        on_dropped: makes the event that tells of so many samples that were dropped.
        heartbeat: sent after `HEARTBEAT_SECONDS` of silence.
    """

    def __init__(self, is_welcome: Callable[[], bool], on_dropped: Callable[[int], Event[T]], heartbeat: T) -> None:
        self._is_welcome = is_welcome
        self._on_dropped = on_dropped
        self._heartbeat = heartbeat
        self._queue: deque[Event[T]] = deque()
        self._queued_bytes = 0
        self._dropped = 0
        self._changed = asyncio.Event()
        self._ended = False

    def offer(self, event: Event[T]) -> None:
        """Queues an event; where it has no room, the oldest ones make it."""
        self._queue.append(event)
        self._queued_bytes += event.nbytes
        while self._queued_bytes > MAX_QUEUED_BYTES and len(self._queue) > 1:
            oldest = self._queue.popleft()
            self._queued_bytes -= oldest.nbytes
            self._dropped += oldest.samples or 1
        self._changed.set()

    def drop(self, samples: int) -> None:
        """Counts samples that never became events."""
        self._dropped += samples
        self._changed.set()

    def clear(self) -> None:
        """Forgets what is queued: something newer says it all."""
        self._queue.clear()
        self._queued_bytes = 0

    @property
    def queued(self) -> int:
        """Events that it has not read."""
        return len(self._queue)

    def end(self) -> None:
        """Ends the stream behind what is queued."""
        self._ended = True
        self._changed.set()

    async def events(self, heartbeat_seconds: float = HEARTBEAT_SECONDS) -> AsyncIterator[T]:
        """What to send, until the end."""
        while self._is_welcome():
            self._changed.clear()
            if self._dropped:
                dropped, self._dropped = self._dropped, 0
                yield self._on_dropped(dropped).data
            elif self._queue:
                event = self._queue.popleft()
                self._queued_bytes -= event.nbytes
                yield event.data
            elif self._ended:
                return
            else:
                try:
                    async with asyncio.timeout(heartbeat_seconds):
                        await self._changed.wait()
                except TimeoutError:
                    yield self._heartbeat


class Room:
    """Place for so many viewers in a process."""

    def __init__(self, places: int = MAX_VIEWERS) -> None:
        self._places = places
        self._viewers: set[Viewer[Any]] = set()
        self._closed = False

    def __len__(self) -> int:
        return len(self._viewers)

    def enter(self, viewer: Viewer[Any]) -> None:
        """Takes a place; raises ApiError (503) where there is none."""
        if self._closed or len(self._viewers) >= self._places:
            why = "the service is stopping" if self._closed else f"{self._places:,} streams are open already"
            raise ApiError(HTTPStatus.SERVICE_UNAVAILABLE, "live.full", f"{why}: try again later", {"Retry-After": "5"})
        self._viewers.add(viewer)

    def leave(self, viewer: Viewer[Any]) -> None:
        """Gives the place back."""
        self._viewers.discard(viewer)

    def close(self) -> None:
        """Ends all streams."""
        self._closed = True
        for viewer in self._viewers:
            viewer.end()
