"""The SQL that InfluxDB 3 is asked in, over one table, `gpu`, of which only the columns written so far are there."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from telemetry_services.store import columns, series_sql
from telemetry_services.store.base import SeriesQuery
from telemetry_services.store.errors import StoreQueryError
from telemetry_services.store.latest import TAGS
from telemetry_services.store.series_sql import MAX_NS, MIN_NS, Bound, Times, quoted

COLUMNS: Final = (
    "SELECT column_name, data_type FROM information_schema.columns WHERE table_schema = 'iox' AND table_name = 'gpu'"
)
_FLOAT: Final = "Float64"
_NUMBERS: Final = (_FLOAT, "Int64", "UInt64")
_TIME_NS: Final = "arrow_cast(time, 'Int64')"

_BEGINNINGS: Final = ("select", "with", "values", "show", "explain", "describe")
_TOKEN: Final = re.compile(r"""\s+|--[^\n]*|/\*.*?\*/|'(?:[^']|'')*'|"(?:[^"]|"")*"|\w+|\*/|.""", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Schema:
    """The columns that there are, but for the time.

    Attributes:
        metrics: the type of each.
    """

    tags: list[str]
    metrics: dict[str, str]

    @classmethod
    def of(cls, columns_and_types: Iterable[tuple[str, str]]) -> Schema:
        """Take the answer to `COLUMNS`."""
        tags: list[str] = []
        metrics: dict[str, str] = {}
        for name, kind in columns_and_types:
            if kind in _NUMBERS:
                metrics[name] = kind
            elif name != columns.TIME:
                tags.append(name)
        return cls(tags, metrics)

    def tag(self, name: str) -> str:
        """The column of a tag, or nothing where the table has none."""
        return quoted(name) if name in self.tags else "CAST(NULL AS VARCHAR)"

    def text(self, name: str) -> str:
        """The same, '' for none."""
        return f"coalesce({self.tag(name)}, '')"

    def metric(self, name: str) -> str:
        """The column of a metric, as a float; other programs may have written integers."""
        return quoted(name) if self.metrics[name] == _FLOAT else f"CAST({quoted(name)} AS DOUBLE)"


def samples(
    schema: Schema,
    metrics: Sequence[str],
    gpu: str,
    hostname: str | None,
    first_ns: int,
    end_ns: int,
    limit: int,
    *,
    descending: bool,
) -> tuple[str, Bound]:
    """Ask for rows of a GPU: time (ns), tags, metrics."""
    bound = Bound()
    where = _between(first_ns, end_ns, bound)
    named = bound.add(gpu)
    where.append(f"({schema.tag('uuid')} = {named} OR {schema.tag('device')} = {named})")
    where.append(f"coalesce({', '.join(map(schema.metric, metrics))}) IS NOT NULL")
    if hostname is not None:
        where.append(f"{schema.tag('hostname')} = {bound.add(hostname)}")
    selected = [_TIME_NS, *map(quoted, schema.tags), *map(schema.metric, metrics)]
    order = f"time {'DESC' if descending else 'ASC'}, {schema.tag('uuid')}"
    return f"{_select(selected)} FROM gpu {_where(where)} ORDER BY {order} LIMIT {int(limit)}", bound


def series(
    query: SeriesQuery, schema: Schema, metrics: Sequence[str], first_ns: int, end_ns: int, limit: int | None
) -> tuple[str, Bound]:
    """Ask for a piece of a series, as `series_sql` gives it."""
    bound = Bound()
    tags = [f"{schema.tag(name)} AS {quoted(name)}" for name in TAGS]
    values = [f"{schema.metric(name)} AS {quoted(name)}" for name in metrics]
    inside = _where(_between(first_ns, end_ns, bound))
    table = f"(SELECT {', '.join(['time', *tags, *values])} FROM gpu {inside}) AS gpu"  # noqa: S608
    where = series_sql.conditions(query.filters, None, bound)
    return series_sql.ordered(
        query, series_sql.from_samples(query, metrics, table, where, Times()), bound, limit
    ), bound


