"""Records of a topic as rows of samples: decoded in Rust, a page of records at a time."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from telemetry_broker import _core
from telemetry_broker.batch import Records
from telemetry_services.api.publishing import MEASUREMENT
from telemetry_services.store import columns

TAGS: Final = tuple(columns.BASE_TAGS)
"""The tags that a GPU is told apart and shown by, in the order of `Rows.tags`."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Wide points in the order they came in.

    Attributes:
        times_ns: of each row.
        tags: of each row, in the order of `TAGS`; one that it has not is ''.
        metrics: by name, the values of all rows; NaN where a row has none.
        rejected: lines that are not telemetry, and were left out.
    """

    times_ns: Sequence[int]
    tags: Sequence[tuple[str, ...]]
    metrics: dict[str, Sequence[float]]
    rejected: int = 0

    def __len__(self) -> int:
        return len(self.times_ns)


def decode(ranges: Iterable[Records], now_ns: int) -> Rows:
    """The rows of records in line protocol; a line without a time is of `now_ns`. Blocks; mostly without the GIL."""
    builder = _core.ColumnBuilder(MEASUREMENT, tags=TAGS, default_time_ns=now_ns)
    for records in ranges:
        builder.append_records(records.records, records.base_offset)
    rejected = len(builder.rejected)
    batch = builder.finish()
    if not len(batch):
        return Rows((), (), {}, rejected)
    metrics, present = batch.fields, set(batch.tags)
    table = pa.record_batch(batch)
    absent = [""] * table.num_rows
    texts = [_texts(table.column(name)) if name in present else absent for name in TAGS]
    times: list[int] = _numbers(table.column("time").cast(pa.int64()), "q")
    return Rows(
        times, list(zip(*texts, strict=True)), {name: _floats(table.column(name)) for name in metrics}, rejected
    )


def _texts(column: pa.DictionaryArray) -> list[str]:
    """Each row's text. Through the buffers: a Python object a cell is made for distinct texts only."""
    texts: list[str] = column.dictionary.to_pylist()
    texts.append("")  # what a null's index, -1, finds
    return [texts[index] for index in _numbers(pc.fill_null(column.indices, -1), "i")]


def _floats(column: pa.DoubleArray) -> list[float]:
    return _numbers(pc.fill_null(column, math.nan) if column.null_count else column, "d")


def _numbers(column: pa.Array, kind: Any) -> list[Any]:
    width = column.type.bit_width // 8
    start = column.offset * width
    values: memoryview[Any] = memoryview(column.buffers()[1])[start : start + len(column) * width].cast("B").cast(kind)
    return values.tolist()
