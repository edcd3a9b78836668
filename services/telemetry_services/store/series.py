"""A series, read slice after slice: from samples, and from rollups where they hold the same.

A rollup's windows are used where they lie within the range and hold every sample of the parts that they were made of.
Samples of all other parts are added to them, and so are those between a bound of the range and the next whole window.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from telemetry_services.store import columns, series_sql
from telemetry_services.store.base import KEY_COLUMNS, SeriesQuery
from telemetry_services.store.parts import Part
from telemetry_services.store.series_sql import Bound, Span, Times
from telemetry_services.store.snapshot import Rollup, Snapshot, new_context, reading_errors, streamed

if TYPE_CHECKING:
    import datafusion

_FIRST_SLICE_CELLS: Final = 2 << 20
_MAX_SLICE_CELLS: Final = 32 << 20
_FEW_GPUS: Final = 0.05
"""Part of all GPUs that are asked for by name, up to which their rows are read first."""
_BYTES_PER_ROW: Final = 8  # where a part does not tell its rows

SAMPLE_TIMES: Final = Times(columns.TIME, 1000, columns.NANOS)
_ROLLUP_TIMES: Final = Times(columns.TIME, 1000)


@dataclass(frozen=True, slots=True)
class _Source:
    """Parts of one kind, and the range of time in which they are asked."""

    name: str
    first_ns: int
    end_ns: int
    parts: Sequence[Part]
    dataset: Callable[[Sequence[Part]], ds.Dataset]
    step_ns: int = 1
    """How long the time of a row lasts: a rollup's window."""

    @property
    def is_rollup(self) -> bool:
        return self.step_ns > 1

    def between(self, first_ns: int, end_ns: int) -> list[Part]:
        first_ns, end_ns = max(first_ns, self.first_ns), min(end_ns, self.end_ns)
        return [part for part in self.parts if lies_between(part, first_ns, end_ns)]


