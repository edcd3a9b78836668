"""The questions that a store answers, asked of InfluxDB 3: in SQL, over Arrow Flight, with bound parameters.

The SQL holds no text of a caller: what callers give is bound, and column names come from the table's own schema,
quoted. A column is a tag or a metric by its type, as in the other stores. A database or table that is not there reads
as empty.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from telemetry_services.store import columns
from telemetry_services.store.base import Gpu, HostCount, NamespaceCount, Sample, Summary
from telemetry_services.store.errors import StoreError
from telemetry_services.store.influx_client import InfluxClient
from telemetry_services.store.queries import NO_GPU, _identity, _unpivot

_SCHEMA_SQL: Final = (
    "SELECT column_name, data_type FROM information_schema.columns WHERE table_schema = 'iox' AND table_name = 'gpu'"
)
_TIME_NS: Final = "arrow_cast(time, 'Int64')"
_NUMBERS: Final = ("Float64", "Int64", "UInt64")
_NOT_THERE: Final = "database not found"
_TOO_MUCH: Final = "file limit"
_OVERLAP_NS: Final = 3_600 * 10**9
"""How much later than others a point may come and still be seen: as late as its GPU's list was read before."""


@dataclass(frozen=True, slots=True)
class _Schema:
    tags: list[str]
    metrics: list[str]

    def tag(self, name: str) -> str:
        """The column of a tag, or nothing where the table has none."""
        return _quoted(name) if name in self.tags else "CAST(NULL AS VARCHAR)"


