"""The fleet for those who watch all of it: its state once, and from then on what has changed, some times a second.

What is sent is the newest value of each GPU, so a viewer that reads slowly misses values, but never shows an old one:
it gets the whole state anew. GPUs are told by their numbers in `Fleet`, in the order of the state; a frame is encoded
once for all viewers of the same metrics.
"""

import asyncio
import math
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Final

from telemetry_services.api.live.fleet import SILENT_AFTER_SECONDS, Fleet
from telemetry_services.api.live.viewers import SSE_HEARTBEAT, SSE_RETRY, Event, Room, Viewer, encode_event

FRAME_SECONDS: Final = 0.25
MAX_FRAME_METRICS: Final = 8
_MAX_QUEUED_FRAMES: Final = 8

Metrics = tuple[str, ...]


def state_of(fleet: Fleet, metrics: Metrics) -> dict[str, Any]:
    """All GPUs and their newest values, as columns: the GPU numbered n has the nth entry of each.

    Texts that repeat are sent once: a column of tags is `{"names": [...], "at": [index, ...]}`.
    """
    with fleet.lock:
        version, gpus = fleet.tags()
        seen_ms = [seen // 1_000_000 for seen in fleet.seen_ns()]
        values = {metric: fleet.column(metric) for metric in metrics}
        known = fleet.metrics()
    return {
        "epoch": fleet.epoch,
        "version": version,
        "time_ms": time.time_ns() // 1_000_000,
        "silent_after_seconds": SILENT_AFTER_SECONDS,
        "count": len(gpus),
        "metrics": known,
        "uuid": [gpu.uuid for gpu in gpus],
        "device_id": _folded([gpu.device_id for gpu in gpus]),
        "hostname": _folded([gpu.hostname for gpu in gpus]),
        "namespace": _folded([gpu.namespace for gpu in gpus]),
        "pod": _folded([gpu.pod for gpu in gpus]),
        "container": _folded([gpu.container for gpu in gpus]),
        "model_name": _folded([gpu.model_name for gpu in gpus]),
        "gpu_instance_id": _folded([gpu.instance_id for gpu in gpus]),
        "seen_ms": seen_ms,
        "values": {metric: _shown(column) for metric, column in values.items()},
    }


def _folded(texts: Sequence[str]) -> dict[str, Any]:
    names: dict[str, int] = {}
    at = [names.setdefault(text, len(names)) for text in texts]
    return {"names": list(names), "at": at}


def _shown(column: Sequence[float]) -> list[float | int | None]:
    """Numbers as short as they can be said: four decimals are more than any metric means."""
    return [
        None if math.isnan(value) else int(value) if value.is_integer() and abs(value) < 1e15 else round(value, 4)
        for value in column
    ]


class Frames:
    """Sends frames to viewers; nothing is done while there are none. Used on one event loop."""

    def __init__(self, fleet: Fleet, room: Room) -> None:
        self._fleet = fleet
        self._room = room
        self._viewers: defaultdict[Metrics, set[Viewer[bytes]]] = defaultdict(set)
        self._number = 0  # of the last frame
        self._states: dict[Metrics, Event[bytes]] = {}  # what was encoded since then
        self._task: asyncio.Task[None] | None = None

    async def watch(self, metrics: Metrics, is_welcome: Callable[[], bool]) -> AsyncIterator[bytes]:
        """The events for a new viewer: its first is `state`, the others `frame`, and `state` again where it must be."""
        viewer: Viewer[bytes] = Viewer(is_welcome, lambda _: self._state(metrics), SSE_HEARTBEAT)
        self._room.enter(viewer)
        self._viewers[metrics].add(viewer)
        if self._task is None or self._task.done():
            self._next_frame()
            self._task = asyncio.create_task(self._run(self._fleet.version))
        viewer.offer(self._state(metrics))
        try:
            yield SSE_RETRY
            async for event in viewer.events():
                yield event
        finally:
            self._room.leave(viewer)
            self._viewers[metrics].discard(viewer)
            if not self._viewers[metrics]:
                del self._viewers[metrics]

    def _next_frame(self) -> list[int]:
        """Begins one, and gives the GPUs that have changed since the one before."""
        self._number += 1
        self._states.clear()
        return self._fleet.drain_changed()

    def _state(self, metrics: Metrics) -> Event[bytes]:
        """The state: encoded once for all who come between two frames, the next of which has what changed since."""
        state = self._states.get(metrics)
        if state is None:
            state = encode_event("state", state_of(self._fleet, metrics), self._event_id())
            self._states[metrics] = state
        return state

    def _event_id(self) -> str:
        return f"{self._fleet.epoch}.{self._number}"

    async def _run(self, version: int) -> None:
        while self._viewers:
            await asyncio.sleep(FRAME_SECONDS)
            changed = self._next_frame()
            now = self._fleet.version
            if not changed:
                continue
            for metrics, viewers in list(self._viewers.items()):
                event = self._state(metrics) if now != version else self._frame(metrics, changed)
                for viewer in viewers:
                    if viewer.queued >= _MAX_QUEUED_FRAMES:  # the next thing that it reads says all
                        viewer.clear()
                        viewer.drop(len(changed))
                    else:
                        viewer.offer(event)
            version = now

    def _frame(self, metrics: Metrics, changed: list[int]) -> Event[bytes]:
        with self._fleet.lock:
            columns = {metric: self._fleet.column(metric) for metric in metrics}
            seen_ns = self._fleet.seen_ns()
        everything = len(changed) == len(seen_ns)
        body = {
            "time_ms": time.time_ns() // 1_000_000,
            "gpus": None if everything else changed,
            "seen_ms": [seen_ns[number] // 1_000_000 for number in changed],
            "values": {
                metric: _shown(column if everything else [column[number] for number in changed])
                for metric, column in columns.items()
            },
        }
        return encode_event("frame", body, self._event_id(), len(changed))
