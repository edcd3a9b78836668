"""The list of all GPUs as JSON, of which each call makes anew only what changes all the time: when they were seen."""

import json
from typing import Final

from telemetry_services.api.live.fleet import Fleet
from telemetry_services.api.live.selection import Selection
from telemetry_services.api.models import gpu_fields
from telemetry_services.api.times import format_time
from telemetry_services.store import Gpu

Order = tuple[str, str, str, str]
_SECOND_NS: Final = 1_000_000_000


def order_of(gpu: Gpu) -> Order:
    """By which GPUs are sorted: host, device, uuid, slice."""
    return (gpu.hostname, gpu.device_id, gpu.uuid, gpu.instance_id)


class Listing:
    """GPUs in their order, encoded. Used on one event loop."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._version = -1
        self._gpus: list[Gpu] = []
        self._sorted: list[int] = []
        self._heads: list[str] = []
        self._seconds: dict[int, str] = {}

    def _refresh(self) -> None:
        version, gpus = self._fleet.tags()
        if version == self._version:
            return
        self._version, self._gpus = version, gpus
        self._sorted = sorted(range(len(gpus)), key=lambda number: order_of(gpus[number]))
        self._heads = [json.dumps(gpu_fields(gpu), separators=(",", ":"))[:-1] for gpu in gpus]

    def find(self, selection: Selection, after: Order | None = None) -> list[int]:
        """The numbers of the GPUs that are meant, in their order; `after`: only those behind this place."""
        self._refresh()
        found = self._sorted
        if not selection.is_all:
            matches = selection.matcher()
            found = [number for number in found if matches(self._gpus[number])]
        if after is not None:
            found = [number for number in found if order_of(self._gpus[number]) > after]
        return found

    def gpu(self, number: int) -> Gpu:
        """One of those that `find` gave."""
        return self._gpus[number]

    def encode(self, numbers: list[int], total: int, next_cursor: str | None) -> bytes:
        """The body of `/api/v1/gpus`."""
        seen_ns, heads, shown = self._fleet.seen_ns(), self._heads, self._shown
        rows = ",".join([f'{heads[number]},"last_seen":"{shown(seen_ns[number])}"}}' for number in numbers])
        more = f',"total":{total},"next_cursor":{json.dumps(next_cursor)}' if total != len(numbers) else ""
        return f'{{"count":{len(numbers)}{more},"gpus":[{rows}]}}'.encode()

    def _shown(self, time_ns: int) -> str:
        seconds, fraction = divmod(time_ns, _SECOND_NS)
        text = self._seconds.get(seconds)
        if text is None:
            if len(self._seconds) > 10_000:
                self._seconds.clear()
            text = self._seconds[seconds] = format_time(seconds * _SECOND_NS)[:-1]
        return f"{text}.{fraction:09d}".rstrip("0") + "Z" if fraction else f"{text}Z"
