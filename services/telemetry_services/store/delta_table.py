"""One Delta table in one place: opened, listed, widened, committed to and checkpointed.

A writer's snapshot stands on synced files: what is read from it will last. Every commit is made on a snapshot that the
caller's check has seen; see `telemetry_services.store.delta` for why.

Nothing here is safe for threads; whoever has a `Table` or `Reader` locks.
"""

from __future__ import annotations

import errno
import json
import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from deltalake import CommitProperties, DeltaTable, Field, PostCommitHookProperties, Schema, Transaction
from deltalake.exceptions import CommitFailedError, DeltaError, SchemaMismatchError
from deltalake.transaction import AddAction, RemoveAction

from telemetry_services.store import columns
from telemetry_services.store.durable import AS_WRITTEN, Files, WriteOptions
from telemetry_services.store.errors import (
    StoreConflictError,
    StoreCorruptError,
    StoreError,
    StoreForeignError,
    StoreFullError,
    StoreSchemaError,
    StoreUnwritableError,
)
from telemetry_services.store.parts import Part, parts_of

CHECKPOINT_INTERVAL: Final = 100
"""Commits between two checkpoints, so that opening the table reads at most so many log files (twice, at worst)."""

MAX_ATTEMPTS: Final = 16
"""Commits tried before a write gives up against other writers. Each loss is another writer's progress."""

DELETED_FILES_HOURS: Final = 1
"""How long a file that was replaced stays for readers of an older snapshot."""

LISTED_SECONDS: Final = 60.0
"""How often a reader lists the log. In between the next commit's file tells; it stays there for an hour."""

CONFIGURATION: Final[dict[str, str | None]] = {
    "delta.checkpointInterval": str(CHECKPOINT_INTERVAL),  # for other writers: we make our own, to sync them
    "delta.dataSkippingStatsColumns": f"{columns.TIME},uuid",
    "delta.enableExpiredLogCleanup": "true",
    # Log files older than this go at a checkpoint, so that a commit a second leaves thousands of them, not millions.
    "delta.logRetentionDuration": "interval 1 hours",
    # A checkpoint names each replaced file for so long; by default it would be a week's worth of them.
    "delta.deletedFileRetentionDuration": f"interval {DELETED_FILES_HOURS} hours",
}
NO_HOOKS: Final = PostCommitHookProperties(create_checkpoint=False, cleanup_expired_logs=False)
_OS_ERROR: Final = re.compile(r"os error (\d+)")
_ANSI: Final = re.compile(r"\x1b\[[0-9;]*m")
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_UNWRITABLE: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR})

_log = logging.getLogger(__name__)

Check = Callable[[DeltaTable], None]
"""Looks at the snapshot that a commit is about to be made on, and raises if it must not be made."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What a table of ours is.

    Attributes:
        schema: the columns that it has from the start; others join as they come.
        name, description: for people who list the table.
    """

    schema: pa.Schema
    name: str
    description: str


