"""The questions that a store answers, asked of InfluxDB 3: in SQL, over Arrow Flight, with bound parameters.

The SQL holds no text of a caller (but for `sql`, where it is all): what callers give is bound, and column names come
from the table's own schema, quoted. A column is a tag or a metric by its type, as in the other stores. A database or
table that is not there reads as empty. Long questions are asked piece after piece of time, see `influx_pieces`; points
that are written meanwhile may be in the later pieces.

What is known of each GPU is kept, and each question for it reads what came since, and the hour before that: a point
that comes later than others by more than an hour changes it only after a restart.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from typing import Any, Final

import pyarrow as pa

from telemetry_services.store import columns, influx_sql, series_sql
from telemetry_services.store.base import ALL_GPUS, Filters, Gpu, Retention, Sample, SeriesQuery, Summary
from telemetry_services.store.errors import StoreError, StoreQueryError
from telemetry_services.store.gpus import NO_GPU, FromGpus, identity
from telemetry_services.store.influx_client import InfluxClient
from telemetry_services.store.influx_pieces import Pieces
from telemetry_services.store.influx_sql import Schema
from telemetry_services.store.latest import Latest, newest_schema
from telemetry_services.store.samples import unpivot
from telemetry_services.store.series_sql import MAX_NS, MIN_NS, Bound

LOOK_BACK_NS: Final = 24 * 3_600 * 10**9
"""How long before the newest point the first question for last values looks."""
OVERLAP_NS: Final = 3_600 * 10**9
"""How much later than others a point may come and still be seen by the next ones."""

_NOT_THERE: Final = "database not found"


class InfluxQueries(FromGpus):
    """The reading side of the store."""

    def __init__(self, client: InfluxClient) -> None:
        self._asking = client
        self._pieces = Pieces(self._batches, self._first_time)
        self._known_lock = threading.Lock()
        self._known = Latest()
        self._gpus_until_ns: int | None = None
        self._values_until_ns: int | None = None

    def gpus(self) -> list[Gpu]:
        schema = self._schema()
        with self._known_lock:
            self._refresh_gpus(schema)
            return self._known.gpus()

    def latest(self, metrics: Collection[str] = (), filters: Filters = ALL_GPUS) -> pa.Table:
        series_sql.check_filters(filters)
        schema = self._schema()
        with self._known_lock:
            self._refresh_gpus(schema)
            self._refresh_values(schema)
            return self._known.table(metrics, filters)

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
        newest_first = start_ns is None and end_ns is None
        remaining = limit

        def question(first_ns: int, end_ns: int) -> tuple[str, Bound]:
            return influx_sql.samples(
                schema, chosen, gpu, hostname, first_ns, end_ns, remaining, descending=newest_first
            )

        def samples() -> Iterator[Sample]:
            nonlocal remaining
            first_ns, last_ns = _range(start_ns, end_ns)
            for batch in self._pieces.read(question, first_ns, last_ns, descending=newest_first):
                remaining -= batch.num_rows  # each gives one sample at least
                for time_ns, *values in _rows_of(batch):
                    texts = {name: text for name, text in zip(schema.tags, values, strict=False) if text is not None}
                    yield from unpivot(time_ns, texts, chosen, values[len(schema.tags) :])
                if remaining <= 0:
                    return

        return islice(samples(), limit)

    def series(self, query: SeriesQuery) -> pa.RecordBatchReader:
        series_sql.check(query)
        schema = self._schema()
        chosen = series_sql.chosen_of(query, schema.metrics)
        answer = series_sql.answer_schema(query, chosen)
        batches = self._series(query, schema, chosen, answer) if chosen and query.limit != 0 else iter(())
        return pa.RecordBatchReader.from_batches(answer, batches)

    def sql(self, query: str) -> pa.RecordBatchReader:
        influx_sql.check_query(query)
        try:
            reader = self._asking.query(query, {})
        except StoreError as error:
            if _NOT_THERE in str(error):
                raise StoreQueryError("not a query that can be answered yet: nothing is stored") from error
            raise

        def batches() -> Iterator[pa.RecordBatch]:
            with self._asking.telling_query_errors():
                yield from reader

        return pa.RecordBatchReader.from_batches(reader.schema, batches())

    def summary(self, start_ns: int | None = None, end_ns: int | None = None) -> Summary:
        schema = self._schema()
        samples = 0
        gpus: set[tuple[str, ...]] = set()
        hosts: set[str] = set()
        first_ns, last_ns = _range(start_ns, end_ns)
        if schema.metrics:
            for batch in self._pieces.split(lambda low, high: influx_sql.counts(schema, low, high), first_ns, last_ns):
                for row in _rows_of(batch):
                    uuid, hostname, device, instance = row[:4]
                    samples += sum(row[4:])
                    gpus.add(identity(uuid, hostname, device, instance))
                    hosts.add(hostname)
        return Summary(samples, len(gpus - {NO_GPU}), len(hosts - {""}))

    def maintain(self, retention: Retention) -> bool:  # noqa: ARG002 (part of the interface)
        return False  # InfluxDB looks after itself, and has a retention of its own

    def _series(
        self, query: SeriesQuery, schema: Schema, metrics: Sequence[str], answer: pa.Schema
    ) -> Iterator[pa.RecordBatch]:
        remaining = query.limit

        def question(first_ns: int, end_ns: int) -> tuple[str, Bound]:
            return influx_sql.series(query, schema, metrics, first_ns, end_ns, remaining)

        first_ns, end_ns = series_sql.first_and_end(query)
        for batch in self._pieces.read(
            question, first_ns, end_ns, step_ns=query.window_ns or 1, descending=query.descending
        ):
            if remaining is not None:
                remaining -= batch.num_rows
            yield series_sql.typed(batch, answer)
            if remaining == 0:
                return

    def _refresh_gpus(self, schema: Schema) -> None:
        """Take in the GPUs that were seen since the last time; the first time, those of all that is stored."""
        since_ns = MIN_NS if self._gpus_until_ns is None else self._gpus_until_ns - OVERLAP_NS
        until_ns = self._take_in(schema, (), since_ns)
        if until_ns is not None:
            self._gpus_until_ns = until_ns

    def _refresh_values(self, schema: Schema) -> None:
        """Take in the values that came since the last time; the first time, those of `LOOK_BACK_NS`."""
        if self._values_until_ns is not None:
            since_ns = self._values_until_ns - OVERLAP_NS
        elif self._gpus_until_ns is not None:
            since_ns = self._gpus_until_ns - LOOK_BACK_NS
        else:
            return
        until_ns = self._take_in(schema, sorted(schema.metrics), since_ns)
        if until_ns is not None:
            self._values_until_ns = until_ns

    def _take_in(self, schema: Schema, metrics: Sequence[str], since_ns: int) -> int | None:
        """Take in what there is from a time on, and return up to when that is whole; None: there is nothing."""
        if not schema.tags:
            return None
        now_ns = time.time_ns()
        newest: list[int] = []
        taken = newest_schema(metrics)
        for batch in self._pieces.split(
            lambda low, high: influx_sql.newest(schema, metrics, low, high), max(since_ns, MIN_NS), MAX_NS
        ):
            rows = pa.Table.from_batches([batch]).rename_columns(taken.names).cast(taken)
            self._known.take_in(rows, metrics)
            # A point from the future, of a clock that is wrong, must not hide those that come by then.
            newest += [min(seen, now_ns) for seen in rows["seen"].to_pylist()]
        return max(newest, default=None)

    def _schema(self) -> Schema:
        return Schema.of(row for batch in self._batches(influx_sql.COLUMNS, Bound()) for row in _rows_of(batch))

    def _first_time(self, first_ns: int, end_ns: int, *, descending: bool) -> int | None:
        """Return the time of the first point within a range, or of the last."""

        def question(low_ns: int, high_ns: int) -> tuple[str, Bound]:
            return influx_sql.first_time(low_ns, high_ns, descending=descending)

        batches = self._pieces.split(question, first_ns, end_ns, descending=descending)
        return next((row[0] for batch in batches for row in _rows_of(batch)), None)

    def _batches(self, sql: str, bound: Bound) -> Iterator[pa.RecordBatch]:
        """Give an answer as it comes."""
        try:
            reader = self._asking.query(sql, bound.values)
        except StoreError as error:
            if _NOT_THERE in str(error):
                return
            raise
        with self._asking.telling_query_errors():
            yield from reader


def _range(start_ns: int | None, end_ns: int | None) -> tuple[int, int]:
    """Return a range whose bounds int64 nanoseconds can say: nothing lies beyond them."""
    first_ns = MIN_NS if start_ns is None else min(max(start_ns, MIN_NS), MAX_NS)
    return first_ns, MAX_NS if end_ns is None else min(max(end_ns, MIN_NS), MAX_NS)


def _rows_of(batch: pa.RecordBatch) -> Iterator[tuple[Any, ...]]:
    return zip(*(column.to_pylist() for column in batch.columns), strict=True)
