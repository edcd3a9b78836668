"""The questions that a store answers, over any set of parts (files) in the layout of `columns`.

The SQL is DataFusion's and holds no text of a caller: what callers give is bound as parameters, and column names come
from the table's own schema, quoted. Parts are read in chunks in the order of time, so that memory stays bounded and a
question for the newest rows stops early. The chunks are pyarrow datasets: a `DeltaTable` could be registered itself,
but DataFusion cannot push a filter through that seam, and reads every file of the table.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.dataset as ds

from telemetry_services.store import columns
from telemetry_services.store.base import Gpu, HostCount, NamespaceCount, Sample, Summary
from telemetry_services.store.errors import StoreError

if TYPE_CHECKING:
    import datafusion

_FIRST_CHUNK_PARTS: Final = 8
_MAX_CHUNK_PARTS: Final = 64
_MAX_CHUNK_BYTES: Final = 4 << 20  # compressed; ten times that and more once decoded
_QUERY_MEMORY_BYTES: Final = 128 << 20  # a sort or a group-by beyond it spills to disk

_TIME_NS: Final = f"arrow_cast({columns.TIME}, 'Int64') * 1000 + {columns.NANOS}"

_ROSTER_SQL: Final = (
    f'SELECT max({_TIME_NS}), uuid, hostname, device, "GPU_I_ID", gpu, model, container, pod, namespace '  # noqa: S608
    "FROM gpu GROUP BY 2, 3, 4, 5, 6, 7, 8, 9, 10"
)

# How a tag is named in labels_raw, where that differs.
_LABELS: Final = {"hostname": "Hostname", "uuid": "UUID", "model": "modelName"}
_METRIC_LABEL: Final = "__name__"
_ESCAPES: Final = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})


@dataclass(frozen=True, slots=True)
class Part:
    """An immutable set of rows, such as one file of a table, and the times between which they lie."""

    key: str
    size_bytes: int
    min_us: int
    max_us: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One state of a store."""

    schema: pa.Schema
    parts: Sequence[Part]
    dataset: Callable[[Sequence[Part]], ds.Dataset]


NO_GPU: Final = ()
"""The identity of rows that name neither a uuid nor a device."""


class Queries(ABC):
    """The reading side of a `Store`, whose subclasses give the snapshot to read."""

    def __init__(self) -> None:
        self._roster = Roster()

    @abstractmethod
    def _snapshot(self) -> Snapshot:
        """Return the newest state."""

    def gpus(self) -> list[Gpu]:
        return self._roster.refreshed(self._snapshot())

    def hosts(self) -> list[HostCount]:
        counts = Counter(gpu.hostname for gpu in self.gpus() if gpu.hostname)
        return [HostCount(name, count) for name, count in sorted(counts.items())]

    def namespaces(self) -> list[NamespaceCount]:
        counts = Counter(gpu.namespace for gpu in self.gpus() if gpu.namespace)
        return [NamespaceCount(name, count) for name, count in sorted(counts.items())]

    def metrics(self) -> list[str]:
        return sorted(columns.metrics(self._snapshot().schema))

    def tags(self) -> list[str]:
        return sorted(columns.tags(self._snapshot().schema))

    def telemetry(
        self,
        gpu: str,
        *,
        hostname: str | None = None,
        metrics: Collection[str] = (),
        start_ns: int | None = None,
        end_ns: int | None = None,
        limit: int = 100,
    ) -> Iterator[Sample]:
        snapshot = self._snapshot()
        chosen = [name for name in columns.metrics(snapshot.schema) if not metrics or name in metrics]
        if not chosen:
            return iter(())
        where, bound = _time_range(start_ns, end_ns)
        where += ["(uuid = $gpu OR device = $gpu)", f"coalesce({', '.join(map(_quoted, chosen))}) IS NOT NULL"]
        bound["gpu"] = gpu
        if hostname is not None:
            where.append("hostname = $hostname")
            bound["hostname"] = hostname
        newest_first = start_ns is None and end_ns is None
        order = "DESC" if newest_first else "ASC"
        tags = columns.tags(snapshot.schema)
        sql = (
            f"SELECT {', '.join([_TIME_NS, *map(_quoted, tags + chosen)])} FROM gpu WHERE {' AND '.join(where)} "  # noqa: S608
            f"ORDER BY {columns.TIME} {order}, {columns.NANOS} {order}, uuid LIMIT $limit"
        )
        parts = _parts_between(snapshot.parts, start_ns, end_ns)
        bound["limit"] = max(limit, 0)
        samples = _samples(snapshot, parts, sql, bound, tags, chosen, newest_first=newest_first)
        return islice(samples, bound["limit"])

    def summary(self, start_ns: int | None = None, end_ns: int | None = None) -> Summary:
        snapshot = self._snapshot()
        metrics = columns.metrics(snapshot.schema)
        where, bound = _time_range(start_ns, end_ns)
        identity = ["uuid", "hostname", "device", _quoted(columns.INSTANCE_ID)]
        sql = (
            f"SELECT {', '.join([*identity, *(f'count({_quoted(name)})' for name in metrics)])} FROM gpu "  # noqa: S608
            f"WHERE {' AND '.join(where or ['TRUE'])} GROUP BY 1, 2, 3, 4"
        )
        samples = 0
        gpus: set[tuple[str, ...]] = set()
        hosts: set[str] = set()
        for chunk in _chunks(_parts_between(snapshot.parts, start_ns, end_ns)):
            for row in _rows(_run(snapshot, chunk, sql, bound)):
                uuid, hostname, device, instance = (tag or "" for tag in row[:4])
                samples += sum(row[4:])
                gpus.add(_identity(uuid, hostname, device, instance))
                hosts.add(hostname)
        return Summary(samples, len(gpus - {NO_GPU}), len(hosts - {""}))


