"""Samples as they come in, to those who asked for some of them.

Viewers of the same GPUs and metrics share a channel, which makes its events once. The id of an event says where the
reading of each partition stood behind it, so a viewer that comes back with `Last-Event-ID` is given what it missed from
the broker itself: by this process or by any other one, as long as the broker still has it.
"""

import math
import re
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, Generic, Protocol, TypeVar

from telemetry_broker import Offset
from telemetry_broker.errors import InvalidArgumentError, NotFoundError
from telemetry_services.api.live.feed import Batch, Feed, Positions
from telemetry_services.api.live.fleet import Fleet
from telemetry_services.api.live.samples import Rows
from telemetry_services.api.live.selection import Selection
from telemetry_services.api.live.viewers import SSE_HEARTBEAT, Event, Room, Viewer, encode_event
from telemetry_services.api.problems import ApiError
from telemetry_services.api.times import format_time
from telemetry_services.store import Gpu

MAX_REPLAYED_RECORDS: Final = 200_000
"""Of one partition. What lies further back is passed over, and counted as dropped."""
MAX_EVENT_ROWS: Final = 2000
_POSITION: Final = re.compile(r"(\d{1,10})\.([0-9a-f]{32})\.(\d{1,20})")
_MAX_ID_CHARS: Final = 64 << 10

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Wish:
    """What a viewer wants to see; `metrics` empty: all."""

    selection: Selection
    metrics: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Points:
    """Rows that a viewer gets.

    Attributes:
        values: by metric, a value a row; NaN: none.
    """

    gpus: Sequence[Gpu]
    times_ns: Sequence[int]
    values: Mapping[str, Sequence[float]]

    @property
    def samples(self) -> int:
        """Values that there are."""
        return sum(not math.isnan(value) for column in self.values.values() for value in column)


def format_positions(positions: Positions) -> str:
    """The id of an event."""
    return ",".join(f"{number}.{at.log_id.hex()}.{at.offset}" for number, at in sorted(positions.items()))


def parse_positions(text: str) -> dict[int, Offset]:
    """The positions of an id; raises ApiError (400)."""
    found = [_POSITION.fullmatch(part) for part in text.split(",")] if len(text) <= _MAX_ID_CHARS else [None]
    positions = {}
    for match in found:
        if match is None:
            raise ApiError(
                HTTPStatus.BAD_REQUEST,
                "invalid.cursor",
                "Last-Event-ID is not the id of an event of this stream: send one as it came, or none to begin now",
            )
        number, log_id, offset = match.groups()
        positions[int(number)] = Offset(bytes.fromhex(log_id), int(offset))
    return positions


class Codec(Protocol[T]):
    """How events look on a wire."""

    heartbeat: T

    def hello(self, gpus: int, trouble: str, event_id: str) -> Event[T]:
        """The first event: how many GPUs there are, why nothing comes in, and where the stream begins."""

    def samples(self, points: Points, event_id: str) -> Event[T]:
        """Samples; without an id, the event behind it has it."""

    def dropped(self, samples: int) -> Event[T]:
        """So many samples were left out."""


class Sse:
    """Server-Sent Events."""

    heartbeat = SSE_HEARTBEAT

    def hello(self, gpus: int, trouble: str, event_id: str) -> Event[bytes]:
        return encode_event("hello", {"gpus": gpus, "trouble": trouble}, event_id)

    def samples(self, points: Points, event_id: str) -> Event[bytes]:
        shown: dict[int, str] = {}
        body = {
            "gpus": [_names_of(gpu) for gpu in points.gpus],
            "times": [shown.get(at) or shown.setdefault(at, format_time(at)) for at in points.times_ns],
            "values": {
                name: [None if math.isnan(value) else value for value in column]
                for name, column in points.values.items()
            },
        }
        return encode_event("samples", body, event_id, points.samples)

    def dropped(self, samples: int) -> Event[bytes]:
        return encode_event("dropped", {"samples": samples})


def _names_of(gpu: Gpu) -> dict[str, str]:
    told = {"uuid": gpu.uuid, "hostname": gpu.hostname, "device_id": gpu.device_id}
    return {**told, "gpu_instance_id": gpu.instance_id} if gpu.instance_id else told


