"""The questions that a store answers, over any set of parts (files) in the layout of `columns`.

The SQL is DataFusion's and holds no text of a caller (but for `sql`, where it is all): what callers give is bound as
parameters, and column names come from the table's own schema, quoted. Parts are read in chunks in the order of time, so
that memory stays bounded and a question for the newest rows stops early. The chunks are pyarrow datasets: a
`DeltaTable` could be registered itself, but DataFusion cannot push a filter through that seam, and reads every file of
the table.
"""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from typing import Any, Final

import pyarrow as pa

from telemetry_services.store import columns
from telemetry_services.store.base import (
    ALL_GPUS,
    Filters,
    Gpu,
    HostCount,
    NamespaceCount,
    Sample,
    SeriesQuery,
    Summary,
)
from telemetry_services.store.durable import Files
from telemetry_services.store.errors import StoreQueryError
from telemetry_services.store.gpus import NO_GPU, FromGpus, identity
from telemetry_services.store.latest import Latest
from telemetry_services.store.parts import Part
from telemetry_services.store.samples import unpivot
from telemetry_services.store.series import Series
from telemetry_services.store.series_sql import MERGEABLE, answer_schema, check, check_filters, chosen_of, quoted
from telemetry_services.store.snapshot import Snapshot, new_context, reading_errors, rows_of, run, streamed

LATEST_FILE: Final = "_latest.parquet"
"""What `Latest` writes down, beside the table."""

_FIRST_CHUNK_PARTS: Final = 8
_MAX_CHUNK_PARTS: Final = 64
_MAX_CHUNK_BYTES: Final = 4 << 20  # compressed; ten times that and more once decoded

_TIME_NS: Final = f"arrow_cast({columns.TIME}, 'Int64') * 1000 + {columns.NANOS}"


