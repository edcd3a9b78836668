"""Values over time: the SQL of a series, and the slices of time in which it is answered.

The SQL is DataFusion's, as both kinds of store speak it. It holds no text of a caller: names of metrics come from the
store's own schema, quoted; whatever else a caller gives is bound as a parameter.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import pyarrow as pa

from telemetry_services.store.base import KEY_COLUMNS, MAX_NAMES, MIN_WINDOW_NS, Aggregate, Filters, SeriesQuery
from telemetry_services.store.errors import StoreQueryError

MERGEABLE: Final[frozenset[Aggregate]] = frozenset({"mean", "min", "max"})
"""What can be answered from rollups: the result for a window follows from those of its parts."""

MAX_WINDOW_NS: Final = 366 * 86_400 * 1_000_000_000
MIN_NS: Final = -(1 << 63)
MAX_NS: Final = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class Times:
    """How a table keeps time.

    Attributes:
        column: the timestamp column.
        tick_ns: nanoseconds of its unit.
        nanos: column of the nanoseconds that `column` has no room for; None: it has room for all.
    """

    column: str = "time"
    tick_ns: int = 1
    nanos: str | None = None

    def window_ns(self, window_ns: int | None) -> str:
        """Return SQL for the begin of a time's window, in nanoseconds since the epoch; None: for the time itself."""
        if window_ns is None:
            exact = f"arrow_cast({self.column}, 'Int64') * {self.tick_ns}"
            return f"{exact} + {self.nanos}" if self.nanos else exact
        begin = f"date_bin(INTERVAL '{window_ns // 1000} microseconds', {self.column})"
        return f"arrow_cast(arrow_cast({begin}, 'Timestamp(Nanosecond, Some(\"UTC\"))'), 'Int64')"

    @property
    def order(self) -> str:
        """Return the columns that rows are sorted by, to be in the order of time."""
        return f"{self.column}, {self.nanos}" if self.nanos else self.column


@dataclass(slots=True)
class Bound:
    """The parameters of a statement, named as they come."""

    values: dict[str, Any] = field(default_factory=dict)

    def add(self, value: object) -> str:
        """Bind a value, and return what stands for it in the SQL."""
        name = f"p{len(self.values)}"
        self.values[name] = value
        return f"${name}"

    def within(self, column: str, values: Collection[str]) -> str:
        """Return a condition that `column` is one of `values`."""
        return f"{column} IN ({', '.join(self.add(value) for value in sorted(set(values)))})"


def check(query: SeriesQuery) -> None:
    """Refuse what cannot be answered.

    Raises:
        StoreQueryError: it says which argument, what is wrong with it and what is expected.
    """
    window = query.window_ns
    if window is not None and not (MIN_WINDOW_NS <= window <= MAX_WINDOW_NS and window % 1000 == 0):
        raise StoreQueryError(
            f"window: {window} ns; expected {MIN_WINDOW_NS} to {MAX_WINDOW_NS} ns (1 ms to 366 days), in whole "
            "microseconds"
        )
    if query.aggregate not in _AGGREGATES:
        raise StoreQueryError(f"aggregate: {query.aggregate!r}; expected one of {', '.join(_AGGREGATES)}")
    if query.group_by not in KEY_COLUMNS:
        raise StoreQueryError(f"group_by: {query.group_by!r}; expected one of {', '.join(KEY_COLUMNS)}")
    if query.limit is not None and query.limit < 0:
        raise StoreQueryError(f"limit: {query.limit}; expected 0 or more rows, or none for all")
    if query.start_ns is not None and query.end_ns is not None and query.start_ns > query.end_ns:
        raise StoreQueryError(f"range: it starts at {query.start_ns} ns, after its end at {query.end_ns} ns; swap them")
    if query.after is not None and len(query.after.key) != len(KEY_COLUMNS[query.group_by]):
        keys = ", ".join(KEY_COLUMNS[query.group_by]) or "nothing"
        raise StoreQueryError(f"after: a cursor with {len(query.after.key)} keys; expected those of {keys}")
    check_filters(query.filters)


def check_filters(filters: Filters) -> None:
    """Refuse filters that name too many.

    Raises:
        StoreQueryError: one names more than `MAX_NAMES`.
    """
    for name in Filters.__slots__:
        if len(getattr(filters, name)) > MAX_NAMES:
            raise StoreQueryError(
                f"filter {name}: {len(getattr(filters, name)):,} names; expected at most {MAX_NAMES:,}"
            )