class Table:
    """A table, as a writer sees it.

    Args:
        files: where it is.
        layout: what it must be.
    """

    def __init__(self, files: Files, layout: Layout) -> None:
        self.files = files
        self.layout = layout
        self._snapshot: DeltaTable | None = None
        self._synced_version = -1

    def __str__(self) -> str:
        return str(self.files)

    def exists(self) -> bool:
        """Tell whether there is a table; a folder with nothing in it, or with no commit that is whole, is none yet."""
        return self.files.has_log()

    def open(self) -> DeltaTable:
        """Open the newest state that is whole.

        Raises:
            StoreForeignError: it is a table of another layout.
        """
        version = self.files.whole_version()
        table = DeltaTable(self.files.uri, version=version, storage_options=self.files.storage_options)
        schema = pa.schema(table.schema())
        partitions = table.metadata().partition_columns
        wrong = [
            field.name
            for field in self.layout.schema
            if field.name not in schema.names or schema.field(field.name).type != field.type
        ]
        if wrong or partitions != [columns.DATE]:
            raise StoreForeignError(
                f"store {self} is a Delta table of another layout: columns {wrong} are missing or of another "
                f"type, or it is not partitioned by ['date'] but by {partitions}. Name another folder"
            )
        return table

    def refreshed(self) -> DeltaTable:
        """Return the newest snapshot, with all that it stands on synced: a position told from it will last.

        Makes the table where there is none.
        """
        if self._snapshot is None:
            self.files.cut_torn_tail()
            table = self.open() if self.exists() else self._create()
            self.files.sync_log()
            self._snapshot, self._synced_version = table, table.version()
            return table
        self._snapshot.update_incremental()
        if self._snapshot.version() > self._synced_version:
            self.files.sync_commits(self._synced_version + 1, self._snapshot.version())
            self._synced_version = self._snapshot.version()
        return self._snapshot

    def forget(self) -> None:
        """Begin the next call on a fresh snapshot."""
        self._snapshot = None

    def write(
        self,
        name: str,
        rows: pa.Table,
        *,
        date: str,
        options: WriteOptions = AS_WRITTEN,
        written_ms: int | None = None,
        is_new: bool = True,
    ) -> AddAction:
        """Write and sync a data file of one day, and return the action that adds it.

        Args:
            name: as in `parts`.
            rows: not empty; without `date`.
            written_ms: when the oldest of its rows was stored; None: now.
            is_new: whether its rows were not in the table before.
        """
        size = self.files.write_parquet(name, rows, options)
        stats = json.dumps(_statistics(rows))
        now_ms = time.time_ns() // 1_000_000 if written_ms is None else written_ms
        return AddAction(name, size, {columns.DATE: date}, now_ms, is_new, stats)

    def add_columns(self, table: DeltaTable, schema: pa.Schema) -> None:
        """Add the columns of `schema` that the table lacks, in a commit of its own."""
        for _ in range(MAX_ATTEMPTS):
            known = {field.name.casefold(): field for field in pa.schema(table.schema())}
            new = columns.check_columns(schema, known)
            if not new:
                return
            try:
                with blaming_rows(self, pa.schema(new)):
                    table.alter.add_columns(
                        [Field.from_arrow(field) for field in new], post_commithook_properties=NO_HOOKS
                    )
            except CommitFailedError as refused:
                _log.debug("store %s: another writer was first: %s", self, refused)
            table.update_incremental()
        raise self._conflict()

    def commit(
        self,
        actions: Sequence[AddAction | RemoveAction],
        schema: pa.Schema,
        transactions: Mapping[str, int],
        check: Check,
        *,
        exactly: bool = False,
    ) -> None:
        """Make one commit, on a snapshot that `check` has seen.

        Args:
            schema: columns of the files added; new ones join the table first.
            transactions: app transactions of the commit. Another commit of one of them that `check` did not see makes
                this one start over.
            exactly: start over if there was any commit that `check` did not see; for what removes files.

        Raises:
            StoreConflictError: other writers were first `MAX_ATTEMPTS` times.
        """
        properties = CommitProperties(
            max_commit_retries=0 if exactly else None,
            app_transactions=[Transaction(name, version) for name, version in transactions.items()],
        )
        for _ in range(MAX_ATTEMPTS):
            table = self.refreshed()
            before = table.version()
            self.add_columns(table, schema)
            check(table)  # nothing from here to the commit may refresh the snapshot
            try:
                table.create_write_transaction(
                    list(actions),
                    "append",
                    table.schema(),
                    [columns.DATE],
                    commit_properties=properties,
                    post_commithook_properties=NO_HOOKS,
                )
            except CommitFailedError as refused:
                _log.debug("store %s: another writer was first: %s", self, refused)
                continue
            after = self.refreshed().version()
            if before // CHECKPOINT_INTERVAL != after // CHECKPOINT_INTERVAL:
                self.checkpoint()
            return
        raise self._conflict()

    def remove_uncommitted(self, actions: Sequence[AddAction]) -> None:
        """Remove the data files of a commit that failed, unless it got through all the same."""
        try:
            committed = {part.key for part in parts_of(pa.table(self.open().get_add_actions(flatten=True)))}
        except (DeltaError, OSError) as unknown:
            _log.warning("store %s: %d unused data files may stay behind: %s", self, len(actions), unknown)
            return
        for action in actions:
            if action.path not in committed:
                self.files.remove(action.path)

    def checkpoint(self) -> None:
        """Make a checkpoint and delete log files past their retention. The rows are safe, so a failure is only told."""
        table = self.refreshed()
        try:
            table.create_checkpoint()
            self.files.sync_checkpoint(table.version())
            table.cleanup_metadata()
        except (DeltaError, OSError) as error:
            _log.warning("store %s: no checkpoint at version %d: %s", self, table.version(), plain(error))

    def configure(self) -> None:
        """Bring the settings of a table that an earlier release made up to those of this one."""
        table = self.refreshed()
        stored = table.metadata().configuration
        changed = {name: value for name, value in CONFIGURATION.items() if value and stored.get(name) != value}
        if changed:
            table.alter.set_table_properties(changed)
            self.refreshed()

    def vacuum(self) -> int:
        """Delete data files that no snapshot of the last `DELETED_FILES_HOURS` needs, and return how many."""
        table = self.refreshed()
        names = table.vacuum(
            retention_hours=DELETED_FILES_HOURS,
            dry_run=False,
            enforce_retention_duration=False,
            full=True,
            post_commithook_properties=NO_HOOKS,
        )
        self.refreshed()
        return len(names)

    def _create(self) -> DeltaTable:
        self.files.make_root()
        schema = Schema.from_arrow(self.layout.schema)
        try:
            return DeltaTable.create(
                self.files.uri,
                schema,
                partition_by=[columns.DATE],
                name=self.layout.name,
                description=self.layout.description,
                configuration=CONFIGURATION,
                storage_options=self.files.storage_options,
            )
        except DeltaError:
            if self.exists():  # another writer made it meanwhile
                return self.open()
            raise

    def _conflict(self) -> StoreConflictError:
        return StoreConflictError(
            f"store {self}: other writers committed first {MAX_ATTEMPTS} times; nothing was stored. Try again"
        )


