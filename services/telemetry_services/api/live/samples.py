"""Records of a topic as rows of samples: decoded in Rust, a page of records at a time."""

import math
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from telemetry_broker import _core
from telemetry_broker.batch import Records
from telemetry_services.api.publishing import MEASUREMENT
from telemetry_services.store import columns

TAGS: Final = tuple(columns.BASE_TAGS)
"""The tags that a GPU is told apart and shown by."""


class Rows:
    """Wide points in the order they came in. Lists of their values are made once somebody asks for them.

    Attributes:
        batch: the points.
    """

    def __init__(self, batch: _core.ColumnBatch) -> None:
        self.batch = batch
        self._values: dict[str, Sequence[float]] = {}

    def __len__(self) -> int:
        return len(self.batch)

    @property
    def metrics(self) -> list[str]:
        """The names of those that some row has."""
        return self.batch.fields

    @cached_property
    def times_ns(self) -> Sequence[int]:
        """Of each row."""
        times: list[int] = _numbers(self._table.column("time").cast(pa.int64()), "q")
        return times

    def values(self, metric: str) -> Sequence[float]:
        """Those of all rows; NaN where a row has none."""
        if metric not in self._values:
            column = self._table.column(metric)
            self._values[metric] = _numbers(pc.fill_null(column, math.nan) if column.null_count else column, "d")
        return self._values[metric]

    @cached_property
    def _table(self) -> pa.RecordBatch:
        return pa.record_batch(self.batch)


def decode(ranges: Iterable[Records], now_ns: int) -> Rows:
    """The rows of records in line protocol; a line without a time is of `now_ns`. Blocks; without the GIL."""
    builder = _core.ColumnBuilder(MEASUREMENT, tags=TAGS, default_time_ns=now_ns)
    for records in ranges:
        builder.append_records(records.records, records.base_offset)
    return Rows(builder.finish())


def _numbers(column: pa.Array, kind: Any) -> list[Any]:
    width = column.type.bit_width // 8
    start = column.offset * width
    values: memoryview[Any] = memoryview(column.buffers()[1])[start : start + len(column) * width].cast("B").cast(kind)
    return values.tolist()
