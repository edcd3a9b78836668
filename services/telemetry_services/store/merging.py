"""Merging small files into larger ones: which, and how.

Writers commit a file every moment. Files of one hour are merged as soon as there are `FAN_IN` of a tier, so that a
reader of that hour opens few; each row is rewritten once a tier. An hour that has been over for a while is merged for
the last time, *sealed*: sorted by GPU and time, so that a reader of one GPU decodes a small part of each file, and in
the encodings that suit its values. Rollups are made of sealed files.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from telemetry_services.store import columns
from telemetry_services.store.durable import WriteOptions
from telemetry_services.store.parts import Part, chunked

FAN_IN: Final = 16
"""Files of one tier and hour that are merged together."""

MAX_CELLS: Final = 4 << 20
"""Rows times columns of a file that is merged: what is held in memory for it, twice, in 8 bytes each."""

SEAL_AFTER_MS: Final = 3_600_000
"""Age of the oldest row, by when it was stored, from which on an hour that is over is sealed."""

LATE_US: Final = 300_000_000
"""How long after its end an hour may still get rows that are not late."""

_HOUR_US: Final = 3_600_000_000
_ROW_GROUP_ROWS: Final = 16_384
"""Of sealed files. One GPU's part of an hour is a few hundred rows; less than this, and encodings stop paying."""

TIER_OPTIONS: Final = WriteOptions(level=1, statistics=[columns.TIME, *columns.BASE_TAGS])
_ORDER: Final = ("uuid", "hostname", "device", columns.INSTANCE_ID)
_MANY_VALUES: Final = 64
"""A column of which more than a 64th of the values are different is smaller without a dictionary."""


@dataclass(frozen=True, slots=True)
class Merge:
    """Files of one day that become one.

    Attributes:
        tier: of the new file; None: it is sealed.
    """

    date: str
    tier: int | None
    parts: Sequence[Part]


def plan(parts: Sequence[Part], width: int, now_ms: int, *, fan_in: int = FAN_IN) -> list[Merge]:
    """Return what is to be merged now: seals first, then what helps readers most.

    Args:
        width: columns that a row has.
        now_ms: milliseconds since the epoch.
    """
    hours: defaultdict[tuple[str, int], list[Part]] = defaultdict(list)
    for part in parts:
        if part.sealed is None and part.has_times and part.rows is not None:
            hours[part.date, part.min_us // _HOUR_US].append(part)
    seals: list[Merge] = []
    tiers: list[Merge] = []
    for (date, _), group in sorted(hours.items()):
        group.sort(key=lambda part: (part.min_us, part.key))
        over = max(part.max_us for part in group) < (now_ms * 1000 - LATE_US) // _HOUR_US * _HOUR_US
        if over and (
            min(part.written_ms for part in group) <= now_ms - SEAL_AFTER_MS
            or sum(part.rows or 0 for part in group) * width >= MAX_CELLS
        ):
            seals += [Merge(date, None, chunk) for chunk in chunks(group, width)]
        else:
            tiers += _merged_tiers(date, group, width, fan_in)
    return seals + tiers


def _merged_tiers(date: str, group: Sequence[Part], width: int, fan_in: int) -> Iterator[Merge]:
    tiers: defaultdict[int, list[Part]] = defaultdict(list)
    for part in group:
        if (part.rows or 0) * width < MAX_CELLS // 2:
            tiers[part.tier].append(part)
    for tier, same in sorted(tiers.items()):
        if len(same) >= fan_in:
            yield from (Merge(date, tier + 1, chunk) for chunk in chunks(same, width) if len(chunk) > 1)


def chunks(parts: Sequence[Part], width: int) -> Iterator[list[Part]]:
    """Cut parts, in their order, into chunks of at most `MAX_CELLS`; a larger part stands alone."""
    return chunked(parts, lambda part: (part.rows or 0) * width, MAX_CELLS)


def read(dataset: ds.Dataset) -> pa.Table:
    """Read what is merged, without the columns that none of it has a value in."""
    rows = dataset.to_table(use_threads=False).combine_chunks()
    base = columns.BASE_SCHEMA.names
    return rows.select([name for name in rows.schema.names if name in base or rows[name].null_count < rows.num_rows])


def in_order(rows: pa.Table) -> pa.Table:
    """Sort rows by GPU, then by time."""
    rank = pa.nulls(rows.num_rows, pa.int64()).fill_null(0)
    for name in _ORDER:
        indices, count = _ranks(rows[name].combine_chunks())
        rank = pc.add(pc.multiply(rank, count), indices)
    times = [(name, "ascending") for name in (columns.TIME, columns.NANOS) if name in rows.schema.names]
    keys = pa.table({"rank": rank, **{name: rows[name] for name, _ in times}})
    return rows.take(pc.sort_indices(keys, sort_keys=[("rank", "ascending"), *times])).combine_chunks()


def sealed_options(rows: pa.Table) -> WriteOptions:
    """Return how sealed rows are best written.

    Values that repeat have a dictionary. Of others, whole numbers have their bytes apart, where zstd finds the high
    ones alike; decimals do not, as their low bytes are like noise, and zstd finds but whole values again.
    """
    plain = {columns.TIME: "DELTA_BINARY_PACKED"}
    for name, kind in zip(rows.schema.names, rows.schema.types, strict=True):
        if pa.types.is_floating(kind):
            some = rows[name].slice(0, _ROW_GROUP_ROWS)
            if pc.count_distinct(some).as_py() * _MANY_VALUES > len(some):
                whole = pc.all(pc.equal(some, pc.trunc(some))).as_py()
                plain[name] = "BYTE_STREAM_SPLIT" if whole else "PLAIN"
    return WriteOptions(
        row_group_rows=_ROW_GROUP_ROWS, level=3, plain=plain, statistics=[columns.TIME, *columns.BASE_TAGS]
    )


def _ranks(column: pa.Array) -> tuple[pa.Array, int]:
    """Return where in their order the values of a text column come, nulls first, and how many ranks there are."""
    coded = column.dictionary_encode()
    order = pc.sort_indices(coded.dictionary)
    rank_of = pc.sort_indices(order)  # the inverse of a permutation
    ranks = pc.add(pc.take(rank_of, coded.indices).cast(pa.int64()), 1)
    return pc.fill_null(ranks, 0), len(coded.dictionary) + 1