@dataclass(frozen=True, slots=True)
class State:
    """One state of a table.

    Attributes:
        transactions: gives the version of an app transaction, None where there was none.
    """

    version: int
    schema: pa.Schema
    parts: Sequence[Part]
    transactions: Mapping[str, int | None]


class Reader:
    """A table, as a reader sees it: its newest state, listed once a version.

    Args:
        transactions: names of the app transactions that are told.
    """

    def __init__(self, table: Table, transactions: Sequence[str] = ()) -> None:
        self._table = table
        self._names = transactions
        self._open: DeltaTable | None = None
        self._listed = 0.0
        self._state: State | None = None

    def state(self) -> State | None:
        """Return the newest state, None where there is no table yet."""
        now = time.monotonic()
        if self._open is None:
            if not self._table.exists():
                return None
            self._open = self._table.open()
        elif now - self._listed < LISTED_SECONDS and not self._table.files.may_have_commit(self._open.version() + 1):
            return self._state
        elif self._table.files.whole_version() is None:
            self._open.update_incremental()
        self._listed = now
        if self._state is None or self._state.version != self._open.version():
            self._state = state_of(self._open, self._names)
        return self._state

    def forget(self) -> None:
        """Begin the next call on a fresh snapshot."""
        self._open = self._state = None


def state_of(table: DeltaTable, transactions: Sequence[str] = ()) -> State:
    """List a snapshot."""
    return State(
        table.version(),
        pa.schema(table.schema()),
        parts_of(pa.table(table.get_add_actions(flatten=True))),
        {name: table.transaction_version(name) for name in transactions},
    )


