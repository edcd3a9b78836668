"""Upkeep of a Delta store, while writers write and readers read: merging, rollups, retention, cleaning up.

One round does all that is due, in this order: what is past its retention goes; small files are merged and hours sealed;
rollups take in what was sealed; what no reader needs any more is deleted. Each step is a commit, so a round may end
anywhere.

Who does it: every collector tries. On a local disk one of them holds a lock; anywhere, every commit that replaces files
counts up one app transaction, so that of two rounds at once one is refused and its files are removed. A merge is
committed only if all that it merged is still there at that moment, whoever else works on the table.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Final

import pyarrow as pa
from deltalake import DeltaTable
from deltalake.transaction import AddAction, RemoveAction

from telemetry_services.store import columns, merging, rollups
from telemetry_services.store.base import Retention
from telemetry_services.store.delta_table import State, Table, dataset_of, state_of
from telemetry_services.store.errors import StoreClosedError, StoreConflictError
from telemetry_services.store.parts import Part, new_part_name, new_sealed_name, new_tier_name, parts_of
from telemetry_services.store.rollups import RollupTable

ROUND: Final = "telemetry-broker/maintenance"
"""App transaction of every commit that replaces files; sealed files take their number from it."""

LOCK: Final = "_maintenance.lock"
MAX_MERGES: Final = 16
"""Merges of one round, so that the steps behind them come to their turn."""

_VACUUM_SECONDS: Final = 600.0
_MAX_REMOVED: Final = 1000  # files that one commit removes for their age
_ROLLED_AT_ONCE: Final = 8  # sealed files whose windows are one commit

_log = logging.getLogger(__name__)


class Maintenance:
    """The upkeep of one table of samples and its rollups. Not safe for threads.

    Args:
        writing: held for each commit to `table`, and while files are deleted.
        remember: called before samples are removed; makes sure that the newest of each GPU lasts without them.
    """

    def __init__(
        self, table: Table, tables: Sequence[RollupTable], writing: threading.Lock, remember: Callable[[], None]
    ) -> None:
        self._table = table
        self._rollups = tables
        self._writing = writing
        self._remember = remember
        self.stopping = threading.Event()
        """Set by whoever waits for a round to end: it ends before its next step, with `StoreClosedError`."""
        self.replaced = 0
        """Commits so far that put files in the place of others."""
        self._configured = False
        self._vacuumed = -_VACUUM_SECONDS

    def round(self, retention: Retention, now_ms: int) -> bool:
        """Do what is due.

        Returns:
            Whether more is due at once.
        """
        with self._table.files.locked(LOCK) as alone:
            if not alone:
                return False
            if not self._configured:
                with self._writing:
                    self._table.configure()
                self._configured = True
            more = self._expire(retention, now_ms)
            more |= self._merge_samples(now_ms)
            for rollup in self._rollups:
                more |= self._roll(rollup, _horizon_us(_age_of(retention, rollup), now_ms))
                more |= self._merge_windows(rollup, now_ms)
            if time.monotonic() - self._vacuumed >= _VACUUM_SECONDS:
                self._vacuum()
            return more

    # -- retention

    def _expire(self, retention: Retention, now_ms: int) -> bool:
        state = self._state()
        horizon_us = _horizon_us(retention.samples, now_ms)
        rolled = min(self._sealed_up_to(rollup) for rollup in self._rollups)
        old = [
            part
            for part in state.parts
            if part.max_us < horizon_us and part.sealed is not None and part.sealed <= rolled
        ]
        if old:
            self._remember()
        more = self._remove(self._table, state, old)
        for rollup in self._rollups:
            of_rollup = self._state_of(rollup.table)
            if of_rollup is None:
                continue
            step_us = rollup.step_seconds * 1_000_000
            horizon_us = _horizon_us(_age_of(retention, rollup), now_ms)
            old = [part for part in of_rollup.parts if part.max_us + step_us <= horizon_us]
            more |= self._remove(rollup.table, of_rollup, old)
        return more

    def _remove(self, table: Table, state: State, old: Sequence[Part]) -> bool:
        chosen = sorted(old, key=lambda part: part.max_us)[:_MAX_REMOVED]
        if chosen:
            self._replace(table, state, chosen, [], table.layout.schema, changes=True)
            _log.info("removed samples past their retention", extra={"table": str(table), "files": len(chosen)})
        return len(old) > len(chosen)

    # -- merging

    def _merge_samples(self, now_ms: int) -> bool:
        state = self._state()
        due = merging.plan(state.parts, len(columns.metrics(state.schema)) + len(columns.BASE_TAGS), now_ms)
        for merge in due[:MAX_MERGES]:
            self._check_stopping()
            number = (state.transactions[ROUND] or 0) + 1
            name = (
                new_sealed_name(merge.date, number, state.version)
                if merge.tier is None
                else new_tier_name(merge.date, merge.tier, state.version)
            )
            rows = merging.read(dataset_of(self._table.files, state.schema)(merge.parts))
            if merge.tier is None:
                rows = merging.in_order(rows)
            self._put(self._table, state, merge, name, rows, is_sealed=merge.tier is None)
            state = self._state()
        return len(due) > MAX_MERGES

    def _merge_windows(self, rollup: RollupTable, now_ms: int) -> bool:
        state = self._state_of(rollup.table)
        if state is None:
            return False
        today = datetime.fromtimestamp(now_ms / 1000, UTC).date().isoformat()
        due = list(rollups.plan(state.parts, len(state.schema), today))
        for merge in due[:MAX_MERGES]:
            self._check_stopping()
            name = new_tier_name(merge.date, merge.tier or 1, state.version)
            windows = merging.read(dataset_of(rollup.table.files, state.schema)(merge.parts))
            rows = merging.in_order(rollups.merged(windows))
            self._put(rollup.table, state, merge, name, rows, is_sealed=True)
            state = state_of(rollup.table.refreshed(), (ROUND, rollups.SEALED))
        return len(due) > MAX_MERGES

    def _put(
        self, table: Table, state: State, merge: merging.Merge, name: str, rows: pa.Table, *, is_sealed: bool
    ) -> None:
        """Write the rows of a merge, and put them in the place of what was merged."""
        written_ms = min(part.written_ms for part in merge.parts)
        options = merging.sealed_options(rows) if is_sealed else merging.TIER_OPTIONS
        action = table.write(name, rows, date=merge.date, options=options, written_ms=written_ms, is_new=False)
        self._replace(table, state, merge.parts, [action], rows.schema, changes=False)

    # -- rollups

    def _roll(self, rollup: RollupTable, horizon_us: int) -> bool:
        """Take in sealed files; what is past the rollup's own retention counts as taken in."""
        state = self._state()
        sealed_up_to = self._sealed_up_to(rollup)
        sources = sorted(
            (part for part in state.parts if part.sealed is not None and part.sealed > sealed_up_to),
            key=lambda part: part.sealed or 0,
        )
        metrics = columns.metrics(state.schema)
        if not sources or not metrics:
            return False
        chosen = sources[:_ROLLED_AT_ONCE]
        dataset = dataset_of(self._table.files, state.schema)
        pieces: list[tuple[str, pa.Table]] = []
        for part in chosen:
            self._check_stopping()
            if part.max_us >= horizon_us:
                samples = merging.read(dataset([part]))
                pieces.append((part.date, rollups.windows_of(samples, rollup.step_seconds)))
        rollup.table.refreshed()  # makes it, where there is none
        actions: list[AddAction] = []
        try:
            for date, rows in _together(pieces):
                ordered = merging.in_order(rows)
                options = merging.sealed_options(ordered)
                actions.append(rollup.table.write(new_part_name(date), ordered, date=date, options=options))

            def check(table: DeltaTable) -> None:
                if (table.transaction_version(rollups.SEALED) or 0) != sealed_up_to:
                    raise StoreConflictError(f"store {rollup.table}: someone else made these windows")

            rollup.table.commit(actions, rollups.schema_of(metrics), {rollups.SEALED: chosen[-1].sealed or 0}, check)
        except BaseException:
            rollup.table.remove_uncommitted(actions)
            raise
        return len(sources) > len(chosen)

    def _sealed_up_to(self, rollup: RollupTable) -> int:
        state = self._state_of(rollup.table)
        return 0 if state is None else state.transactions[rollups.SEALED] or 0

    # -- all

    def _check_stopping(self) -> None:
        if self.stopping.is_set():
            raise StoreClosedError(f"store {self._table} is being closed")

    def _vacuum(self) -> None:
        deleted = 0
        for table in (self._table, *(rollup.table for rollup in self._rollups)):
            if table.exists():
                with self._committing(table):
                    deleted += table.vacuum()
        self._vacuumed = time.monotonic()
        if deleted:
            _log.info("deleted files that were replaced", extra={"table": str(self._table), "files": deleted})

    def _state(self) -> State:
        with self._writing:
            return state_of(self._table.refreshed(), (ROUND,))

    def _state_of(self, table: Table) -> State | None:
        return state_of(table.refreshed(), (ROUND, rollups.SEALED)) if table.exists() else None

    @contextmanager
    def _committing(self, table: Table) -> Iterator[None]:
        """Keep the store's writers away from the table of samples; rollups have no other writer in this process."""
        if table is self._table:
            with self._writing:
                yield
        else:
            yield

    def _replace(
        self,
        table: Table,
        state: State,
        old: Sequence[Part],
        new: Sequence[AddAction],
        schema: pa.Schema,
        *,
        changes: bool,
    ) -> None:
        """Put files in the place of others, if those are all still there and no other round came between.

        Args:
            changes: whether rows are gone by it; else it is the same rows in other files.

        Raises:
            StoreConflictError: they are not, or one did; the new files are removed.
        """
        round_before = state.transactions[ROUND]
        now_ms = time.time_ns() // 1_000_000
        removed = [RemoveAction(part.key, changes, now_ms, part.size_bytes, {columns.DATE: part.date}) for part in old]

        def check(now: DeltaTable) -> None:
            there = {part.key for part in parts_of(pa.table(now.get_add_actions(flatten=True)))}
            if now.transaction_version(ROUND) != round_before or any(part.key not in there for part in old):
                raise StoreConflictError(f"store {table}: files were replaced by someone else; nothing was changed")

        try:
            with self._committing(table):
                table.commit([*new, *removed], schema, {ROUND: (round_before or 0) + 1}, check, exactly=True)
            self.replaced += 1
        except BaseException:
            table.remove_uncommitted(new)
            raise


def _together(pieces: Sequence[tuple[str, pa.Table]]) -> Iterator[tuple[str, pa.Table]]:
    """Put pieces of one day together, as long as they are small."""
    gathered: dict[str, list[pa.Table]] = {}
    for date, rows in pieces:
        group = gathered.setdefault(date, [])
        cells = sum(piece.num_rows for piece in group) * rows.num_columns
        if group and cells + rows.num_rows * rows.num_columns > merging.MAX_CELLS:
            yield date, pa.concat_tables(group, promote_options="default")
            group.clear()
        group.append(rows)
    for date, group in gathered.items():
        yield date, pa.concat_tables(group, promote_options="default")


def _age_of(retention: Retention, rollup: RollupTable) -> float | None:
    return retention.minutes if rollup.name == "1m" else retention.hours


def _horizon_us(age: float | None, now_ms: int) -> int:
    """Return the time before which rows are past their retention; None: they never are."""
    return columns.MIN_US if age is None else now_ms * 1000 - int(age * 1_000_000)
