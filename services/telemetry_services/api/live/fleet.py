"""The fleet as it is now: every GPU with the newest value of each of its metrics, in memory.

It begins with what the store has, and goes on with what comes in (see `feed`). GPUs have a number in the order in which
they became known; it never changes while the process lives, so that what is sent often can say it in place of a uuid.

Written by the feed's thread, read by the event loop; `lock` is held for a batch of rows, or a page of cells.
"""

import secrets
import threading
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import pyarrow as pa

from telemetry_broker import _core
from telemetry_services.api.live.samples import TAGS, Rows
from telemetry_services.observability.metrics import REJECTS
from telemetry_services.store import Gpu
from telemetry_services.store.gpus import identity

MAX_GPUS: Final = 100_000
MAX_METRICS: Final = 500
SILENT_AFTER_SECONDS: Final = 60
"""A GPU without a sample for so long is silent."""

_MAX_KNOWN: Final = 4 * MAX_GPUS

Identity = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Value:
    """The newest value of one metric of one GPU."""

    metric: str
    value: float
    time_ns: int


class Fleet:
    """All GPUs, by number.

    Attributes:
        epoch: names this numbering of the GPUs.
        version: raised when a GPU is new, or a tag of one has changed.
        revision: raised with anything that changes.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.epoch = secrets.token_urlsafe(6)
        self.version = 0
        self.revision = 0
        self._gpus: list[Gpu] = []
        self._numbers: dict[Identity, int] = {}
        self._newest = _core.NewestValues(TAGS, MAX_METRICS, _MAX_KNOWN)

    def __len__(self) -> int:
        return len(self._gpus)

    def take_in(self, rows: Rows) -> list[int]:
        """Takes rows in and gives the number of each one's GPU; -1: there is no room for it, or it names none."""
        with self.lock:
            numbers = self._newest.numbers(rows.batch, self._number)
            self._newest.take_in(rows.batch, numbers)
            self.revision += 1
        return numbers

    def find(self, rows: Rows) -> list[int]:
        """The number of each row's GPU, as `take_in` gives it; nothing is taken in."""
        with self.lock:
            return self._newest.numbers(rows.batch, lambda tags: self._numbers.get(_identity_of(tags), -1))

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
            number = self._newest.number(tags)
            if number < 0:
                there = self._numbers.get(_identity_of(tags), -1)
                # The tags that come in are newer than those of the store.
                number = there if there >= 0 else self._number(tags)
            if number < 0:
                return
            told = [(value.metric, value.value, value.time_ns) for value in values]
            if self._newest.put(number, gpu.last_seen_ns, told):
                self.revision += 1

    def _number(self, tags: tuple[str, ...]) -> int:
        """The number of a GPU whose tags are new, or newer."""
        known_by = _identity_of(tags)
        if not known_by:
            return -1
        number = self._numbers.get(known_by, -1)
        gpu = _gpu_of(dict(zip(TAGS, tags, strict=True)))
        if number < 0:
            if len(self._gpus) >= MAX_GPUS:
                REJECTS.labels("api", "live.too_many_gpus").inc()
                return -1
            number = self._numbers[known_by] = self._newest.add()
            self._gpus.append(gpu)
        else:
            self._newest.forget(_tags_of(self._gpus[number]))
            self._gpus[number] = gpu
        self._newest.name(tags, number)
        self.version += 1
        return number

    # Reading

    def gpu(self, number: int) -> Gpu:
        """The GPU of a number, with the time it was last seen."""
        with self.lock:
            return replace(self._gpus[number], last_seen_ns=self._newest.seen_ns([number])[0])

    def tags(self) -> tuple[int, list[Gpu]]:
        """The version, and the GPUs with the tags of it; their `last_seen_ns` says nothing."""
        with self.lock:
            return self.version, list(self._gpus)

    def metrics(self) -> list[str]:
        """The names of all metrics of which there is a value, sorted."""
        return self._newest.metrics()

    def values(self, number: int, metrics: Collection[str] = ()) -> list[Value]:
        """The newest value of each metric of a GPU, by name; without `metrics`: of all of them."""
        return [Value(*value) for value in self._newest.values(number) if not metrics or value[0] in metrics]

    def column(self, metric: str) -> Sequence[float]:
        """The newest values of a metric, by GPU; NaN where there is none."""
        return self._newest.column(metric)

    def seen_ns(self, numbers: Sequence[int] | None = None) -> Sequence[int]:
        """When each of these GPUs was last seen; None: all."""
        return self._newest.seen_ns(numbers)

    def drain_changed(self) -> list[int]:
        """The GPUs of which something came in since the last call, sorted."""
        return self._newest.drain_changed()


def _identity_of(tags: tuple[str, ...]) -> Identity:
    """Tells a GPU, or a slice of one, from all others; empty: the tags name none."""
    named = dict(zip(TAGS, tags, strict=True))
    return identity(named["uuid"], named["hostname"], named["device"], named["GPU_I_ID"])


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