def newest(schema: Schema, metrics: Sequence[str], first_ns: int, end_ns: int) -> tuple[str, Bound]:
    """Ask for the newest of each GPU, in the columns of `latest.newest_schema`."""
    bound = Bound()
    uuid, device = schema.text("uuid"), schema.text("device")
    where = [*_between(first_ns, end_ns, bound), f"({uuid} <> '' OR {device} <> '')"]
    selected = [f"last_value({schema.text(name)} ORDER BY time)" for name in TAGS]
    selected.append(_ns("max(time)"))
    for name in metrics:
        there = f"FILTER (WHERE {quoted(name)} IS NOT NULL)"
        selected += [f"last_value({schema.metric(name)} ORDER BY time) {there}", _ns(f"max(time) {there}")]
    by = [uuid, schema.text(columns.INSTANCE_ID)]
    by += [f"CASE WHEN {uuid} = '' THEN {schema.text(name)} ELSE '' END" for name in ("hostname", "device")]
    return f"{_select(selected)} FROM gpu {_where(where)} GROUP BY {', '.join(by)}", bound


def counts(schema: Schema, first_ns: int, end_ns: int) -> tuple[str, Bound]:
    """Ask for the number of values by uuid, hostname, device and instance, and, behind those, metric."""
    bound = Bound()
    by = [schema.text(name) for name in ("uuid", "hostname", "device", columns.INSTANCE_ID)]
    selected = [*by, *(f"count({quoted(name)})" for name in schema.metrics)]
    return f"{_select(selected)} FROM gpu {_where(_between(first_ns, end_ns, bound))} GROUP BY 1, 2, 3, 4", bound


def first_time(first_ns: int, end_ns: int, *, descending: bool) -> tuple[str, Bound]:
    """Ask for the first time of all, or the last."""
    bound = Bound()
    order = f"ORDER BY time {'DESC' if descending else 'ASC'} LIMIT 1"
    return f"{_select([_TIME_NS])} FROM gpu {_where(_between(first_ns, end_ns, bound))} {order}", bound


def check_query(query: str) -> None:
    """Refuse what is not one query. InfluxDB refuses writes itself: this says so sooner, and does not rest on it.

    Raises:
        StoreQueryError: it says what else was found.
    """
    tokens = [token for token in _TOKEN.findall(query) if not token.isspace() and not token.startswith(("--", "/*"))]
    while tokens and tokens[-1] == ";":
        tokens.pop()
    if ";" in tokens:
        raise StoreQueryError("not a query that can be answered: several statements; give one")
    if "*/" in tokens:
        raise StoreQueryError("not a query that can be answered: a comment within a comment; leave it out")
    words = [found for found in tokens if found != "("]
    if not words or words[0].lower() not in _BEGINNINGS:
        what = f"it begins with {words[0][:40]!r}" if words else "it is empty"
        raise StoreQueryError(f"not a query that can be answered: {what}; expected one of {', '.join(_BEGINNINGS)}")


def _between(first_ns: int, end_ns: int, bound: Bound) -> list[str]:
    """Return conditions for `first <= time < end`; bounds that leave nothing out have none."""
    where = []
    if first_ns > MIN_NS:
        where.append(f"time >= to_timestamp_nanos({bound.add(first_ns)})")
    if end_ns < MAX_NS:
        where.append(f"time < to_timestamp_nanos({bound.add(end_ns)})")
    return where


def _where(conditions: Sequence[str]) -> str:
    return f"WHERE {' AND '.join(conditions)}" if conditions else ""


def _select(expressions: Sequence[str]) -> str:
    """Select these by names of their own, as the same expression may be there twice."""
    return f"SELECT {', '.join(f'{expression} AS c{at}' for at, expression in enumerate(expressions))}"


def _ns(expression: str) -> str:
    return f"arrow_cast({expression}, 'Int64')"