class Series:
    """One series of a snapshot.

    Args:
        metrics: those asked for that there are, at least one.
        uuids: every uuid that is stored; None where no GPU is asked for by name.
        answer: the schema of what is given.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        query: SeriesQuery,
        metrics: Sequence[str],
        uuids: Collection[str] | None,
        answer: pa.Schema,
    ) -> None:
        self._query = query
        self._metrics = metrics
        self._uuids = uuids
        self._answer = answer
        self._sources = list(self._choose(snapshot))
        tags = {tag for tag, names in series_sql.tags_of(query.filters) if names}
        self._needed = {columns.TIME, columns.NANOS, "uuid", *KEY_COLUMNS[query.group_by], *tags, *metrics} | {
            f"{name}_{kind}" for name in metrics for kind in ("count", "sum", "min", "max")
        }

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Give the rows, in order, slice after slice."""
        query = self._query
        remaining = query.limit
        first_ns, end_ns = series_sql.first_and_end(query)
        for low, high in series_sql.slices(
            self._spans(),
            first_ns,
            end_ns,
            query.window_ns or 1,
            descending=query.descending,
            first_weight=_FIRST_SLICE_CELLS,
            weight=_MAX_SLICE_CELLS,
        ):
            if remaining == 0:
                return
            for batch in self._slice(low, high, remaining):
                if batch.num_rows:
                    yield batch
                if remaining is not None:
                    remaining -= batch.num_rows

    def _choose(self, snapshot: Snapshot) -> Iterator[_Source]:
        query = self._query
        first_ns, end_ns = series_sql.first_and_end(query)
        parts = self._of_gpus(snapshot.parts)
        rollup = _rollup_for(query, snapshot.rollups)
        if rollup is None:
            yield _Source("samples", first_ns, end_ns, parts, snapshot.dataset)
            return
        step = rollup.step_ns
        first_whole, end_whole = -(-first_ns // step) * step, end_ns // step * step
        if first_whole >= end_whole:
            yield _Source("samples", first_ns, end_ns, parts, snapshot.dataset)
            return
        inside = [part for part in parts if rollup.holds(part)]
        yield _Source("rollup", first_whole, end_whole, self._of_gpus(rollup.parts), rollup.dataset, step)
        yield _Source("others", first_ns, end_ns, [p for p in parts if not rollup.holds(p)], snapshot.dataset)
        yield _Source("before", first_ns, first_whole, inside, snapshot.dataset)
        yield _Source("behind", end_whole, end_ns, inside, snapshot.dataset)

    def _of_gpus(self, parts: Sequence[Part]) -> list[Part]:
        names = self._query.filters.gpus
        if self._share_of_gpus() == 1.0:
            return list(parts)
        return [part for part in parts if part.may_hold(names)]

    def _share_of_gpus(self) -> float:
        """Return about which part of the rows is of the GPUs that are asked for by name."""
        names = self._query.filters.gpus
        if not names or not self._uuids or any(name not in self._uuids for name in names):
            return 1.0
        return len(names) / len(self._uuids)

    def _spans(self) -> Iterator[Span]:
        width = len(self._metrics) + len(KEY_COLUMNS[self._query.group_by]) + 1
        share = self._share_of_gpus()
        for source in self._sources:
            for part in source.between(source.first_ns, source.end_ns):
                rows = part.size_bytes // _BYTES_PER_ROW if part.rows is None else part.rows
                yield Span(part.min_us * 1000, part.max_us * 1000 + 999, int(rows * width * share))

    def _slice(self, low: int, high: int, limit: int | None) -> Iterator[pa.RecordBatch]:
        query, metrics, bound = self._query, self._metrics, Bound()
        filters = series_sql.conditions(query.filters, self._uuids, bound)
        context = new_context()
        chosen = [(source, parts) for source in self._sources if (parts := source.between(low, high))]
        if not chosen:
            return
        statements = []
        partial = query.aggregate in series_sql.MERGEABLE and len(chosen) + chosen[0][0].is_rollup > 1
        with reading_errors():
            for source, parts in chosen:
                self._register(context, source, parts, low, high)
                times = _ROLLUP_TIMES if source.is_rollup else SAMPLE_TIMES
                where = [*_range(max(low, source.first_ns), min(high, source.end_ns), times, bound), *filters]
                make = (
                    series_sql.partial_from_rollup
                    if source.is_rollup
                    else series_sql.partial_from_samples
                    if partial
                    else series_sql.from_samples
                )
                statements.append(make(query, metrics, source.name, where, times))
            sql = series_sql.merged(query, metrics, statements) if partial else statements[0]
            answer = context.sql(series_sql.ordered(query, sql, bound, limit), param_values=bound.values)
        for batch in streamed(answer):
            yield series_sql.typed(batch, self._answer)

    def _register(
        self, context: datafusion.SessionContext, source: _Source, parts: Sequence[Part], low: int, high: int
    ) -> None:
        """Make some parts a table of the context.

        Of few GPUs the rows are read at once: pyarrow leaves out what is not theirs, in half the time that it takes
        DataFusion to ask it for a batch at a time.
        """
        dataset = source.dataset(parts)
        if self._share_of_gpus() > _FEW_GPUS:
            context.register_dataset(source.name, dataset)
            return
        names = [name for name in dataset.schema.names if name in self._needed]
        first_us, end_us = max(low, source.first_ns) // 1000, -(-min(high, source.end_ns) // 1000)
        time = pc.field(columns.TIME)
        theirs = pc.field("uuid").isin(pa.array(sorted(set(self._query.filters.gpus)), pa.string()))
        theirs &= (time >= pa.scalar(first_us, columns.TIME_TYPE)) & (time <= pa.scalar(end_us, columns.TIME_TYPE))
        rows = dataset.to_table(names, filter=theirs, use_threads=False)
        batches = rows.to_batches() or [pa.RecordBatch.from_pylist([], rows.schema)]
        context.register_record_batches(source.name, [batches])


def lies_between(part: Part, first_ns: int, end_ns: int) -> bool:
    """Tell whether rows of a part can lie in `first_ns <= time < end_ns`."""
    return first_ns < end_ns and first_ns <= part.max_us * 1000 + 999 and part.min_us * 1000 < end_ns


def _rollup_for(query: SeriesQuery, rollups: Sequence[Rollup]) -> Rollup | None:
    """Return the rollup of the longest windows that the query's windows are made of, if any."""
    if query.window_ns is None or query.aggregate not in series_sql.MERGEABLE:
        return None
    fitting = [rollup for rollup in rollups if query.window_ns % rollup.step_ns == 0 and rollup.parts]
    return max(fitting, key=lambda rollup: rollup.step_ns, default=None)


def _range(first_ns: int, end_ns: int, times: Times, bound: Bound) -> Iterator[str]:
    """Return conditions for `first_ns <= time < end_ns`; bounds that leave nothing out have none."""
    for sign, time_ns, far in ((">", first_ns, series_sql.MIN_NS), ("<", end_ns, series_sql.MAX_NS)):
        if time_ns == far:
            continue
        us, nanos = divmod(time_ns, 1000)
        at: Any = bound.add(pa.scalar(us, columns.TIME_TYPE))
        if times.nanos is None or nanos == 0:
            yield f"{times.column} {'>=' if sign == '>' else '<'} {at}"
        else:
            yield f"{times.column} {sign}= {at}"
            yield f"({times.column} {sign} {at} OR {times.nanos} {'>=' if sign == '>' else '<'} {bound.add(nanos)})"
