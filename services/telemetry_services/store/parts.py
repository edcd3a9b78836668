"""The files of a table: what a name tells, and what the table's log tells of each.

    part-<uuid>.parquet                         as a writer stored it (and any name of another program)
    tier2-v<version>-<uuid>.parquet             merged, to be merged again: tier 1 from parts, 2 from 1, ...
    sealed-<number>-v<version>-<uuid>.parquet   merged for the last time: sorted, and rolled up after that

`version`: all that was merged stands in the table of that version. Whoever has read it has no need to read this file.
`number`: sealed files are numbered in the order in which they came about; rollups hold all up to one number.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from telemetry_services.store import columns

_NAME: Final = re.compile(r"(?:.*/)?(?:tier(?P<tier>\d{1,2})|sealed-(?P<number>\d{12}))-v(?P<version>\d{1,19})-[^/]*")


@dataclass(frozen=True, slots=True)
class Part:
    """An immutable set of rows, such as one file of a table, and what is known of them without reading it."""

    key: str
    size_bytes: int
    min_us: int
    max_us: int
    rows: int | None = None
    """None: not known."""
    min_uuid: str | None = None
    max_uuid: str | None = None
    """Both None: not known, or some rows have none."""
    written_ms: int = 0
    """When the oldest of its rows was stored, milliseconds since the epoch."""
    date: str = ""
    """The folder it is in, such as `2025-07-18`."""
    tier: int = 0
    """0: as it was written."""
    sealed: int | None = None
    """Its number, when it is sealed."""
    merged_at: int | None = None
    """All its rows stand in the table of this version, in other files; None: they came with this file."""

    @property
    def has_times(self) -> bool:
        """Whether its times are known; those of a file without statistics are not."""
        return self.min_us > columns.MIN_US and self.max_us < columns.MAX_US

    def may_hold(self, uuids: Iterable[str]) -> bool:
        """Whether rows of any of these GPUs can be in it."""
        if self.min_uuid is None or self.max_uuid is None:
            return True
        return any(self.min_uuid <= uuid <= self.max_uuid for uuid in uuids)


def new_part_name(date: str) -> str:
    """Name a file of new rows."""
    return f"{columns.DATE}={date}/part-{uuid.uuid4()}.parquet"


def new_tier_name(date: str, tier: int, version: int) -> str:
    """Name a file merged from rows that stand in the table of this version."""
    return f"{columns.DATE}={date}/tier{tier}-v{version}-{uuid.uuid4()}.parquet"


def new_sealed_name(date: str, number: int, version: int) -> str:
    """Name a file that will not be merged again."""
    return f"{columns.DATE}={date}/sealed-{number:012}-v{version}-{uuid.uuid4()}.parquet"


def parts_of(actions: pa.Table) -> list[Part]:
    """List the files of a table, as `DeltaTable.get_add_actions(flatten=True)` gives them.

    One without statistics (of another program) may hold any time.
    """
    size = actions.num_rows
    if not size:
        return []

    def column(name: str, kind: pa.DataType) -> pa.ChunkedArray | pa.Array:
        return actions[name].cast(kind) if name in actions.column_names else pa.nulls(size, kind)

    listed: Sequence[list[object]] = [
        actions["path"].to_pylist(),
        actions["size_bytes"].to_pylist(),
        pc.fill_null(column("min.time", pa.int64()), columns.MIN_US).to_pylist(),
        pc.fill_null(column("max.time", pa.int64()), columns.MAX_US).to_pylist(),
        column("num_records", pa.int64()).to_pylist(),
        column("min.uuid", pa.string()).to_pylist(),
        column("max.uuid", pa.string()).to_pylist(),
        actions["modification_time"].to_pylist(),
        column("partition.date", pa.string()).to_pylist(),
    ]
    return [_named(Part(*row)) for row in zip(*listed, strict=True)]


def _named(part: Part) -> Part:
    found = _NAME.fullmatch(part.key)
    if not found:
        return part
    number = found["number"]
    return Part(
        part.key,
        part.size_bytes,
        part.min_us,
        part.max_us,
        part.rows,
        part.min_uuid,
        part.max_uuid,
        part.written_ms,
        part.date,
        tier=int(found["tier"] or 0),
        sealed=int(number) if number else None,
        merged_at=int(found["version"]),
    )


def chunked(parts: Sequence[Part], cells_of: Callable[[Part], int], most_cells: int) -> Iterator[list[Part]]:
    """Cut parts, in their order, into chunks of at most so many cells; a larger part stands alone."""
    chunk: list[Part] = []
    cells = 0
    for part in parts:
        more = cells_of(part)
        if chunk and cells + more > most_cells:
            yield chunk
            chunk, cells = [], 0
        chunk.append(part)
        cells += more
    if chunk:
        yield chunk
