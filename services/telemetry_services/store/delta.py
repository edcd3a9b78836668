"""The Delta Lake store: one local table, written by any number of collectors and read by anyone.

Invariants (tests: I1, I2 `tests/integration/test_delta_store.py`; I3 `tests/unit/test_store_durable.py`)
- I1 Rows and positions are one Delta commit: a position is the version of the app transaction named by its log id.
- I2 A commit is made on the snapshot whose position was compared. deltalake refuses it when another commit of the same
  log id has passed that snapshot, so of two collectors with one log exactly one gets through; the other is told where
  the store stands. (On a fresh snapshot deltalake would take any position, a lower one too.)
- I3 A commit's data files are on disk before it is made, and its log file before `write` returns.

A new column is a commit of its own before that of the rows. It makes the concurrent commits of other writers fail, and
those of theirs fail ours: reload, compare the positions again, retry.

Locks: `_writing` guards the writer's snapshot, `_reading` the reader's. Neither is taken under the other.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from deltalake import CommitProperties, DeltaTable, Field, PostCommitHookProperties, Schema, Transaction
from deltalake.exceptions import CommitFailedError, DeltaError, SchemaMismatchError
from deltalake.transaction import AddAction

from telemetry_services.store import columns
from telemetry_services.store.base import OffsetRange, Rows
from telemetry_services.store.durable import LOG_DIR, DurableFiles
from telemetry_services.store.errors import (
    StoreClosedError,
    StoreConflictError,
    StoreCorruptError,
    StoreError,
    StoreForeignError,
    StoreFullError,
    StorePositionError,
    StoreSchemaError,
    StoreUnwritableError,
)
from telemetry_services.store.queries import Part, Queries, Snapshot

CHECKPOINT_INTERVAL: Final = 100
"""Commits between two checkpoints, so that opening the table reads at most so many log files (twice, at worst)."""

MAX_ATTEMPTS: Final = 16
"""Commits tried before a write gives up against other writers. Each loss is another writer's progress."""

_CONFIGURATION: Final[dict[str, str | None]] = {
    "delta.checkpointInterval": str(CHECKPOINT_INTERVAL),  # for other writers: we make our own, to sync them
    "delta.dataSkippingStatsColumns": columns.TIME,
    "delta.enableExpiredLogCleanup": "true",
    # Log files older than this go at a checkpoint, so that a commit a second leaves thousands of them, not millions.
    "delta.logRetentionDuration": "interval 1 hours",
}
_NO_HOOKS: Final = PostCommitHookProperties(create_checkpoint=False, cleanup_expired_logs=False)
_OS_ERROR: Final = re.compile(r"os error (\d+)")
_ANSI: Final = re.compile(r"\x1b\[[0-9;]*m")
_MIN_US: Final = -(1 << 63) // 1000
_MAX_US: Final = (1 << 63) // 1000
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_UNWRITABLE: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR})

_log = logging.getLogger(__name__)


