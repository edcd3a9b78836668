"""The Delta Lake store: one local table, written by any number of collectors and read by anyone.

Invariants (tests: I1, I2 `tests/integration/test_delta_store.py`; I3 `tests/unit/test_store_durable.py`)
- I1 Rows and positions are one Delta commit: a position is the version of the app transaction named by its log id.
- I2 A commit is made on the snapshot whose position was compared. deltalake refuses it when another commit of the same
  log id has passed that snapshot, so of two collectors with one log exactly one gets through; the other is told where
  the store stands. (On a fresh snapshot deltalake would take any position, a lower one too.)
- I3 A commit's data files are on disk before it is made, and its log file before `write` returns.

A new column is a commit of its own before that of the rows. It makes the concurrent commits of other writers fail, and
those of theirs fail ours: reload, compare the positions again, retry.

Locks: `_writing` guards the writer's snapshot, `_reading` the readers'. Neither is taken under the other; upkeep takes
them under `_maintaining`.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Final

import pyarrow as pa
from deltalake import DeltaTable
from deltalake.transaction import AddAction

from telemetry_services.store import columns
from telemetry_services.store.base import OffsetRange, Retention, Rows
from telemetry_services.store.delta_table import (
    Layout,
    Reader,
    Table,
    blaming_rows,
    dataset_of,
    telling_errors,
)
from telemetry_services.store.durable import DurableFiles, Files
from telemetry_services.store.errors import StoreClosedError, StorePositionError
from telemetry_services.store.maintenance import Maintenance
from telemetry_services.store.parts import new_part_name
from telemetry_services.store.queries import LATEST_FILE, Queries
from telemetry_services.store.rollups import rollup_tables
from telemetry_services.store.snapshot import Snapshot

LAYOUT: Final = Layout(columns.BASE_SCHEMA, "gpu", "GPU telemetry: wide rows of tags and metrics")

WRITE_LATEST_EVERY: Final = 50
"""Versions of the table between two times that the newest values are written down."""


class DeltaStore(Queries):
    """A `Store` in one place; see `telemetry_services.store.base` for what it promises.

    Args:
        path: a local folder, absolute, made by the first `positions` or `write`; or files elsewhere.
        fsync: as `os.fsync`, for a local folder; tests count and fail it.

    Raises:
        StoreForeignError: the path is a file, or a folder of something else. (A Delta table of another layout is
            told by the first call that opens it.)
    """

    def __init__(self, path: Path | Files, *, fsync: Callable[[int], None] = os.fsync) -> None:
        files = DurableFiles(path, fsync) if isinstance(path, Path) else path
        super().__init__(files)
        self._table = Table(files, LAYOUT)
        self._reader = Reader(self._table)
        self._writing = threading.Lock()
        self._reading = threading.Lock()
        self._rollups = rollup_tables(files)
        self._maintaining = threading.Lock()
        self._maintenance = Maintenance(self._table, self._rollups, self._writing, lambda: self._write_latest(after=1))
        self._written_version = 0
        self._closed = False
        self._table.exists()

    def positions(self, log_ids: Collection[str]) -> dict[str, int]:
        with self._writing, telling_errors(self._table, self._table):
            table = self._refreshed_writer()
            found = {log_id: table.transaction_version(log_id) for log_id in log_ids}
        return {log_id: position for log_id, position in found.items() if position is not None}

    def write(self, rows: Sequence[Rows], positions: Mapping[str, OffsetRange]) -> int:
        table = columns.normalise(rows)
        if table.num_rows or positions:
            with self._writing, telling_errors(self._table, self._table):
                self._compare(self._refreshed_writer(), positions)
                with blaming_rows(self._table, table.schema):
                    actions = self._write_days(table)
                try:
                    moved = {log_id: offsets.next for log_id, offsets in positions.items()}
                    self._table.commit(actions, table.schema, moved, lambda now: self._compare(now, positions))
                except BaseException:
                    self._table.remove_uncommitted(actions)
                    raise
        return int(table.num_rows)

    def maintain(self, retention: Retention, *, now_ms: int | None = None) -> bool:
        """As in `Store`; `now_ms` is the time in milliseconds since the epoch, for tests."""
        with self._maintaining, telling_errors(self._table, self._table, *(each.table for each in self._rollups)):
            with self._writing:
                self._check_open()
            if not self._table.exists():
                return False
            replaced = self._maintenance.replaced
            more = self._maintenance.round(retention, time.time_ns() // 1_000_000 if now_ms is None else now_ms)
            self._write_latest(after=1 if self._maintenance.replaced > replaced else WRITE_LATEST_EVERY)
            return more

    def close(self) -> None:
        self._maintenance.stopping.set()
        with self._maintaining, self._writing, self._reading:
            self._closed = True
            self._table.forget()
            self._reader.forget()

    # -- writing, under _writing

    def _refreshed_writer(self) -> DeltaTable:
        self._check_open()
        return self._table.refreshed()

    def _compare(self, table: DeltaTable, positions: Mapping[str, OffsetRange]) -> None:
        stored = {log_id: table.transaction_version(log_id) for log_id in positions}
        wrong = {
            log_id: position
            for log_id, position in stored.items()
            if position is not None and position != positions[log_id].first
        }
        if wrong:
            log_id, position = next(iter(wrong.items()))
            raise StorePositionError(
                f"store {self._table}: log {log_id} is stored up to offset {position}, the write goes on from "
                f"{positions[log_id].first} (such logs: {len(wrong)}); nothing was stored. Seek to the stored position",
                positions=wrong,
            )

    def _write_days(self, rows: pa.Table) -> list[AddAction]:
        actions: list[AddAction] = []
        try:
            for day in columns.split_days(rows):
                action = self._table.write(new_part_name(day.date), day.table, date=day.date)
                actions.append(action)
        except BaseException:
            for action in actions:
                self._table.files.remove(action.path)
            raise
        return actions

    # -- reading

    def _snapshot(self, *, rollups: bool = False) -> Snapshot:
        with self._reading, telling_errors(self._table, self._reader, *(rollup.reader for rollup in self._rollups)):
            self._check_open()
            # First, so that none is newer than the parts.
            rolled = [(rollup, rollup.reader.state()) for rollup in self._rollups if rollups]
            state = self._reader.state()
        if state is None:
            return Snapshot(columns.BASE_SCHEMA, [], dataset_of(self._table.files, columns.BASE_SCHEMA))
        metrics = columns.metrics(state.schema)
        return Snapshot(
            state.schema,
            state.parts,
            dataset_of(self._table.files, state.schema),
            state.version,
            [rollup.read(at, metrics) for rollup, at in rolled if at is not None],
        )

    # -- upkeep, under _maintaining

    def _write_latest(self, *, after: int) -> None:
        """Write down the newest values, so that a process that begins has but few files to read.

        Args:
            after: only if the table is so many versions ahead of what is written down.
        """
        snapshot = self._snapshot()
        with self._latest_lock:
            latest = self._refreshed_latest(snapshot)
            if latest.version - self._written_version >= after:
                self._table.files.replace_bytes(LATEST_FILE, latest.as_bytes())
                self._written_version = latest.version

    # -- all

    def _check_open(self) -> None:
        if self._closed:
            raise StoreClosedError(f"store {self._table} was closed; open it again")
