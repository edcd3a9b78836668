"""Files of a Delta table in an object store, as deltalake reaches it: S3, Azure, Google and what speaks like them.

What is written there is whole and lasts when a call returns, so nothing is synced. Credentials come from the
environment, by the names that deltalake knows: `AWS_ACCESS_KEY_ID`, `AZURE_STORAGE_ACCOUNT_NAME`, ...
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pyarrow as pa
import pyarrow.fs as fs
import pyarrow.parquet as pq
from deltalake import DeltaTable
from deltalake.fs import DeltaStorageHandler

from telemetry_services.store.durable import AS_WRITTEN, Fragments, WriteOptions


class _Handler(DeltaStorageHandler):
    """deltalake's, whose files take bytes alone, where pyarrow writes buffers."""

    def open_output_stream(self, path: str, metadata: dict[str, str] | None = None) -> Any:
        return pa.PythonFile(_BytesFile(self._handler.open_output_stream(path, metadata)), mode="w")


class _BytesFile:
    def __init__(self, file: Any) -> None:
        self._file = file
        self.closed = False

    def write(self, content: Any) -> int:
        return int(self._file.write(bytes(content)))

    def flush(self) -> None:
        self._file.flush()

    def tell(self) -> int:
        return int(self._file.tell())

    def close(self) -> None:
        if not self.closed:
            self._file.close()
            self.closed = True


class ObjectFiles:
    """Files below one URL.

    Args:
        uri: such as `s3://bucket/telemetry`, without credentials.
        filesystem: the same place as pyarrow reaches it; None: made from `uri`.
    """

    storage_options: dict[str, str] | None = None

    def __init__(self, uri: str, filesystem: fs.FileSystem | None = None) -> None:
        self.uri = uri.rstrip("/")
        self._filesystem = filesystem or fs.PyFileSystem(_Handler(self.uri))
        self.fragments = Fragments(self._filesystem, ahead=True)

    def __str__(self) -> str:
        return self.uri

    def has_log(self) -> bool:
        """As in `Files`; what else lies there is not looked at."""
        return DeltaTable.is_deltatable(self.uri)

    def may_have_commit(self, version: int) -> bool:  # noqa: ARG002 (asking takes as long as listing)
        """Tell nothing."""
        return True

    def make_root(self) -> None:
        """Do nothing: there are no folders."""

    def within(self, name: str) -> ObjectFiles:
        """Return the place of another table, below this one."""
        return ObjectFiles(f"{self.uri}/{name}", fs.SubTreeFileSystem(name, self._filesystem))

    def path(self, name: str) -> str:
        """Return a file's path."""
        return name

    def write_parquet(self, name: str, table: pa.Table, options: WriteOptions = AS_WRITTEN) -> int:
        """Write a new data file, and return its size in bytes."""
        content = pa.BufferOutputStream()
        pq.write_table(table, content, **options.arguments(table.schema.names))
        written = content.getvalue()
        self.replace_bytes(name, written)
        return int(written.size)

    def read_bytes(self, name: str) -> bytes | None:
        """Return a small file; None where there is none."""
        try:
            with self._filesystem.open_input_file(name) as file:
                return bytes(file.read())
        except FileNotFoundError:
            return None

    def replace_bytes(self, name: str, content: bytes) -> None:
        """Write a small file, so that readers see the old one or the new one, whole."""
        with self._filesystem.open_output_stream(name) as file:
            file.write(content)

    def remove(self, name: str) -> None:
        """Remove a file; one that is not there is no error."""
        with suppress(FileNotFoundError):
            self._filesystem.delete_file(name)

    @contextmanager
    def locked(self, name: str) -> Iterator[bool]:  # noqa: ARG002 (there is nothing to hold)
        """Let everyone in: of two that do the same, the second commit is refused."""
        yield True

    def cut_torn_tail(self) -> None:
        """Do nothing: objects appear whole."""

    def whole_version(self) -> int | None:
        """Tell that all are whole."""
        return None

    def sync_log(self) -> None:
        """Do nothing: what is there lasts."""

    def sync_commits(self, first: int, last: int) -> None:
        """Do nothing: what is there lasts."""

    def sync_checkpoint(self, version: int) -> None:
        """Do nothing: what is there lasts."""
