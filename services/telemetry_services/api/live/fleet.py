"""The fleet as it is now: every GPU with the newest value of each of its metrics, in memory.

It begins with what the store has, and goes on with what comes in (see `feed`). GPUs have a number in the order in which
they became known; it never changes while the process lives, so that what is sent often can say it in place of a uuid.

Written by the feed's thread, read by the event loop; `lock` is held for a batch of rows, or a page of cells.
"""

import math
import secrets
import threading
import time
from array import array
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import pyarrow as pa

from telemetry_services.api.live.samples import TAGS, Rows
from telemetry_services.store import Gpu

MAX_GPUS: Final = 100_000
MAX_METRICS: Final = 500
SILENT_AFTER_SECONDS: Final = 60
"""A GPU without a sample for so long is silent."""

_NONE: Final = math.nan
_MAX_KNOWN: Final = 4 * MAX_GPUS

Identity = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Value:
    """The newest value of one metric of one GPU."""

    metric: str
    value: float
    time_ns: int


class _Metric:
    """One metric: a value and its time for each GPU."""

    __slots__ = ("times_ns", "values")

    def __init__(self, gpus: int) -> None:
        self.values = array("d", [_NONE]) * gpus
        self.times_ns = array("q", [0]) * gpus


class Fleet:
    """All GPUs, by number.

    Attributes:
        epoch: names this numbering of the GPUs.
        version: raised when a GPU is new, or a tag of one has changed.
        revision: raised with anything that changes.
        left_out: GPUs that there was no room for, by how often they came.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.epoch = secrets.token_urlsafe(6)
        self.version = 0
        self.revision = 0
        self.left_out = 0
        self._gpus: list[Gpu] = []
        self._seen_ns = array("q")
        self._numbers: dict[Identity, int] = {}
        self._known: dict[tuple[str, ...], int] = {}
        self._metrics: dict[str, _Metric] = {}
        self._changed: set[int] = set()

    def __len__(self) -> int:
        return len(self._gpus)

    def take_in(self, rows: Rows) -> list[int]:
        """Takes rows in and gives the number of each one's GPU; -1: there is no room for it, or it names none."""
        with self.lock:
            known = self._known
            numbers = [number if (number := known.get(tags, -1)) >= 0 else self._number(tags) for tags in rows.tags]
            seen = self._seen_ns
            for number, time_ns in zip(numbers, rows.times_ns, strict=True):
                if number >= 0 and time_ns > seen[number]:
                    seen[number] = time_ns
            for name, values in rows.metrics.items():
                self._take_in_metric(name, numbers, rows.times_ns, values)
            self._changed.update(numbers)
            self._changed.discard(-1)
            self.revision += 1
        return numbers

    def _take_in_metric(
        self, name: str, numbers: Sequence[int], times_ns: Sequence[int], values: Sequence[float]
    ) -> None:
        metric = self._metric(name)
        if metric is None:
            return
        held, at = metric.values, metric.times_ns
        for number, time_ns, value in zip(numbers, times_ns, values, strict=True):
            if number >= 0 and value == value and time_ns >= at[number]:
                held[number] = value
                at[number] = time_ns

    def find(self, rows: Rows) -> list[int]:
        """The number of each row's GPU, as `take_in` gives it; nothing is taken in."""
        with self.lock:
            named = (dict(zip(TAGS, tags, strict=True)) for tags in rows.tags)
            return [
                self._numbers.get(_identity(tags["uuid"], tags["hostname"], tags["device"], tags["GPU_I_ID"]), -1)
                for tags in named
            ]

    def put_latest(self, latest: pa.Table) -> None:
        """Takes in what `Store.latest` gives."""
        texts = [latest[name].to_pylist() for name in TAGS]
        seen_ns = latest["time"].cast(pa.int64()).to_pylist()
        metrics = {}
        for field in latest.schema:
            if pa.types.is_struct(field.type):
                value, at = latest[field.name].combine_chunks().flatten()
                metrics[field.name] = value.to_pylist(), at.cast(pa.int64()).to_pylist()
        for row, (tags, seen) in enumerate(zip(zip(*texts, strict=True), seen_ns, strict=True)):
            gpu = replace(_gpu_of(dict(zip(TAGS, tags, strict=True))), last_seen_ns=seen or 0)
            values = (
                Value(name, value[row], at[row]) for name, (value, at) in metrics.items() if value[row] is not None
            )
            self.put(gpu, values)

    def put(self, gpu: Gpu, values: Iterable[Value] = ()) -> None:
        """Takes in a GPU and values of it as a store has them; what is newer stays."""
        tags = _tags_of(gpu)
        with self.lock:
            number = self._known.get(tags, -1)
            if number < 0:
                identity = _identity(gpu.uuid, gpu.hostname, gpu.device_id, gpu.instance_id)
                there = self._numbers.get(identity, -1)
                # The tags that come in are newer than those of the store.
                number = there if there >= 0 else self._number(tags)
            if number < 0:
                return
            is_news = gpu.last_seen_ns > self._seen_ns[number]
            self._seen_ns[number] = max(self._seen_ns[number], gpu.last_seen_ns)
            for value in values:
                metric = self._metric(value.metric)
                if metric is None:
                    continue
                if math.isnan(metric.values[number]) or value.time_ns > metric.times_ns[number]:
                    metric.values[number], metric.times_ns[number] = value.value, value.time_ns
                    is_news = True
            if is_news:
                self._changed.add(number)
                self.revision += 1

    def _metric(self, name: str) -> _Metric | None:
        metric = self._metrics.get(name)
        if metric is None and len(self._metrics) < MAX_METRICS:
            metric = self._metrics[name] = _Metric(len(self._gpus))
        return metric

    def _number(self, tags: tuple[str, ...]) -> int:
        """The number of a GPU whose tags are new, or newer."""
        named = dict(zip(TAGS, tags, strict=True))
        identity = _identity(named["uuid"], named["hostname"], named["device"], named["GPU_I_ID"])
        if not identity:
            return -1
        number = self._numbers.get(identity, -1)
        gpu = _gpu_of(named)
        if number < 0:
            if len(self._gpus) >= MAX_GPUS:
                self.left_out += 1
                return -1
            number = self._numbers[identity] = len(self._gpus)
            self._gpus.append(gpu)
            self._seen_ns.append(0)
            for metric in self._metrics.values():
                metric.values.append(_NONE)
                metric.times_ns.append(0)
        else:
            self._known.pop(_tags_of(self._gpus[number]), None)
            self._gpus[number] = gpu
        if len(self._known) > _MAX_KNOWN:
            self._known.clear()
        self._known[tags] = number
        self.version += 1
        return number

    # Reading

    def gpu(self, number: int) -> Gpu:
        """The GPU of a number, with the time it was last seen."""
        with self.lock:
            return replace(self._gpus[number], last_seen_ns=self._seen_ns[number])

    def tags(self) -> tuple[int, list[Gpu]]:
        """The version, and the GPUs with the tags of it; their `last_seen_ns` says nothing."""
        with self.lock:
            return self.version, list(self._gpus)

    def metrics(self) -> list[str]:
        """The names of all metrics of which there is a value, sorted."""
        return sorted(self._metrics)

    def values(self, number: int, metrics: Collection[str] = ()) -> list[Value]:
        """The newest value of each metric of a GPU, by name; without `metrics`: of all of them."""
        with self.lock:
            return [
                Value(name, metric.values[number], metric.times_ns[number])
                for name, metric in sorted(self._metrics.items())
                if (not metrics or name in metrics) and not math.isnan(metric.values[number])
            ]

    def column(self, metric: str) -> Sequence[float]:
        """The newest values of a metric, by GPU; NaN where there is none."""
        with self.lock:
            held = self._metrics.get(metric)
            return held.values.tolist() if held else [_NONE] * len(self._gpus)

    def seen_ns(self, numbers: Iterable[int] | None = None) -> Sequence[int]:
        """When each of these GPUs was last seen; None: all."""
        with self.lock:
            return self._seen_ns.tolist() if numbers is None else [self._seen_ns[number] for number in numbers]

    def drain_changed(self) -> list[int]:
        """The GPUs of which something came in since the last call, sorted."""
        with self.lock:
            changed, self._changed = self._changed, set()
        return sorted(changed)

    def silent(self, now_ns: int | None = None) -> int:
        """How many GPUs are silent."""
        since = (now_ns or time.time_ns()) - SILENT_AFTER_SECONDS * 1_000_000_000
        with self.lock:
            return sum(seen < since for seen in self._seen_ns)


def _identity(uuid: str, hostname: str, device: str, instance: str) -> Identity:
    """Tells a GPU, or a slice of one, from all others, as the store does; empty: it names none."""
    if uuid:
        return (uuid, instance)
    return (hostname, device, instance) if device else ()


def _gpu_of(tags: dict[str, str]) -> Gpu:
    return Gpu(
        device_id=tags["device"],
        gpu_id=tags["gpu"],
        uuid=tags["uuid"],
        model_name=tags["model"],
        hostname=tags["hostname"],
        container=tags["container"],
        pod=tags["pod"],
        namespace=tags["namespace"],
        instance_id=tags["GPU_I_ID"],
        last_seen_ns=0,
    )


def _tags_of(gpu: Gpu) -> tuple[str, ...]:
    named = {
        "device": gpu.device_id,
        "gpu": gpu.gpu_id,
        "uuid": gpu.uuid,
        "model": gpu.model_name,
        "hostname": gpu.hostname,
        "container": gpu.container,
        "pod": gpu.pod,
        "namespace": gpu.namespace,
        "GPU_I_ID": gpu.instance_id,
    }
    return tuple(named[name] for name in TAGS)