def dataset_of(files: Files, schema: pa.Schema) -> Callable[[Sequence[Part]], ds.Dataset]:
    """Return what opens some parts of a table to be read; columns that a part lacks are null in it.

    Parts that cannot hold what a filter asks for are not opened.
    """
    in_files = pa.schema([field for field in schema if field.name != columns.DATE])

    def dataset(parts: Sequence[Part]) -> ds.Dataset:
        fragments = [files.fragments.of(files.path(part.key), _holds(part)) for part in parts]
        return ds.FileSystemDataset(fragments, in_files, files.fragments.format, files.fragments.filesystem)

    return dataset


def _holds(part: Part) -> ds.Expression | None:
    """Return what is true of each row of a part."""
    if not part.has_times:
        return None
    time = ds.field(columns.TIME)
    low, high = (pa.scalar(us, columns.TIME_TYPE) for us in (part.min_us, part.max_us))
    holds = (time >= low) & (time <= high)
    if part.min_uuid is not None and part.max_uuid is not None:
        holds &= (ds.field("uuid") >= part.min_uuid) & (ds.field("uuid") <= part.max_uuid)
    return holds


@contextmanager
def telling_errors(table: Table, *forgetting: Table | Reader) -> Iterator[None]:
    """Turn the errors of deltalake and the disk into ours, and begin the next call on fresh snapshots."""
    try:
        yield
    except (DeltaError, OSError, pa.ArrowException) as error:
        for stale in forgetting:
            stale.forget()
        raise _store_error(table, error) from error


@contextmanager
def blaming_rows(table: Table, schema: pa.Schema) -> Iterator[None]:
    """Tell by the error's class where it is the rows that cannot be stored, and not the store that fails."""
    try:
        yield
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, SchemaMismatchError) as error:
        raise StoreSchemaError(
            f"store {table} cannot hold these rows ({plain(error)}); leave out those that do not fit",
            columns=schema.names,
        ) from error


def _statistics(rows: pa.Table) -> dict[str, object]:
    """Return what lets readers leave a file out: its times, and its GPUs where each row names one."""
    span = pc.min_max(rows[columns.TIME].cast(pa.int64()))
    low = {columns.TIME: columns.microseconds_iso(span["min"].as_py())}
    high = {columns.TIME: columns.microseconds_iso(span["max"].as_py())}
    nulls = {columns.TIME: 0}
    if "uuid" in rows.schema.names:
        nulls["uuid"] = rows["uuid"].null_count
        if not nulls["uuid"]:
            uuids = pc.min_max(rows["uuid"])
            low["uuid"], high["uuid"] = uuids["min"].as_py(), uuids["max"].as_py()
    return {"numRecords": rows.num_rows, "minValues": low, "maxValues": high, "nullCount": nulls}


def _store_error(table: Table, error: Exception) -> StoreError:
    text = plain(error)
    number = error.errno if isinstance(error, OSError) and error.errno is not None else None
    if number is None and (found := _OS_ERROR.search(text)):
        number = int(found[1])
    if number in _FULL:
        return StoreFullError(f"store {table}: no space is left ({text}); free some, then it goes on", retry_after=1.0)
    if number in _UNWRITABLE:
        return StoreUnwritableError(
            f"store {table} cannot be written ({text}); give this user the right, or name another"
        )
    if isinstance(error, OSError):
        return StoreError(f"store {table}: {text}")
    return StoreCorruptError(f"store {table} cannot be read ({text}); restore it from a copy, or name another folder")


def plain(error: Exception) -> str:
    """Return an error's text in one line, without the colours and stack frames that deltalake puts in."""
    text = _ANSI.sub("", str(error)).split("\n   0:")[0]
    return " ".join(text.split())