class DeltaStore(Queries):
    """A `Store` in the folder `path`; see `telemetry_services.store.base` for what it promises.

    Args:
        path: absolute; made by the first `positions` or `write`.
        fsync: as `os.fsync`; tests count and fail it.

    Raises:
        StoreForeignError: the path is a file, or a folder of something else. (A Delta table of another layout is
            told by the first call that opens it.)
    """

    def __init__(self, path: Path, *, fsync: Callable[[int], None] = os.fsync) -> None:
        super().__init__()
        self._path = path
        self._files = DurableFiles(path, fsync)
        self._writing = threading.Lock()
        self._reading = threading.Lock()
        self._writer: DeltaTable | None = None
        self._reader: DeltaTable | None = None
        self._synced_version = -1
        self._closed = False
        self._exists()

    def positions(self, log_ids: Collection[str]) -> dict[str, int]:
        with self._writing, self._telling_errors():
            table = self._refreshed_writer()
            found = {log_id: table.transaction_version(log_id) for log_id in log_ids}
        return {log_id: position for log_id, position in found.items() if position is not None}

    def write(self, rows: Sequence[Rows], positions: Mapping[str, OffsetRange]) -> int:
        table = columns.normalise(rows)
        if table.num_rows or positions:
            with self._writing, self._telling_errors():
                self._compare(self._refreshed_writer(), positions)
                with _blaming_rows(self._path, table.schema):
                    actions = self._write_days(table)
                try:
                    self._commit(actions, table.schema, positions)
                except BaseException:
                    self._remove_uncommitted(actions)
                    raise
        return int(table.num_rows)

    def close(self) -> None:
        with self._writing, self._reading:
            self._closed = True
            self._writer = self._reader = None

    # -- writing, under _writing

    def _refreshed_writer(self) -> DeltaTable:
        """Return the newest snapshot, with all that it stands on synced: a position told from it will last."""
        if self._closed:
            raise StoreClosedError(f"store {self._path} was closed; open it again")
        if self._writer is None:
            if self._files.log.is_dir():
                self._files.cut_torn_tail()
            table = self._open() if self._exists() else self._create()
            self._files.sync_log()
            self._writer, self._synced_version = table, table.version()
            return table
        self._writer.update_incremental()
        if self._writer.version() > self._synced_version:
            self._files.sync_commits(self._synced_version + 1, self._writer.version())
            self._synced_version = self._writer.version()
        return self._writer

    def _create(self) -> DeltaTable:
        self._path.mkdir(parents=True, exist_ok=True)
        schema = Schema.from_arrow(columns.BASE_SCHEMA)
        try:
            return DeltaTable.create(
                str(self._path),
                schema,
                partition_by=[columns.DATE],
                name="gpu",
                description="GPU telemetry: wide rows of tags and metrics",
                configuration=_CONFIGURATION,
            )
        except DeltaError:
            if self._exists():  # another writer made it meanwhile
                return self._open()
            raise

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
                f"store {self._path}: log {log_id} is stored up to offset {position}, the write goes on from "
                f"{positions[log_id].first} (such logs: {len(wrong)}); nothing was stored. Seek to the stored position",
                positions=wrong,
            )

    def _add_columns(self, table: DeltaTable, schema: pa.Schema) -> None:
        for _ in range(MAX_ATTEMPTS):
            known = {field.name.casefold(): field for field in pa.schema(table.schema())}
            new = columns.check_columns(schema, known)
            if not new:
                return
            try:
                with _blaming_rows(self._path, pa.schema(new)):
                    table.alter.add_columns(
                        [Field.from_arrow(field) for field in new], post_commithook_properties=_NO_HOOKS
                    )
            except CommitFailedError as refused:
                _log.debug("store %s: another writer was first: %s", self._path, refused)
            table.update_incremental()
        raise self._conflict()

    def _write_days(self, rows_table: pa.Table) -> list[AddAction]:
        actions: list[AddAction] = []
        try:
            for day in columns.split_days(rows_table):
                name = f"{columns.DATE}={day.date}/part-{uuid.uuid4()}.parquet"
                size = self._files.write_parquet(self._path / name, day.table)
                stats = {
                    "numRecords": day.table.num_rows,
                    "minValues": {columns.TIME: columns.microseconds_iso(day.min_us)},
                    "maxValues": {columns.TIME: columns.microseconds_iso(day.max_us)},
                    "nullCount": {columns.TIME: 0},
                }
                now_ms = time.time_ns() // 1_000_000
                actions.append(AddAction(name, size, {columns.DATE: day.date}, now_ms, True, json.dumps(stats)))
        except BaseException:
            for action in actions:
                (self._path / action.path).unlink(missing_ok=True)
            raise
        return actions

    def _commit(self, actions: Sequence[AddAction], schema: pa.Schema, positions: Mapping[str, OffsetRange]) -> None:
        properties = CommitProperties(
            app_transactions=[Transaction(log_id, offsets.next) for log_id, offsets in positions.items()]
        )
        for _ in range(MAX_ATTEMPTS):
            table = self._refreshed_writer()
            before = table.version()
            self._add_columns(table, schema)
            self._compare(table, positions)  # I2: nothing from here to the commit may refresh the snapshot
            try:
                table.create_write_transaction(
                    list(actions),
                    "append",
                    table.schema(),
                    [columns.DATE],
                    commit_properties=properties,
                    post_commithook_properties=_NO_HOOKS,
                )
            except CommitFailedError as refused:
                _log.debug("store %s: another writer was first: %s", self._path, refused)
                continue
            after = self._refreshed_writer().version()
            if before // CHECKPOINT_INTERVAL != after // CHECKPOINT_INTERVAL:
                self._checkpoint()
            return
        raise self._conflict()

    def _remove_uncommitted(self, actions: Sequence[AddAction]) -> None:
        """Remove the data files of a write that failed, unless its commit got through all the same."""
        try:
            committed = {Path(uri).name for uri in self._open().file_uris()}
        except (DeltaError, OSError) as unknown:
            _log.warning("store %s: %d unused data files may stay behind: %s", self._path, len(actions), unknown)
            return
        for action in actions:
            if Path(action.path).name not in committed:
                (self._path / action.path).unlink(missing_ok=True)

    def _checkpoint(self) -> None:
        """Make a checkpoint and delete log files past their retention. The rows are safe, so a failure is only told."""
        table = self._refreshed_writer()
        try:
            table.create_checkpoint()
            self._files.sync_checkpoint(table.version())
            table.cleanup_metadata()
        except (DeltaError, OSError) as error:
            _log.warning("store %s: no checkpoint at version %d: %s", self._path, table.version(), _plain(error))

    def _conflict(self) -> StoreConflictError:
        return StoreConflictError(
            f"store {self._path}: other writers committed first {MAX_ATTEMPTS} times; nothing was stored. Try again"
        )

    # -- reading

    def _snapshot(self) -> Snapshot:
        with self._reading, self._telling_errors():
            if self._closed:
                raise StoreClosedError(f"store {self._path} was closed; open it again")
            if self._reader is None:
                if not self._exists():
                    return Snapshot(columns.BASE_SCHEMA, [], self._dataset(columns.BASE_SCHEMA))
                self._reader = self._open()
            else:
                self._reader.update_incremental()
            schema = pa.schema(self._reader.schema())
            return Snapshot(schema, _parts(self._reader), self._dataset(schema))

    def _dataset(self, schema: pa.Schema) -> Callable[[Sequence[Part]], ds.Dataset]:
        in_files = pa.schema([field for field in schema if field.name != columns.DATE])

        def dataset(parts: Sequence[Part]) -> ds.Dataset:
            return ds.dataset([str(self._path / part.key) for part in parts], schema=in_files, format="parquet")

        return dataset

    # -- both

    def _exists(self) -> bool:
        """Tell whether there is a table; a folder with nothing in it, or with a log not begun, is none yet."""
        try:
            names = {entry.name for entry in self._path.iterdir()}
        except FileNotFoundError:
            return False
        except NotADirectoryError:
            raise StoreForeignError(
                f"store {self._path} is a file, or below one; name a folder that is empty or not there"
            ) from None
        if LOG_DIR in names:
            return any(path.suffix in (".json", ".parquet") for path in self._files.log.iterdir())
        if names:
            raise StoreForeignError(
                f"store {self._path} holds {min(names)!r} and no Delta table; name a folder that is empty or not there"
            )
        return False

    def _open(self) -> DeltaTable:
        table = DeltaTable(str(self._path))
        schema = pa.schema(table.schema())
        partitions = table.metadata().partition_columns
        wrong = [
            field.name
            for field in columns.BASE_SCHEMA
            if field.name not in schema.names or schema.field(field.name).type != field.type
        ]
        if wrong or partitions != [columns.DATE]:
            raise StoreForeignError(
                f"store {self._path} is a Delta table of another layout: columns {wrong} are missing or of another "
                f"type, or it is not partitioned by ['date'] but by {partitions}. Name another folder"
            )
        return table

    @contextmanager
    def _telling_errors(self) -> Iterator[None]:
        """Turn the errors of deltalake and the disk into ours, and begin the next call on fresh snapshots."""
        try:
            yield
        except (DeltaError, OSError, pa.ArrowException) as error:
            self._writer = self._reader = None
            raise _store_error(self._path, error) from error