class Roster:
    """Every GPU ever stored, kept up to date by reading only the parts that are new since the last time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._read: set[str] = set()
        self._gpus: dict[tuple[str, ...], Gpu] = {}

    def refreshed(self, snapshot: Snapshot) -> list[Gpu]:
        """Take in what is new in `snapshot` and return the GPUs by hostname, device and uuid."""
        with self._lock:
            new = [part for part in snapshot.parts if part.key not in self._read]
            for chunk in _chunks(sorted(new, key=lambda part: part.min_us)):
                self._take_in(_run(snapshot, chunk, _ROSTER_SQL, {}))
                self._read.update(part.key for part in chunk)
            if len(self._read) > len(snapshot.parts):  # some were replaced by larger ones, or are past their retention
                self._read &= {part.key for part in snapshot.parts}
            return sorted(self._gpus.values(), key=lambda gpu: (gpu.hostname, gpu.device_id, gpu.uuid, gpu.instance_id))

    def _take_in(self, table: pa.Table) -> None:
        for time_ns, *tags in _rows(table):
            uuid, hostname, device, instance, index, model, container, pod, namespace = (tag or "" for tag in tags)
            identity = _identity(uuid, hostname, device, instance)
            known = self._gpus.get(identity)
            if identity != NO_GPU and (known is None or known.last_seen_ns <= time_ns):
                self._gpus[identity] = Gpu(
                    device_id=device,
                    gpu_id=index,
                    uuid=uuid,
                    model_name=model,
                    hostname=hostname,
                    container=container,
                    pod=pod,
                    namespace=namespace,
                    instance_id=instance,
                    last_seen_ns=time_ns,
                )


def _identity(uuid: str, hostname: str, device: str, instance: str) -> tuple[str, ...]:
    """Tell a GPU, or a slice of one, from all others; one without a uuid by its place."""
    if uuid:
        return (uuid, instance)
    return (hostname, device, instance) if device else NO_GPU


def _samples(
    snapshot: Snapshot,
    parts: Sequence[Part],
    sql: str,
    bound: dict[str, Any],
    tags: Sequence[str],
    metrics: Sequence[str],
    *,
    newest_first: bool,
) -> Iterator[Sample]:
    """Merge chunk after chunk; a row is given once no later chunk can hold one that comes before it."""
    sign = -1 if newest_first else 1
    parts = sorted(parts, key=lambda part: -part.max_us if newest_first else part.min_us)
    pending: list[tuple[int, dict[str, str], Sequence[float | None]]] = []
    read = 0
    for chunk in _chunks(parts):
        for time_ns, *values in _rows(_run(snapshot, chunk, sql, bound)):
            texts = {name: text for name, text in zip(tags, values, strict=False) if text is not None}
            pending.append((sign * time_ns, texts, values[len(tags) :]))
        pending.sort(key=lambda row: (row[0], row[1].get("uuid", "")))
        read += len(chunk)
        order_of_rest = _first_order(parts[read], newest_first=newest_first) if read < len(parts) else None
        ready = 0
        while ready < len(pending) and (order_of_rest is None or pending[ready][0] < order_of_rest):
            order_ns, texts, numbers = pending[ready]
            ready += 1
            yield from _unpivot(sign * order_ns, texts, metrics, numbers)
        # Each row gives one sample at least, so rows past the limit will not be asked for.
        pending = pending[ready : ready + bound["limit"]]


def _first_order(part: Part, *, newest_first: bool) -> int:
    """Return where in the order the first row of `part`, or of those after it, may come."""
    return -(part.max_us * 1000 + 999) if newest_first else part.min_us * 1000


def _unpivot(
    time_ns: int, tags: dict[str, str], metrics: Sequence[str], values: Sequence[float | None]
) -> Iterator[Sample]:
    labels = sorted((_LABELS.get(name, name), value) for name, value in tags.items())
    before = "".join(f"{_label(name, value)}," for name, value in labels if name < _METRIC_LABEL)
    after = "".join(f",{_label(name, value)}" for name, value in labels if name > _METRIC_LABEL)
    for metric, value in sorted(zip(metrics, values, strict=True)):
        if value is not None:
            yield Sample(
                device_id=tags.get("device", ""),
                metric=metric,
                value=value,
                time_ns=time_ns,
                gpu_id=tags.get("gpu", ""),
                uuid=tags.get("uuid", ""),
                model_name=tags.get("model", ""),
                hostname=tags.get("hostname", ""),
                container=tags.get("container", ""),
                pod=tags.get("pod", ""),
                namespace=tags.get("namespace", ""),
                labels_raw=f"{before}{_label(_METRIC_LABEL, metric)}{after}",
            )


def _label(name: str, value: str) -> str:
    return f'{name}="{value.translate(_ESCAPES)}"'


def _time_range(start_ns: int | None, end_ns: int | None) -> tuple[list[str], dict[str, Any]]:
    """Return conditions for `start_ns <= time < end_ns`, and their parameters."""
    where: list[str] = []
    bound: dict[str, Any] = {}
    for name, sign, time_ns in (("start", ">", start_ns), ("end", "<", end_ns)):
        if time_ns is not None:
            us, bound[f"{name}_nanos"] = divmod(_clamped(time_ns), 1000)
            bound[f"{name}_us"] = pa.scalar(us, columns.TIME_TYPE)
            nanos = ">= $start_nanos" if name == "start" else "< $end_nanos"
            where.append(f"{columns.TIME} {sign}= ${name}_us")
            where.append(f"({columns.TIME} {sign} ${name}_us OR {columns.NANOS} {nanos})")
    return where, bound


def _clamped(time_ns: int) -> int:
    """Keep a bound within what int64 nanoseconds can say: nothing lies beyond it."""
    return max(-(1 << 63), min(time_ns, (1 << 63) - 1))


def _parts_between(parts: Sequence[Part], start_ns: int | None, end_ns: int | None) -> list[Part]:
    return [
        part
        for part in parts
        if (start_ns is None or start_ns <= part.max_us * 1000 + 999)
        and (end_ns is None or part.min_us * 1000 < end_ns)
    ]


def _chunks(parts: Sequence[Part]) -> Iterator[list[Part]]:
    """Cut parts, in their order, into chunks of growing number and of bounded size."""
    chunk: list[Part] = []
    chunk_bytes, max_parts = 0, _FIRST_CHUNK_PARTS
    for part in parts:
        if chunk and (len(chunk) == max_parts or chunk_bytes + part.size_bytes > _MAX_CHUNK_BYTES):
            yield chunk
            chunk, chunk_bytes, max_parts = [], 0, min(max_parts * 2, _MAX_CHUNK_PARTS)
        chunk.append(part)
        chunk_bytes += part.size_bytes
    if chunk:
        yield chunk


def _run(snapshot: Snapshot, parts: Sequence[Part], sql: str, bound: dict[str, Any]) -> pa.Table:
    context = _context()
    try:
        context.register_dataset("gpu", snapshot.dataset(parts))
        return context.sql(sql, param_values=bound).to_arrow_table()
    except Exception as error:  # DataFusion raises nothing narrower
        raise StoreError(f"the store could not be read: {type(error).__name__}: {error}") from error


def _context() -> datafusion.SessionContext:
    import datafusion

    return datafusion.SessionContext(*_settings())


@cache
def _settings() -> tuple[datafusion.SessionConfig, datafusion.RuntimeEnvBuilder]:
    import datafusion

    runtime = datafusion.RuntimeEnvBuilder().with_disk_manager_os().with_fair_spill_pool(_QUERY_MEMORY_BYTES)
    return datafusion.SessionConfig().with_target_partitions(2), runtime


def _rows(table: pa.Table) -> Iterator[tuple[Any, ...]]:
    """Give the rows of a small table."""
    return zip(*(column.to_pylist() for column in table.columns), strict=True)


def _quoted(name: str) -> str:
    escaped = name.replace('"', '""')
    return f'"{escaped}"'