def chosen_of(query: SeriesQuery, known: Collection[str]) -> list[str]:
    """Return the metrics that a query asks for and that there are, in its order; all are sorted."""
    return [name for name in dict.fromkeys(query.metrics or sorted(known)) if name in known]


def answer_schema(query: SeriesQuery, metrics: Sequence[str]) -> pa.Schema:
    """Return the schema of a series of these metrics."""
    return pa.schema(
        [
            ("time", pa.timestamp("ns", tz="UTC")),
            *((name, pa.string()) for name in KEY_COLUMNS[query.group_by]),
            *((name, pa.float64()) for name in metrics),
        ]
    )


def typed(batch: pa.RecordBatch, answer: pa.Schema) -> pa.RecordBatch:
    """Return what the SQL below answers as a piece of the series."""
    pairs = zip(batch.columns, answer.types, strict=True)
    return pa.record_batch([column if column.type == kind else column.cast(kind) for column, kind in pairs], answer)


def first_and_end(query: SeriesQuery) -> tuple[int, int]:
    """Return the range that a query asks for, `first <= time < end`, in nanoseconds; one that is open ends far away."""
    first = MIN_NS if query.start_ns is None else max(query.start_ns, MIN_NS)
    end = MAX_NS if query.end_ns is None else min(query.end_ns, MAX_NS)
    if query.after is not None:  # whole windows are left out, so that the rows of others do not change
        at, window = query.after.time_ns, query.window_ns or 1
        if query.descending:
            end = min(end, at + window)
        else:
            first = max(first, at)
    return first, end


def conditions(filters: Filters, known_uuids: Collection[str] | None, bound: Bound) -> list[str]:
    """Return the conditions of `filters`, to be joined by AND.

    Args:
        known_uuids: every uuid that is stored, so that other names of GPUs are known to be device ids; None: not known.
    """
    where = []
    if filters.gpus:
        if known_uuids is None:
            where.append(f"({bound.within('uuid', filters.gpus)} OR {bound.within('device', filters.gpus)})")
        else:
            uuids = [name for name in filters.gpus if name in known_uuids]
            devices = [name for name in filters.gpus if name not in known_uuids]
            either = [bound.within(column, names) for column, names in (("uuid", uuids), ("device", devices)) if names]
            where.append(f"({' OR '.join(either)})")
    where += [bound.within(column, names) for column, names in tags_of(filters) if names]
    return where


def tags_of(filters: Filters) -> Sequence[tuple[str, Collection[str]]]:
    """Return the tag that each filter but `gpus` is of, and its names."""
    return (
        ("hostname", filters.hostnames),
        ("namespace", filters.namespaces),
        ("pod", filters.pods),
        ("model", filters.models),
    )


def from_samples(query: SeriesQuery, metrics: Sequence[str], table: str, where: Sequence[str], times: Times) -> str:
    """Return SQL that aggregates the samples of a table: `t` (ns), keys `k0`, ..., values `m0`, ..."""
    values = [f"{_AGGREGATES[query.aggregate].format(m=quoted(name), order=times.order)}" for name in metrics]
    return _grouped(query, metrics, table, where, times, [f"{sql} AS m{at}" for at, sql in enumerate(values)])


def partial_from_samples(
    query: SeriesQuery, metrics: Sequence[str], table: str, where: Sequence[str], times: Times
) -> str:
    """Return SQL that aggregates samples so far that it can be merged by `merged`."""
    values = []
    for at, name in enumerate(map(quoted, metrics)):
        values += (
            [f"sum({name}) AS s{at}", f"count({name}) AS c{at}"]
            if query.aggregate == "mean"
            else [f"{query.aggregate}({name}) AS m{at}"]
        )
    return _grouped(query, metrics, table, where, times, values)


def partial_from_rollup(
    query: SeriesQuery, metrics: Sequence[str], table: str, where: Sequence[str], times: Times
) -> str:
    """Return SQL that does the same from a rollup."""
    values = []
    for at, name in enumerate(metrics):
        if query.aggregate == "mean":
            values += [f"sum({quoted(f'{name}_sum')}) AS s{at}", f"sum({quoted(f'{name}_count')}) AS c{at}"]
        else:
            values.append(f"{query.aggregate}({quoted(f'{name}_{query.aggregate}')}) AS m{at}")
    return _grouped(query, [f"{name}_min" for name in metrics], table, where, times, values)


