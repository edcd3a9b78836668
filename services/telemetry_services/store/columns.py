"""The wide row, as every store of ours keeps it.

    date    date32             day of `time`, UTC; the partition column of the table, not in its files
    time    timestamp[us, UTC] the point's time, cut to microseconds (Delta Lake knows no finer one)
    nanos   int16              what was cut off: 0 to 999 ns
    *       utf8               a tag; null: the point does not have it (those of BASE_TAGS are always there)
    *       float64            a metric; null: no value

A column is a tag or a metric by its type, so that any reader can tell without our help. Names are told apart without
regard to case, as Delta Lake does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from telemetry_broker import _core
from telemetry_services.store.base import Rows
from telemetry_services.store.errors import StoreSchemaError

DATE: Final = "date"
TIME: Final = "time"
NANOS: Final = "nanos"
RESERVED: Final = frozenset(_core.RESERVED_COLUMNS)
"""The three above: no tag and no metric may be called so. The codecs and the API refuse them by the same list."""

DATE_TYPE: Final = pa.date32()
TIME_TYPE: Final = pa.timestamp("us", tz="UTC")
NANOS_TYPE: Final = pa.int16()
TAG_TYPE: Final = pa.string()
METRIC_TYPE: Final = pa.float64()

INSTANCE_ID: Final = "GPU_I_ID"
"""The tag that tells the MIG slices of one GPU apart."""
BASE_TAGS: Final = _core.TAG_COLUMNS
"""The tags of every GPU, `INSTANCE_ID` among them."""

BASE_SCHEMA: Final = pa.schema(
    [(DATE, DATE_TYPE), (TIME, TIME_TYPE), (NANOS, NANOS_TYPE), *((name, TAG_TYPE) for name in BASE_TAGS)]
)
"""What every table has from the start. Other tags and all metrics join as they come."""

MIN_US: Final = -(1 << 63) // 1000
MAX_US: Final = (1 << 63) // 1000
"""No time of ours lies beyond these microseconds."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_TEXT_TYPES: Final = (pa.string(), pa.large_string(), pa.string_view())


class Day(NamedTuple):
    """The rows of one day, without their date."""

    date: str
    """Such as `2025-07-18`."""
    table: pa.Table


def normalise(rows: Sequence[Rows]) -> pa.Table:
    """Make one `pyarrow.Table` of the layout above, less `date`, out of pieces whose columns may differ.

    Raises:
        StoreSchemaError: a time is missing, or a name or type is not one that the layout has room for.
    """
    try:
        tables = [_normalise_piece(piece) for piece in rows]
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, UnicodeDecodeError) as error:
        raise StoreSchemaError(f"the rows are no Arrow table ({error}); leave out those that are not") from error
    tables = [table for table in tables if table.num_rows]
    if not tables:
        return pa.table({TIME: pa.array([], TIME_TYPE), NANOS: pa.array([], NANOS_TYPE)})
    known: dict[str, pa.Field] = {}
    for table in tables:
        check_columns(table.schema, known)
        known |= {field.name.casefold(): field for field in table.schema}
    return pa.concat_tables(tables, promote_options="default")


def check_columns(incoming: pa.Schema, known: Mapping[str, pa.Field]) -> list[pa.Field]:
    """Return the fields of `incoming` that are new to `known`, which maps case-folded names to fields.

    Raises:
        StoreSchemaError: a field is known under another case or another type.
    """
    new, wrong = [], []
    for field in incoming:
        there = known.get(field.name.casefold())
        if there is None:
            new.append(field)
        elif there.name != field.name or there.type != field.type:
            wrong.append((field, there))
    if wrong:
        told = "; ".join(f"{_told(field)} is already stored as {_told(there)}" for field, there in wrong)
        raise StoreSchemaError(
            f"{told}. A column is either a tag or a metric, under one spelling: rename it at its source",
            columns=[field.name for field, _ in wrong],
        )
    return new


def split_days(table: pa.Table) -> list[Day]:
    """Cut a normalised table by day, UTC; the order of rows within a day stays."""
    dates = pc.cast(table[TIME], DATE_TYPE)
    days = []
    for date in sorted(pc.unique(dates).to_pylist()):
        part = table if pc.all(pc.equal(dates, date)).as_py() else table.filter(pc.equal(dates, date))
        days.append(Day(date.isoformat(), part))
    return days


def tags(schema: pa.Schema) -> list[str]:
    """Return the names of the tag columns, in the order of the schema."""
    return [field.name for field in schema if field.type in _TEXT_TYPES]


def metrics(schema: pa.Schema) -> list[str]:
    """Return the names of the metric columns, in the order of the schema."""
    return [field.name for field in schema if field.type == METRIC_TYPE]


def microseconds_iso(time_us: int) -> str:
    """Write a time as Delta Lake's statistics do: `2025-07-18T20:42:34.000000Z`."""
    time = _EPOCH + timedelta(microseconds=time_us)
    return f"{time.replace(tzinfo=None).isoformat(timespec='microseconds')}Z"


def _normalise_piece(piece: Rows) -> pa.Table:
    table = pa.table(piece)
    _check_names(table.schema.names)
    columns: dict[str, pa.ChunkedArray] = dict(zip((TIME, NANOS), _split_time(table), strict=True))
    for field, column in zip(table.schema, table.columns, strict=True):
        if field.name == TIME or pa.types.is_null(field.type):
            continue
        value_type = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        if value_type in _TEXT_TYPES:
            columns[field.name] = column if field.type == TAG_TYPE else column.cast(TAG_TYPE)
        elif field.type == METRIC_TYPE:
            columns[field.name] = column
        else:
            raise StoreSchemaError(
                f"column {field.name!r} is {field.type}; expected text (a tag) or float64 (a metric)",
                columns=[field.name],
            )
    return pa.table(columns)


def _check_names(names: Sequence[str]) -> None:
    spellings = Counter(name.casefold() for name in names)
    if TIME not in names:
        raise StoreSchemaError("rows have no column 'time'; expected timestamp[ns, UTC]", columns=[TIME])
    wrong = [
        name
        for name in names
        if not name or (name.casefold() in RESERVED and name != TIME) or spellings[name.casefold()] > 1
    ]
    if wrong:
        raise StoreSchemaError(
            f"columns {wrong!r} cannot be stored: a name must not be empty, nor there twice (in any case of letters), "
            f"nor one of {sorted(RESERVED)}, which the store keeps for itself; rename them at their source",
            columns=wrong,
        )


def _split_time(table: pa.Table) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
    """Split `time` into whole microseconds, rounded down, and the nanoseconds past them."""
    time = table[TIME]
    if time.type != pa.timestamp("ns", tz="UTC") or time.null_count:
        raise StoreSchemaError(
            f"column 'time' is {time.type} with {time.null_count} nulls; expected timestamp[ns, UTC] without nulls",
            columns=[TIME],
        )
    ns = time.cast(pa.int64())
    us = pc.divide(ns, 1000)  # rounds towards zero, so times before 1970 are mended below
    nanos = pc.subtract(ns, pc.multiply(us, 1000))
    before = pc.less(nanos, 0)
    if pc.any(before).as_py():
        us = pc.subtract(us, before.cast(pa.int64()))
        nanos = pc.if_else(before, pc.add(nanos, 1000), nanos)
    return us.cast(pa.timestamp("us")).cast(TIME_TYPE), nanos.cast(NANOS_TYPE)


def _told(field: pa.Field) -> str:
    kind = "metric" if field.type == METRIC_TYPE else "tag" if field.type in _TEXT_TYPES else "reserved column"
    return f"{kind} {field.name!r}"