class Queries(FromGpus):
    """The reading side of a `Store`, whose subclasses give the snapshot to read.

    Args:
        files: where the newest values may be written down; None: nowhere.
    """

    def __init__(self, files: Files | None = None) -> None:
        self._latest_files = files
        self._latest_lock = threading.Lock()
        self._latest: Latest | None = None

    @abstractmethod
    def _snapshot(self, *, rollups: bool = False) -> Snapshot:
        """Return the newest state, with rollups where they are asked for."""

    def gpus(self) -> list[Gpu]:
        snapshot = self._snapshot()
        with self._latest_lock:
            return self._refreshed_latest(snapshot).gpus()

    def latest(self, metrics: Collection[str] = (), filters: Filters = ALL_GPUS) -> pa.Table:
        check_filters(filters)
        snapshot = self._snapshot()
        with self._latest_lock:
            return self._refreshed_latest(snapshot).table(metrics, filters)

    def hosts(self) -> list[HostCount]:
        return [HostCount(*count) for count in self._counts("hostname")]

    def namespaces(self) -> list[NamespaceCount]:
        return [NamespaceCount(*count) for count in self._counts("namespace")]

    def _counts(self, tag: str) -> list[tuple[str, int]]:
        snapshot = self._snapshot()
        with self._latest_lock:
            return self._refreshed_latest(snapshot).counts(tag)

    def _uuids(self, snapshot: Snapshot, wanted: Collection[str]) -> Collection[str]:
        """Return the uuids that are stored; of those in `wanted` none is left out."""
        with self._latest_lock:
            # One that is known stays one: no need to look what is new.
            if self._latest is not None and self._latest.uuids().issuperset(wanted):
                return self._latest.uuids()
            return self._refreshed_latest(snapshot).uuids()

    def _refreshed_latest(self, snapshot: Snapshot) -> Latest:
        """Return the newest values, under `_latest_lock`."""
        if self._latest is None or snapshot.version < self._latest.version:  # the table was removed and made anew
            written = self._latest_files.read_bytes(LATEST_FILE) if self._latest_files else None
            latest = Latest() if written is None else Latest.from_bytes(written)
            self._latest = latest if latest.version <= snapshot.version else Latest()
        with reading_errors():
            self._latest.refresh(snapshot)
        return self._latest

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
        where += ["(uuid = $gpu OR device = $gpu)", f"coalesce({', '.join(map(quoted, chosen))}) IS NOT NULL"]
        bound["gpu"] = gpu
        if hostname is not None:
            where.append("hostname = $hostname")
            bound["hostname"] = hostname
        newest_first = start_ns is None and end_ns is None
        order = "DESC" if newest_first else "ASC"
        tags = columns.tags(snapshot.schema)
        sql = (
            f"SELECT {', '.join([_TIME_NS, *map(quoted, tags + chosen)])} FROM gpu WHERE {' AND '.join(where)} "  # noqa: S608
            f"ORDER BY {columns.TIME} {order}, {columns.NANOS} {order}, uuid LIMIT $limit"
        )
        parts = _parts_between(snapshot.parts, start_ns, end_ns)
        bound["limit"] = max(limit, 0)
        samples = _samples(snapshot, parts, sql, bound, tags, chosen, newest_first=newest_first)
        return islice(samples, bound["limit"])

    def series(self, query: SeriesQuery) -> pa.RecordBatchReader:
        check(query)
        snapshot = self._snapshot(rollups=query.window_ns is not None and query.aggregate in MERGEABLE)
        uuids: Collection[str] | None = None
        if query.filters.gpus:
            uuids = self._uuids(snapshot, query.filters.gpus)
        chosen = chosen_of(query, columns.metrics(snapshot.schema))
        answer = answer_schema(query, chosen)
        batches = Series(snapshot, query, chosen, uuids, answer).batches() if chosen else iter(())
        return pa.RecordBatchReader.from_batches(answer, batches)

    def sql(self, query: str) -> pa.RecordBatchReader:
        import datafusion

        snapshot = self._snapshot(rollups=True)
        context = new_context()
        only_queries = datafusion.SQLOptions().with_allow_ddl(False).with_allow_dml(False).with_allow_statements(False)
        with reading_errors():
            context.register_dataset("gpu", snapshot.dataset(snapshot.parts))
            for rollup in snapshot.rollups:
                context.register_dataset(f"gpu_{rollup.name}", rollup.dataset(rollup.parts))
        try:
            answer = context.sql_with_options(query, only_queries)
            schema = answer.schema()
        except Exception as error:  # DataFusion raises nothing narrower
            reason = " ".join(str(error).split())
            raise StoreQueryError(f"not a query that can be answered: {reason}") from error
        return pa.RecordBatchReader.from_batches(schema, streamed(answer))

    def summary(self, start_ns: int | None = None, end_ns: int | None = None) -> Summary:
        snapshot = self._snapshot()
        metrics = columns.metrics(snapshot.schema)
        where, bound = _time_range(start_ns, end_ns)
        tags = ["uuid", "hostname", "device", quoted(columns.INSTANCE_ID)]
        sql = (
            f"SELECT {', '.join([*tags, *(f'count({quoted(name)})' for name in metrics)])} FROM gpu "  # noqa: S608
            f"WHERE {' AND '.join(where or ['TRUE'])} GROUP BY 1, 2, 3, 4"
        )
        samples = 0
        gpus: set[tuple[str, ...]] = set()
        hosts: set[str] = set()
        for chunk in _chunks(_parts_between(snapshot.parts, start_ns, end_ns)):
            for row in rows_of(run(snapshot, chunk, sql, bound)):
                uuid, hostname, device, instance = (tag or "" for tag in row[:4])
                samples += sum(row[4:])
                gpus.add(identity(uuid, hostname, device, instance))
                hosts.add(hostname)
        return Summary(samples, len(gpus - {NO_GPU}), len(hosts - {""}))


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
        for time_ns, *values in rows_of(run(snapshot, chunk, sql, bound)):
            texts = {name: text for name, text in zip(tags, values, strict=False) if text is not None}
            pending.append((sign * time_ns, texts, values[len(tags) :]))
        pending.sort(key=lambda row: (row[0], row[1].get("uuid", "")))
        read += len(chunk)
        order_of_rest = _first_order(parts[read], newest_first=newest_first) if read < len(parts) else None
        ready = 0
        while ready < len(pending) and (order_of_rest is None or pending[ready][0] < order_of_rest):
            order_ns, texts, numbers = pending[ready]
            ready += 1
            yield from unpivot(sign * order_ns, texts, metrics, numbers)
        # Each row gives one sample at least, so rows past the limit will not be asked for.
        pending = pending[ready : ready + bound["limit"]]


def _first_order(part: Part, *, newest_first: bool) -> int:
    """Return where in the order the first row of `part`, or of those after it, may come."""
    return -(part.max_us * 1000 + 999) if newest_first else part.min_us * 1000


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
