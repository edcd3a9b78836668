"""Rollups: what the samples of a GPU were within each minute and each hour, in Delta tables of their own.

    _rollup_1m/, _rollup_1h/    below the table of samples; readers of that one pass over names that begin with _
    date, time                  day and begin of the window
    hostname, gpu, uuid, ...    the tags of every GPU; other tags are not kept apart
    METRIC_count                int64: values that are not null
    METRIC_sum, _min, _max      float64

The guarantee: a rollup holds each sample of the files sealed up to a number, exactly once, and of no other file.
Sealed files do not change, and the number is an app transaction of the commit that brought the windows, so a crash or a
rival leaves both or neither. What was sealed after it, and what is not sealed yet (late rows too), a reader adds from
samples.
One window may be several rows, to be merged: counts and sums add up.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from telemetry_services.store import columns
from telemetry_services.store.delta_table import Layout, Reader, State, Table, dataset_of
from telemetry_services.store.durable import Files
from telemetry_services.store.merging import MAX_CELLS, Merge, chunks
from telemetry_services.store.parts import Part
from telemetry_services.store.snapshot import Rollup

SEALED: Final = "telemetry-broker/sealed"
"""App transaction of a rollup: the number up to which sealed files are in it."""

STEPS: Final = {"1m": 60, "1h": 3600}
"""Length of the windows, seconds, by name."""

_SCHEMA: Final = pa.schema([field for field in columns.BASE_SCHEMA if field.name != columns.NANOS])
_KINDS: Final = {"count": pa.int64(), "sum": pa.float64(), "min": pa.float64(), "max": pa.float64()}
_FAN_IN: Final = 4


@dataclass(frozen=True, slots=True)
class RollupTable:
    """One rollup of a table of samples."""

    name: str
    step_seconds: int
    table: Table
    reader: Reader

    def read(self, state: State, metrics: Sequence[str]) -> Rollup:
        """Return a state to be read, with columns for all of `metrics`."""
        schema = schema_of(metrics)
        return Rollup(
            self.name,
            self.step_seconds * 1_000_000_000,
            state.transactions[SEALED] or 0,
            state.parts,
            dataset_of(self.table.files, schema),
        )


def rollup_tables(files: Files) -> list[RollupTable]:
    """Return the rollups of the table in `files`, by growing length of their windows; nothing is made yet."""
    made = []
    for name, step in STEPS.items():
        layout = Layout(_SCHEMA, f"gpu_{name}", f"GPU telemetry: count, sum, min and max of every {name}")
        table = Table(files.within(f"_rollup_{name}"), layout)
        made.append(RollupTable(name, step, table, Reader(table, (SEALED,))))
    return made


def schema_of(metrics: Sequence[str]) -> pa.Schema:
    """Return the columns of a rollup of these metrics."""
    return pa.schema([*_SCHEMA, *(pa.field(f"{name}_{kind}", _KINDS[kind]) for name in metrics for kind in _KINDS)])


def windows_of(samples: pa.Table, step_seconds: int) -> pa.Table:
    """Return the windows of some samples."""
    metrics = columns.metrics(samples.schema)
    begin = pc.floor_temporal(samples[columns.TIME], step_seconds, "second")
    rows = samples.set_column(samples.schema.get_field_index(columns.TIME), columns.TIME, begin)
    values = [(name, kind) for name in metrics for kind in _KINDS]
    return _grouped(rows, values, [f"{name}_{kind}" for name, kind in values])


def merged(windows: pa.Table) -> pa.Table:
    """Merge rows of one window into one row."""
    how = {"count": "sum", "sum": "sum", "min": "min", "max": "max"}
    names = [f"{name}_{kind}" for name in metrics_of(windows.schema) for kind in _KINDS]
    return _grouped(windows, [(name, how[name.rpartition("_")[2]]) for name in names], names)


def metrics_of(schema: pa.Schema) -> list[str]:
    """Return the metrics that a rollup has columns for."""
    return [name.removesuffix("_count") for name in schema.names if name.endswith("_count")]


def plan(parts: Sequence[Part], width: int, today: str) -> Iterator[Merge]:
    """Return which files of a rollup are to be merged: of days that are over all, of today those of one tier."""
    groups: defaultdict[tuple[str, int], list[Part]] = defaultdict(list)
    for part in parts:
        if (part.rows or MAX_CELLS) * width < MAX_CELLS // 2:
            groups[part.date, part.tier if part.date >= today else 0].append(part)
    for (date, _), group in sorted(groups.items()):
        if len(group) >= (_FAN_IN if date >= today else 2):
            tier = max(part.tier for part in group) + 1
            group.sort(key=lambda part: (part.min_us, part.key))
            yield from (Merge(date, min(tier, 99), chunk) for chunk in chunks(group, width) if len(chunk) > 1)


def _grouped(rows: pa.Table, values: Sequence[tuple[str, str]], names: Sequence[str]) -> pa.Table:
    """Aggregate rows of one time and the same tags; `values` says of which column what, `names` how it is called."""
    keys = [columns.TIME, *columns.BASE_TAGS]
    grouped = rows.group_by(keys, use_threads=False).aggregate(list(values))
    return grouped.select([*keys, *(f"{name}_{how}" for name, how in values)]).rename_columns([*keys, *names])
