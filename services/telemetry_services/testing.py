"""For tests, ours and yours: a store in memory that records what is written and fails when it is told to.

store = RecordingStore()
store.fail_writes(2)                      # the next two writes store nothing and raise
store.fail_writes(1, after_commit=True)   # then one stores its rows, and raises all the same
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from telemetry_services.store import (
    OffsetRange,
    Retention,
    Rows,
    StoreClosedError,
    StoreError,
    StorePositionError,
    columns,
)
from telemetry_services.store.parts import Part
from telemetry_services.store.queries import Queries
from telemetry_services.store.snapshot import Snapshot

__all__ = ["RecordedWrite", "RecordingStore"]

_IN_MEMORY: Final = pa.schema([field for field in columns.BASE_SCHEMA if field.name != columns.DATE])


@dataclass(frozen=True, slots=True)
class RecordedWrite:
    """One commit: its rows in the layout of `telemetry_services.store.columns` (less `date`), and what it moved."""

    rows: pa.Table
    positions: dict[str, OffsetRange]


class _Fault(NamedTuple):
    error: Exception
    after_commit: bool


class RecordingStore(Queries):
    """A `Store` in memory, with the promises of the real ones but for a crash, and with faults on demand."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[RecordedWrite] = []
        """Every commit so far, in order. Read it only."""
        self._positions: dict[str, int] = {}
        self._schema = _IN_MEMORY
        self._faults: deque[_Fault] = deque()
        self._lock = threading.Lock()
        self._closed = False

    @property
    def rows(self) -> pa.Table:
        """All rows stored, in the order of the commits."""
        with self._lock:
            empty = self._schema.empty_table()
            return pa.concat_tables([empty, *(write.rows for write in self.writes)], promote_options="default")

    def fail_writes(self, count: int = 1, error: Exception | None = None, *, after_commit: bool = False) -> None:
        """Make `count` coming writes fail, after those already told to.

        Args:
            count: how many.
            error: what they raise; default: a `StoreError`, as when the disk or the network fails.
            after_commit: they store their rows and positions first, as when only the answer is lost.
        """
        fault = _Fault(error or StoreError("a fault that a test asked for"), after_commit)
        with self._lock:
            self._faults.extend([fault] * count)

    def positions(self, log_ids: Collection[str]) -> dict[str, int]:
        with self._lock:
            self._check_open()
            return {log_id: self._positions[log_id] for log_id in log_ids if log_id in self._positions}

    def write(self, rows: Sequence[Rows], positions: Mapping[str, OffsetRange]) -> int:
        table = columns.normalise(rows)
        with self._lock:
            self._check_open()
            fault = self._faults.popleft() if self._faults else None
            if fault and not fault.after_commit:
                raise fault.error
            self._commit(table, positions)
            if fault:
                raise fault.error
        return int(table.num_rows)

    def maintain(self, retention: Retention) -> bool:  # noqa: ARG002 (part of the interface)
        return False  # nothing wears out

    def close(self) -> None:
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise StoreClosedError("the recording store was closed")

    def _commit(self, table: pa.Table, positions: Mapping[str, OffsetRange]) -> None:
        stored = {log_id: self._positions.get(log_id, offsets.first) for log_id, offsets in positions.items()}
        wrong = {log_id: at for log_id, at in stored.items() if at != positions[log_id].first}
        if wrong:
            raise StorePositionError(
                f"the recording store stands at {wrong}, not where the write begins", positions=wrong
            )
        known = {field.name.casefold(): field for field in self._schema}
        for field in columns.check_columns(table.schema, known):
            self._schema = self._schema.append(field)
        self._positions |= {log_id: offsets.next for log_id, offsets in positions.items()}
        self.writes.append(RecordedWrite(table, dict(positions)))

    def _snapshot(self, *, rollups: bool = False) -> Snapshot:  # noqa: ARG002 (it keeps none)
        with self._lock:
            self._check_open()
            schema, tables = self._schema, [write.rows for write in self.writes]

        def dataset(parts: Sequence[Part]) -> ds.Dataset:
            chosen = [schema.empty_table(), *(tables[int(part.key)] for part in parts)]
            return ds.dataset(pa.concat_tables(chosen, promote_options="default"))

        return Snapshot(
            schema, [_part(key, table) for key, table in enumerate(tables) if table.num_rows], dataset, len(tables)
        )


def _part(key: int, table: pa.Table) -> Part:
    span = pc.min_max(table[columns.TIME].cast(pa.int64()))
    return Part(str(key), table.nbytes, span["min"].as_py(), span["max"].as_py(), table.num_rows)