@contextmanager
def _blaming_rows(path: Path, schema: pa.Schema) -> Iterator[None]:
    """Tell by the error's class where it is the rows that cannot be stored, and not the store that fails."""
    try:
        yield
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, SchemaMismatchError) as error:
        raise StoreSchemaError(
            f"store {path} cannot hold these rows ({_plain(error)}); leave out those that do not fit",
            columns=schema.names,
        ) from error


def _parts(table: DeltaTable) -> list[Part]:
    """List the files of a table. One without statistics (a foreign writer's) may hold any time."""
    actions = pa.table(table.get_add_actions(flatten=True))
    size = actions.num_rows
    if not size:
        return []
    spans = []
    for name, unknown in (("min.time", _MIN_US), ("max.time", _MAX_US)):
        times = actions[name].cast(pa.int64()) if name in actions.column_names else pa.nulls(size, pa.int64())
        spans.append(pc.fill_null(times, unknown).to_pylist())
    rows = zip(actions["path"].to_pylist(), actions["size_bytes"].to_pylist(), *spans, strict=True)
    return [Part(*row) for row in rows]


def _store_error(path: Path, error: Exception) -> StoreError:
    text = _plain(error)
    number = error.errno if isinstance(error, OSError) and error.errno is not None else None
    if number is None and (found := _OS_ERROR.search(text)):
        number = int(found[1])
    if number in _FULL:
        return StoreFullError(f"store {path}: no space is left ({text}); free some, then it goes on", retry_after=1.0)
    if number in _UNWRITABLE:
        return StoreUnwritableError(
            f"store {path} cannot be written ({text}); give this user the right, or name another"
        )
    if isinstance(error, OSError):
        return StoreError(f"store {path}: {text}")
    return StoreCorruptError(f"store {path} cannot be read ({text}); restore it from a copy, or name another folder")


def _plain(error: Exception) -> str:
    """Return an error's text in one line, without the colours and stack frames that deltalake puts in."""
    text = _ANSI.sub("", str(error)).split("\n   0:")[0]
    return " ".join(text.split())