class InfluxQueries:
    """The reading side of the store."""

    def __init__(self, client: InfluxClient) -> None:
        self._asking = client
        self._roster_lock = threading.Lock()
        self._roster: dict[tuple[str, ...], Gpu] = {}
        self._roster_ns: int | None = None

    def gpus(self) -> list[Gpu]:
        schema = self._schema()
        with self._roster_lock:
            if schema.tags:
                self._refresh_roster(schema)
            return sorted(
                self._roster.values(), key=lambda gpu: (gpu.hostname, gpu.device_id, gpu.uuid, gpu.instance_id)
            )

    def hosts(self) -> list[HostCount]:
        counts = Counter(gpu.hostname for gpu in self.gpus() if gpu.hostname)
        return [HostCount(name, count) for name, count in sorted(counts.items())]

    def namespaces(self) -> list[NamespaceCount]:
        counts = Counter(gpu.namespace for gpu in self.gpus() if gpu.namespace)
        return [NamespaceCount(name, count) for name, count in sorted(counts.items())]

    def metrics(self) -> list[str]:
        return sorted(self._schema().metrics)

    def tags(self) -> list[str]:
        return sorted({*columns.BASE_TAGS, *self._schema().tags})

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
        schema = self._schema()
        chosen = [name for name in schema.metrics if not metrics or name in metrics]
        if not chosen or limit <= 0:
            return iter(())
        where, bound = _time_range(start_ns, end_ns)
        where.append(f"({schema.tag('uuid')} = $gpu OR {schema.tag('device')} = $gpu)")
        where.append(f"coalesce({', '.join(map(_quoted, chosen))}) IS NOT NULL")
        bound["gpu"] = gpu
        if hostname is not None:
            where.append(f"{schema.tag('hostname')} = $hostname")
            bound["hostname"] = hostname
        order = "DESC" if start_ns is None and end_ns is None else "ASC"
        sql = (
            f"SELECT {', '.join([_TIME_NS, *map(_quoted, schema.tags + chosen)])} FROM gpu "  # noqa: S608
            # Each row gives one sample at least.
            f"WHERE {' AND '.join(where)} ORDER BY time {order}, {schema.tag('uuid')} LIMIT {int(limit)}"
        )
        return islice(_samples(self._rows(sql, bound), schema.tags, chosen), limit)

    def summary(self, start_ns: int | None = None, end_ns: int | None = None) -> Summary:
        schema = self._schema()
        if not schema.metrics:
            return Summary(0, 0, 0)
        where, bound = _time_range(start_ns, end_ns)
        identity = [schema.tag(name) for name in ("uuid", "hostname", "device", columns.INSTANCE_ID)]
        counts = [f"count({_quoted(name)})" for name in schema.metrics]
        aliased = [f"{expression} AS c{index}" for index, expression in enumerate([*identity, *counts])]
        sql = f"SELECT {', '.join(aliased)} FROM gpu WHERE {' AND '.join(where or ['TRUE'])} GROUP BY 1, 2, 3, 4"  # noqa: S608
        samples = 0
        gpus: set[tuple[str, ...]] = set()
        hosts: set[str] = set()
        for row in self._rows(sql, bound):
            uuid, hostname, device, instance = (tag or "" for tag in row[:4])
            samples += sum(row[4:])
            gpus.add(_identity(uuid, hostname, device, instance))
            hosts.add(hostname)
        return Summary(samples, len(gpus - {NO_GPU}), len(hosts - {""}))

    def _schema(self) -> _Schema:
        tags, metrics = [], []
        for name, kind in self._rows(_SCHEMA_SQL, {}):
            if kind in _NUMBERS:
                metrics.append(name)
            elif name != columns.TIME:
                tags.append(name)
        return _Schema(tags, metrics)

    def _refresh_roster(self, schema: _Schema) -> None:
        """Take in the GPUs that were seen since the last time; the first time, those of all that is stored."""
        since = None if self._roster_ns is None else self._roster_ns - _OVERLAP_NS
        try:
            self._take_in(schema, since)
        except StoreError as error:
            if since is not None or _TOO_MUCH not in str(error):
                raise
            # InfluxDB 3 Core opens a bounded number of files for a query: begin with a day that there is for sure.
            newest = next(self._rows(f"SELECT {_TIME_NS} FROM gpu ORDER BY time DESC LIMIT 1", {}), None)  # noqa: S608
            if newest is not None:
                self._take_in(schema, newest[0] - 24 * _OVERLAP_NS)

    def _take_in(self, schema: _Schema, since_ns: int | None) -> None:
        where, bound = _time_range(since_ns, None)
        names = ("uuid", "hostname", "device", columns.INSTANCE_ID, "gpu", "model", "container", "pod", "namespace")
        tags = ", ".join(f"{schema.tag(name)} AS t{index}" for index, name in enumerate(names))
        sql = (
            f"SELECT arrow_cast(max(time), 'Int64') AS seen, {tags} FROM gpu WHERE {' AND '.join(where or ['TRUE'])} "  # noqa: S608
            "GROUP BY 2, 3, 4, 5, 6, 7, 8, 9, 10"
        )
        for time_ns, *found in self._rows(sql, bound):
            uuid, hostname, device, instance, index, model, container, pod, namespace = (tag or "" for tag in found)
            identity = _identity(uuid, hostname, device, instance)
            known = self._roster.get(identity)
            self._roster_ns = max(self._roster_ns or time_ns, time_ns)
            if identity != NO_GPU and (known is None or known.last_seen_ns <= time_ns):
                self._roster[identity] = Gpu(
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

    def _rows(self, sql: str, bound: Mapping[str, str | float]) -> Iterator[tuple[Any, ...]]:
        """Give the rows of an answer, as they come."""
        try:
            reader = self._asking.query(sql, bound)
        except StoreError as error:
            if _NOT_THERE in str(error):
                return
            raise
        with self._asking.telling_query_errors():
            for batch in reader:
                yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


def _samples(rows: Iterator[tuple[Any, ...]], tags: Sequence[str], metrics: Sequence[str]) -> Iterator[Sample]:
    for time_ns, *values in rows:
        texts = {name: text for name, text in zip(tags, values, strict=False) if text is not None}
        yield from _unpivot(time_ns, texts, metrics, values[len(tags) :])


def _time_range(start_ns: int | None, end_ns: int | None) -> tuple[list[str], dict[str, Any]]:
    """Return conditions for `start_ns <= time < end_ns`, and their parameters."""
    where: list[str] = []
    bound: dict[str, Any] = {}
    for name, sign, time_ns in (("start", ">=", start_ns), ("end", "<", end_ns)):
        if time_ns is not None:
            where.append(f"time {sign} to_timestamp_nanos(${name}_ns)")
            bound[f"{name}_ns"] = max(-(1 << 63), min(time_ns, (1 << 63) - 1))
    return where, bound


def _quoted(name: str) -> str:
    escaped = name.replace('"', '""')
    return f'"{escaped}"'
