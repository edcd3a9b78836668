"""Files of a local Delta table that are on disk when a call returns, and what a power loss leaves behind.

deltalake syncs nothing. The order that keeps a table whole through a power loss is: the data files and their folders,
then the commit (deltalake writes it), then the commit's file and the log's folder; a checkpoint before the log files
that it replaces are deleted.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

LOG_DIR: Final = "_delta_log"
HINT: Final = "_last_checkpoint"

ROW_GROUP_ROWS: Final = 65_536
"""Readers decode a row group at a time; this many rows of 30 metrics take some 20 MB."""

_VERSION: Final = re.compile(r"(\d{20})\.json")
_PARQUET_MAGIC: Final = b"PAR1"

_log = logging.getLogger(__name__)


class DurableFiles:
    """Writes and syncs below one table folder.

    Args:
        root: the table's folder.
        fsync: as `os.fsync`; tests count and fail it.
    """

    def __init__(self, root: Path, fsync: Callable[[int], None] = os.fsync) -> None:
        self.root = root
        self.log = root / LOG_DIR
        self._fsync = fsync
        self._synced_folders: set[Path] = set()

    def write_parquet(self, path: Path, table: pa.Table) -> int:
        """Write a new data file, sync it and its folders, and return its size in bytes; on failure it is gone again."""
        path.parent.mkdir(exist_ok=True)
        try:
            with path.open("xb") as file:
                pq.write_table(table, file, compression="zstd", row_group_size=ROW_GROUP_ROWS, store_schema=False)
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
        """Remove an unreadable newest commit, and an unreadable newest checkpoint.

        They appear whole or not at all, but for a power loss before they were synced. Until then no write was answered
        on their account, and no log file was deleted for the checkpoint's sake; so nothing is lost with them.
        """
        names = sorted(path.name for path in self.log.iterdir())
        commits = [name for name in names if _VERSION.fullmatch(name)]
        if commits and not _is_json_lines(self.log / commits[-1]):
            self._cut(self.log / commits[-1])
        checkpoints = [name for name in names if name.endswith(".checkpoint.parquet")]
        if checkpoints and not _is_parquet(self.log / checkpoints[-1]):
            self._cut(self.log / checkpoints[-1])
            (self.log / HINT).unlink(missing_ok=True)
        self.sync(self.log)

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
