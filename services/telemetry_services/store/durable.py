"""Files of a local Delta table that are on disk when a call returns, and what a power loss leaves behind.

deltalake syncs nothing. The order that keeps a table whole through a power loss is: the data files and their folders,
then the commit (deltalake writes it), then the commit's file and the log's folder; a checkpoint before the log files
that it replaces are deleted.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.fs as fs
import pyarrow.parquet as pq

from telemetry_services.store.errors import StoreForeignError

LOG_DIR: Final = "_delta_log"
HINT: Final = "_last_checkpoint"

ROW_GROUP_ROWS: Final = 65_536
"""Readers decode a row group at a time; this many rows of 30 metrics take some 20 MB."""

_VERSION: Final = re.compile(r"(\d{20})\.json")
_PARQUET_MAGIC: Final = b"PAR1"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WriteOptions:
    """How a data file is written.

    Attributes:
        row_group_rows: rows that a reader decodes together.
        level: of zstd; 1 is quick, from 9 on it gets slow.
        plain: how columns without a dictionary are encoded, by name; all others have one.
        statistics: columns with their least and largest value in each row group; None: all.
    """

    row_group_rows: int = ROW_GROUP_ROWS
    level: int = 1
    plain: dict[str, str] | None = None
    statistics: Sequence[str] | None = None

    def arguments(self, names: Sequence[str]) -> dict[str, Any]:
        """Return the keyword arguments of `pyarrow.parquet.write_table` for a table of these columns."""
        plain = {name: encoding for name, encoding in (self.plain or {}).items() if name in names}
        return {
            "compression": "zstd",
            "compression_level": self.level,
            "row_group_size": self.row_group_rows,
            "store_schema": False,
            "use_dictionary": [name for name in names if name not in plain] if plain else True,
            "column_encoding": plain or None,
            "write_statistics": True if self.statistics is None else [n for n in names if n in self.statistics],
        }


KEPT_FOOTERS: Final = 256
"""Each takes some 100 kB."""

AS_WRITTEN: Final = WriteOptions()
"""How rows are written that are merged later: quickly."""


class Fragments:
    """Opens data files for pyarrow, and keeps the footers of those that were read last.

    Args:
        ahead: read what a query needs of a file in few large pieces: for places where each reading takes its time.
    """

    def __init__(self, filesystem: fs.FileSystem, *, ahead: bool) -> None:
        self.filesystem = filesystem
        self.format = ds.ParquetFileFormat(
            default_fragment_scan_options=ds.ParquetFragmentScanOptions(pre_buffer=ahead)
        )
        self._kept: OrderedDict[str, ds.ParquetFileFragment] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, path: str, holds: ds.Expression | None) -> ds.ParquetFileFragment:
        """Return the file at `path`, which never changes, and of whose rows `holds` is true."""
        with self._lock:
            fragment = self._kept.pop(path, None) or self.format.make_fragment(path, self.filesystem, holds)
            self._kept[path] = fragment
            if len(self._kept) > KEPT_FOOTERS:
                self._kept.popitem(last=False)
        return fragment


class Files(Protocol):
    """Where the files of a table are. Names are relative to the table, with `/` between their parts."""

    uri: str
    """As deltalake takes it."""
    storage_options: dict[str, str] | None
    fragments: Fragments
    """As pyarrow reads from it."""

    def has_log(self) -> bool:
        """Tell whether there is a Delta log with anything in it.

        Raises:
            StoreForeignError: the place holds something else.
        """
        ...

    def make_root(self) -> None:
        """Make the place itself, where that is needed."""
        ...

    def write_parquet(self, name: str, table: pa.Table, options: WriteOptions = AS_WRITTEN) -> int:
        """Write a new data file so that it lasts, and return its size in bytes; on failure it is gone again."""
        ...

    def may_have_commit(self, version: int) -> bool:
        """Tell whether there may be a commit of this version, where that is quickly told; else True."""
        ...

    def read_bytes(self, name: str) -> bytes | None:
        """Return a small file; None where there is none."""
        ...

    def replace_bytes(self, name: str, content: bytes) -> None:
        """Write a small file, so that readers see the old one or the new one, whole."""
        ...

    def remove(self, name: str) -> None:
        """Remove a file; one that is not there is no error."""
        ...

    def path(self, name: str) -> str:
        """Return a file's path, as `fragments` takes it."""
        ...

    def within(self, name: str) -> Files:
        """Return the place of another table, below this one."""
        ...

    def locked(self, name: str) -> AbstractContextManager[bool]:
        """Hold a lock against other processes, where there is such a thing; False: another one holds it."""
        ...

    def cut_torn_tail(self) -> None:
        """Mend what a power loss left of a log, where there is one."""
        ...

    def whole_version(self) -> int | None:
        """Return the newest version whose commit is whole, where a power loss left torn ones after it; else None."""
        ...

    def sync_log(self) -> None:
        """Make sure that all of the log lasts."""
        ...

    def sync_commits(self, first: int, last: int) -> None:
        """Make sure that the commits of these versions, both inclusive, last."""
        ...

    def sync_checkpoint(self, version: int) -> None:
        """Make sure that the checkpoint of this version lasts."""
        ...


