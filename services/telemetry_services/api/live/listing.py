"""The list of all GPUs, in order, by their names, and as JSON: made anew when a GPU is new or a tag of one has changed.

Each call makes anew only what changes all the time: when they were seen.
"""

import json
from collections import defaultdict
from collections.abc import Collection, Sequence
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

    # Each says which GPUs a name of a field of Selection means, by their places in the order.
    _by: dict[str, dict[str, list[int]]]

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._version = -1
        self._gpus: list[Gpu] = []
        self._sorted: list[int] = []
        self._heads: list[str] = []
        self._rows: list[str] = []  # each GPU as it was encoded last
        self._rows_seen: list[int] = []  # and when it had been seen then
        self._seconds: dict[int, str] = {}
        self._by = {}

    def _refresh(self) -> None:
        if self._fleet.version == self._version:
            return
        self._version, gpus = self._fleet.tags()
        self._gpus = gpus
        self._sorted = sorted(range(len(gpus)), key=lambda number: order_of(gpus[number]))
        self._heads = [json.dumps(gpu_fields(gpu), separators=(",", ":"))[:-1] for gpu in gpus]
        self._rows, self._rows_seen = [""] * len(gpus), [-1] * len(gpus)
        self._by = {field: defaultdict(list) for field in ("gpus", "hostnames", "namespaces", "pods", "models")}
        for place, number in enumerate(self._sorted):
            gpu = gpus[number]
            for name in {gpu.uuid, gpu.device_id} - {""}:
                self._by["gpus"][name].append(place)
            self._by["hostnames"][gpu.hostname].append(place)
            self._by["namespaces"][gpu.namespace].append(place)
            self._by["pods"][gpu.pod].append(place)
            self._by["models"][gpu.model_name].append(place)

    def _candidates(self, selection: Selection) -> Sequence[int]:
        """Numbers, in order, of GPUs among which are all that are meant: by the field whose names mean the fewest."""
        named: list[tuple[str, Collection[str]]] = [
            (field, names) for field in self._by if (names := getattr(selection, field))
        ]
        if not named:
            return self._sorted
        places = ([place for name in set(names) for place in self._by[field].get(name, ())] for field, names in named)
        fewest = min(places, key=len)
        return [self._sorted[place] for place in sorted(set(fewest))]

    def counts(self, field: str) -> list[tuple[str, int]]:
        """The names that a field of `Selection` can have, sorted, and how many GPUs each means."""
        self._refresh()
        return sorted((name, len(places)) for name, places in self._by.get(field, {}).items() if name)

    def find(self, selection: Selection, after: Order | None = None) -> list[int]:
        """The numbers of the GPUs that are meant, in their order; `after`: only those behind this place."""
        self._refresh()
        found = self._sorted
        if not selection.is_all:
            matches = selection.matcher()
            found = [number for number in self._candidates(selection) if matches(self._gpus[number])]
        if after is not None:
            found = [number for number in found if order_of(self._gpus[number]) > after]
        return found

    def gpu(self, number: int) -> Gpu:
        """One of those that `find` gave."""
        return self._gpus[number]

    def encode(self, numbers: list[int], total: int, next_cursor: str | None) -> bytes:
        """The body of `/api/v1/gpus`."""
        encoded, known = self._rows, self._rows_seen
        for number, time_ns in zip(numbers, self._fleet.seen_ns(numbers), strict=True):
            if known[number] != time_ns:
                known[number] = time_ns
                encoded[number] = f'{self._heads[number]},"last_seen":"{self._shown(time_ns)}"}}'
        rows = ",".join([encoded[number] for number in numbers])
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