def merged(query: SeriesQuery, metrics: Sequence[str], sources: Sequence[str]) -> str:
    """Return SQL that merges partial results."""
    keys = [f"k{at}" for at in range(len(KEY_COLUMNS[query.group_by]))]
    values = [
        f"sum(s{at}) / sum(c{at}) AS m{at}" if query.aggregate == "mean" else f"{query.aggregate}(m{at}) AS m{at}"
        for at in range(len(metrics))
    ]
    return f"SELECT {', '.join(['t', *keys, *values])} FROM ({' UNION ALL '.join(sources)}) GROUP BY {_by(keys)}"  # noqa: S608


def ordered(query: SeriesQuery, source: str, bound: Bound, limit: int | None) -> str:
    """Return SQL that gives the rows of `source` behind the query's cursor, in its order."""
    keys = [f"k{at}" for at in range(len(KEY_COLUMNS[query.group_by]))]
    where = ""
    if query.after is not None:
        at = bound.add(query.after.time_ns)
        behind = [f"t {'<' if query.descending else '>'} {at}"]
        equal = [f"t = {at}"]
        for key, value in zip(keys, query.after.key, strict=True):
            told = bound.add(value)
            behind.append(" AND ".join([*equal, f"{key} > {told}"]))
            equal.append(f"{key} = {told}")
        where = f" WHERE {' OR '.join(f'({condition})' for condition in behind)}"
    order = ", ".join([f"t {'DESC' if query.descending else 'ASC'}", *keys])
    end = "" if limit is None else f" LIMIT {int(limit)}"
    return f"SELECT * FROM ({source}){where} ORDER BY {order}{end}"  # noqa: S608


def _grouped(
    query: SeriesQuery, given: Sequence[str], table: str, where: Sequence[str], times: Times, values: Sequence[str]
) -> str:
    keys = [f"coalesce({quoted(name)}, '') AS k{at}" for at, name in enumerate(KEY_COLUMNS[query.group_by])]
    some = f"coalesce({', '.join(map(quoted, given))}) IS NOT NULL"
    return (
        f"SELECT {', '.join([f'{times.window_ns(query.window_ns)} AS t', *keys, *values])} FROM {table} "  # noqa: S608
        f"WHERE {' AND '.join([*where, some])} GROUP BY {_by(keys)}"
    )


def _by(keys: Sequence[str]) -> str:
    return ", ".join(str(at + 1) for at in range(len(keys) + 1))


_AGGREGATES: Final[Mapping[Aggregate, str]] = {
    "mean": "avg({m})",
    "min": "min({m})",
    "max": "max({m})",
    "last": "last_value({m} ORDER BY {order}) FILTER (WHERE {m} IS NOT NULL)",
    # The form that InfluxDB's DataFusion takes too, whichever version it is of.
    "p95": "approx_percentile_cont({m}, 0.95)",
}


def quoted(name: str) -> str:
    """Return a column's name as SQL."""
    escaped = name.replace('"', '""')
    return f'"{escaped}"'


@dataclass(frozen=True, slots=True)
class Span:
    """Something to be read, and the time between which it lies.

    Attributes:
        first_ns, last_ns: both inclusive.
        weight: what it costs to read.
    """

    first_ns: int
    last_ns: int
    weight: int


def slices(
    spans: Iterable[Span], first_ns: int, end_ns: int, step_ns: int, *, descending: bool, first_weight: int, weight: int
) -> Iterator[tuple[int, int]]:
    """Cut a range of time so that what lies in each slice weighs little, and give the slices in order.

    Cuts are at multiples of `step_ns`, so that no window is in two slices. Spans may overlap; one that is in several
    slices counts in the first.

    Args:
        first_weight: at most so much in the first slice, if it can be cut so; the next ones may weigh double, up to
            `weight`.
    """
    if descending:
        # On the mirrored line x = -t - 1, windows begin at multiples of the step as well.
        mirrored = [Span(-span.last_ns - 1, -span.first_ns - 1, span.weight) for span in spans]
        for low, high in slices(
            mirrored, -end_ns, -first_ns, step_ns, descending=False, first_weight=first_weight, weight=weight
        ):
            yield -high, -low
        return
    ahead = sorted((span for span in spans if span.last_ns >= first_ns and span.first_ns < end_ns), key=_first)
    if not ahead:
        return
    begin, bound, gathered = first_ns, first_weight, 0
    for span in ahead:
        cut = span.first_ns // step_ns * step_ns
        if gathered and gathered + span.weight > bound and cut > begin:
            yield begin, cut
            begin, bound, gathered = cut, min(bound * 2, weight), 0
        gathered += span.weight
    yield begin, end_ns


def _first(span: Span) -> int:
    return span.first_ns