class DurableFiles:
    """Files in a local folder: what is written is on disk (fsynced) when a call returns.

    Args:
        root: the table's folder.
        fsync: as `os.fsync`; tests count and fail it.
    """

    storage_options: dict[str, str] | None = None

    def __init__(self, root: Path, fsync: Callable[[int], None] = os.fsync) -> None:
        self.root = root
        self.uri = str(root)
        self.log = root / LOG_DIR
        self._fsync = fsync
        self._synced_folders: set[Path] = set()
        self.fragments = Fragments(fs.LocalFileSystem(), ahead=False)

    def __str__(self) -> str:
        return self.uri

    def has_log(self) -> bool:
        """As in `Files`; a folder with nothing in it, or with no commit that is whole, has none yet."""
        try:
            names = {entry.name for entry in self.root.iterdir()}
        except FileNotFoundError:
            return False
        except NotADirectoryError:
            raise StoreForeignError(
                f"store {self} is a file, or below one; name a folder that is empty or not there"
            ) from None
        if LOG_DIR in names:
            begun = any(path.suffix in (".json", ".parquet") for path in self.log.iterdir())
            return begun and self.whole_version() != -1
        if names:
            raise StoreForeignError(
                f"store {self} holds {min(names)!r} and no Delta table; name a folder that is empty or not there"
            )
        return False

    def may_have_commit(self, version: int) -> bool:
        """Tell whether there is a commit of this version; one of long ago may be gone."""
        return (self.log / f"{version:020}.json").exists()

    def make_root(self) -> None:
        """Make the folder."""
        self.root.mkdir(parents=True, exist_ok=True)

    def within(self, name: str) -> DurableFiles:
        """Return a folder below this one."""
        return DurableFiles(self.root / name, self._fsync)

    def path(self, name: str) -> str:
        """Return a file's path."""
        return str(self.root / name)

    def remove(self, name: str) -> None:
        """Remove a file; one that is not there is no error."""
        (self.root / name).unlink(missing_ok=True)

    def read_bytes(self, name: str) -> bytes | None:
        """Return a small file; None where there is none."""
        try:
            return (self.root / name).read_bytes()
        except FileNotFoundError:
            return None

    def replace_bytes(self, name: str, content: bytes) -> None:
        """Write a small file, so that readers see the old one or the new one, whole."""
        path = self.root / name
        new = path.with_name(f"{path.name}.new")
        with new.open("wb") as file:
            file.write(content)
            file.flush()
            self._fsync(file.fileno())
        new.replace(path)
        self.sync(path.parent)

    @contextmanager
    def locked(self, name: str) -> Iterator[bool]:
        """Hold a lock against other processes of this machine; False: another one holds it."""
        with (self.root / name).open("ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True

    def write_parquet(self, name: str, table: pa.Table, options: WriteOptions = AS_WRITTEN) -> int:
        """Write a new data file, sync it and its folders, and return its size in bytes; on failure it is gone again."""
        path = self.root / name
        path.parent.mkdir(exist_ok=True)
        try:
            with path.open("xb") as file:
                pq.write_table(table, file, **options.arguments(table.schema.names))
                file.flush()
                self._fsync(file.fileno())
                size = file.tell()
            self.sync(path.parent)
            if path.parent not in self._synced_folders:
                self.sync(self.root)
                self._synced_folders.add(path.parent)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return size

    def sync(self, path: Path) -> None:
        """Sync one file or folder."""
        descriptor = os.open(path, os.O_RDONLY)
        try:
            self._fsync(descriptor)
        finally:
            os.close(descriptor)

    def sync_commits(self, first: int, last: int) -> None:
        """Sync the commits of these versions, both inclusive, and the folder that names them.

        Commits of other writers too: ours stands on them, and theirs may not have been synced yet.
        """
        for version in range(first, last + 1):
            path = self.log / f"{version:020}.json"
            if path.exists():  # else it was replaced by a checkpoint, which was synced before that
                self.sync(path)
        self.sync(self.log)

    def sync_checkpoint(self, version: int) -> None:
        """Sync the checkpoint of this version, before the log files that it stands for may be deleted."""
        for path in (*self.log.glob(f"{version:020}.checkpoint*.parquet"), self.log / HINT):
            self.sync(path)
        self.sync(self.log)

    def sync_log(self) -> None:
        """Sync all of the log, and the folders down to it: whoever wrote them may have been killed before it could."""
        for path in self.log.iterdir():
            try:
                self.sync(path)
            except FileNotFoundError:  # another writer's: a temporary file, or replaced by a checkpoint
                continue
        for folder in (self.log, self.root, *self.root.parents):
            if not os.access(folder, os.R_OK):
                break
            self.sync(folder)

    def cut_torn_tail(self) -> None:
        """Remove unreadable newest commits, and an unreadable newest checkpoint.

        They appear whole or not at all, but for a power loss before they were synced. Until then no write was answered
        on their account, and no log file was deleted for the checkpoint's sake; so nothing is lost with them.
        """
        if not self.log.is_dir():
            return
        names = sorted(path.name for path in self.log.iterdir())
        for name in self._torn_commits(names):
            self._cut(self.log / name)
        checkpoints = [name for name in names if name.endswith(".checkpoint.parquet")]
        if checkpoints and not _is_parquet(self.log / checkpoints[-1]):
            self._cut(self.log / checkpoints[-1])
            (self.log / HINT).unlink(missing_ok=True)
        self.sync(self.log)

    def whole_version(self) -> int | None:
        """As in `Files`. A reader must not take a torn commit for an empty one: the next of that version is not."""
        torn = list(self._torn_commits(sorted(path.name for path in self.log.iterdir())))
        return int(Path(torn[-1]).stem) - 1 if torn else None

    def _torn_commits(self, names: Sequence[str]) -> Iterator[str]:
        """Give the unreadable commits at the end of the log, the newest first; `names` are sorted."""
        for name in reversed([name for name in names if _VERSION.fullmatch(name)]):
            if _is_json_lines(self.log / name):
                break
            yield name

    def _cut(self, path: Path) -> None:
        _log.warning("%s was torn by a power loss before it was synced and is removed; no answer was given on it", path)
        path.unlink()


def _is_json_lines(path: Path) -> bool:
    lines = path.read_bytes().splitlines()
    try:
        return bool([json.loads(line) for line in lines])
    except ValueError:
        return False


def _is_parquet(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - len(_PARQUET_MAGIC)))
        return file.read() == _PARQUET_MAGIC