class _Channel(Generic[T]):
    """The viewers of one wish, on one wire."""

    def __init__(self, wish: Wish, codec: Codec[T], fleet: Fleet) -> None:
        self.viewers: set[Viewer[T]] = set()
        self._wish = wish
        self._codec = codec
        self._fleet = fleet
        self._version = -1
        self._wanted: frozenset[int] | None = None

    def _refresh(self) -> None:
        """Whom the wish means may have changed with the fleet."""
        version, gpus = self._fleet.tags()
        if version == self._version:
            return
        self._version = version
        if not self._wish.selection.is_all:
            matches = self._wish.selection.matcher()
            self._wanted = frozenset(number for number, gpu in enumerate(gpus) if matches(gpu))

    def rows_of(self, gpus: Sequence[int], by_gpu: Mapping[int, list[int]] | None = None) -> list[int]:
        """Which of a batch's rows are wanted, in their order."""
        self._refresh()
        if self._wanted is None:
            return [row for row, number in enumerate(gpus) if number >= 0]
        if by_gpu is None or len(by_gpu) < len(self._wanted):
            return [row for row, number in enumerate(gpus) if number in self._wanted]
        return sorted(row for number in self._wanted for row in by_gpu.get(number, ()))

    def events(self, rows: Rows, gpus: Sequence[int], chosen: Sequence[int], event_id: str) -> Iterable[Event[T]]:
        """The events of these rows; only the last one has the id, for what lies behind the others is not sent yet."""
        names = [name for name in rows.metrics if not self._wish.metrics or name in self._wish.metrics]
        _, known = self._fleet.tags()
        for start in range(0, len(chosen), MAX_EVENT_ROWS):
            part = chosen[start : start + MAX_EVENT_ROWS]
            columns = {name: rows.values(name) for name in names}
            values = {name: [column[row] for row in part] for name, column in columns.items()}
            values = {name: column for name, column in values.items() if not all(map(math.isnan, column))}
            if values:
                points = Points([known[gpus[row]] for row in part], [rows.times_ns[row] for row in part], values)
                is_last = start + MAX_EVENT_ROWS >= len(chosen)
                yield self._codec.samples(points, event_id if is_last else "")


class Live:
    """All channels over one feed. Used on one event loop."""

    def __init__(self, feed: Feed, fleet: Fleet, room: Room) -> None:
        self._feed = feed
        self._fleet = fleet
        self._room = room
        self._channels: dict[tuple[Wish, type[Any]], _Channel[Any]] = {}
        feed.listen(self._take)

    async def watch(
        self, wish: Wish, codec: Codec[T], is_welcome: Callable[[], bool], resume: Positions | None = None
    ) -> AsyncIterator[T]:
        """The events for a new viewer.

        Args:
            resume: goes on from there; None: with what comes in from now on.
        """
        viewer = Viewer(is_welcome, codec.dropped, codec.heartbeat)
        self._room.enter(viewer)
        key = wish, type(codec)
        channel = self._channels.setdefault(key, _Channel(wish, codec, self._fleet))
        until = dict(self._feed.positions)  # what comes behind it is queued from here on
        channel.viewers.add(viewer)
        try:
            # With an id before the first sample, so that a viewer that is cut off early misses nothing either.
            viewer.offer(codec.hello(len(self._fleet), self._feed.trouble, format_positions(resume or until)))
            if resume is not None:
                async for event in self._missed(channel, viewer, resume, until):
                    yield event
            async for event in viewer.events():
                yield event
        finally:
            self._room.leave(viewer)
            channel.viewers.discard(viewer)
            if not channel.viewers and self._channels.get(key) is channel:
                del self._channels[key]

    async def _missed(
        self, channel: _Channel[T], viewer: Viewer[T], resume: Positions, until: Positions
    ) -> AsyncIterator[T]:
        at = {number: resume.get(number, end) for number, end in until.items()}
        for number, end in until.items():
            start = at[number]
            if start.log_id != end.log_id or start.offset > end.offset:
                continue  # the partition was made anew: what was before it is gone
            if end.offset - start.offset > MAX_REPLAYED_RECORDS:
                viewer.drop(end.offset - start.offset - MAX_REPLAYED_RECORDS)
                start = Offset(end.log_id, end.offset - MAX_REPLAYED_RECORDS)
            while start.offset < end.offset:
                try:
                    page = await self._feed.read(number, start, min(65_536, end.offset - start.offset))
                except (NotFoundError, InvalidArgumentError):
                    break
                if not page:
                    break
                viewer.drop(max(0, page.ranges[0].base_offset - start.offset))  # gone by retention
                rows, gpus = await self._feed.decode(page)
                start = at[number] = page.next
                for event in channel.events(rows, gpus, channel.rows_of(gpus), format_positions(at)):
                    yield event.data

    def _take(self, batch: Batch) -> None:
        if not self._channels:
            return
        event_id = format_positions(self._feed.positions)
        by_gpu: defaultdict[int, list[int]] = defaultdict(list)
        for row, number in enumerate(batch.gpus):
            by_gpu[number].append(row)
        for channel in self._channels.values():
            chosen = channel.rows_of(batch.gpus, by_gpu)
            events = list(channel.events(batch.rows, batch.gpus, chosen, event_id)) if chosen else ()
            for viewer in channel.viewers:
                if batch.passed_over:
                    viewer.drop(batch.passed_over)
                for event in events:
                    viewer.offer(event)
