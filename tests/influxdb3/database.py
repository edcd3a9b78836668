"""Tables of points by identity, with the schema that the first write of a column settles."""

import json
import re
import threading
import time
from collections.abc import Iterator
from typing import Any

import datafusion
import pyarrow as pa

from tests.influxdb3.lines import (
    BOOLEAN,
    FLOAT,
    INTEGER,
    STRING,
    UINTEGER,
    UNITS,
    FieldValue,
    Line,
    LineError,
    parse,
    split,
)

MAX_COLUMNS = 500
FILE_LIMIT = 432
TAG = "tag"
_TYPES = {
    TAG: pa.dictionary(pa.int32(), pa.string()),
    FLOAT: pa.float64(),
    INTEGER: pa.int64(),
    UINTEGER: pa.uint64(),
    STRING: pa.string(),
    BOOLEAN: pa.bool_(),
}
_BOUND = re.compile(r"time (>=|<) to_timestamp_nanos\(\$(\w+)\)")
_FILE_NS = 600 * 10**9
Identity = tuple[tuple[tuple[str, str], ...], int]


class Table:
    """One table."""

    def __init__(self) -> None:
        self.columns: dict[str, str] = {}
        self.points: dict[Identity, dict[str, FieldValue]] = {}

    def write(self, line: Line, unit: int) -> None:
        """Stores a line, or raises `LineError` and stores nothing."""
        kinds = dict.fromkeys(dict(line.tags), TAG) | {name: kind for name, (kind, _) in line.fields.items()}
        for name, kind in kinds.items():
            known = self.columns.get(name, kind)
            if known != kind:
                raise LineError(f"invalid column type for column '{name}', expected {_told(known)}, got {_told(kind)}")
        if len(self.columns.keys() | kinds) > MAX_COLUMNS - 1:
            raise LineError(f"Update to schema would exceed number of columns per table limit of {MAX_COLUMNS} columns")
        self.columns |= kinds
        stamp = time.time_ns() if line.time is None else line.time * (unit or _guessed(line.time))
        values = {name: value for name, (_, value) in line.fields.items()}
        self.points.setdefault((line.tags, stamp), {}).update(values)

    def to_arrow(self) -> pa.Table:
        """All points, by time."""
        points = sorted(self.points.items(), key=lambda point: point[0][1])
        rows = [{**dict(tags), **values, "time": stamp} for (tags, stamp), values in points]
        fields = [pa.field(name, _TYPES[kind]) for name, kind in sorted(self.columns.items())]
        schema = pa.schema([*fields, pa.field("time", pa.timestamp("ns"), nullable=False)])
        return pa.Table.from_pylist(rows, schema=schema)


class NotFoundError(Exception):
    """There is no such database."""


class Databases:
    """All that a server keeps. For any thread."""

    def __init__(self) -> None:
        self._tables: dict[str, dict[str, Table]] = {}
        self._lock = threading.Lock()
        self.file_limit = FILE_LIMIT

    def create(self, name: str) -> bool:
        """Makes a database; False where it is there already."""
        with self._lock:
            if name in self._tables:
                return False
            self._tables[name] = {}
            return True

    def drop(self, name: str) -> None:
        """Removes a database, as an operator may at any time."""
        with self._lock:
            self._tables.pop(name, None)

    def write(self, name: str, text: str, precision: str, *, accept_partial: bool) -> list[dict[str, Any]]:
        """Stores the good lines and gives the bad ones; without `accept_partial` nothing where one is bad."""
        unit = UNITS.get(precision, 0)
        bad: list[dict[str, Any]] = []
        with self._lock:
            lines = []
            for number, line in split(text):
                try:
                    lines.append((number, line, parse(line)))
                except LineError as error:
                    bad.append(_told_line(number, line, error))
            if bad and not accept_partial:
                return bad[:1]
            tables = self._tables.setdefault(name, {})
            for number, line, parsed in lines:
                try:
                    tables.setdefault(parsed.table, Table()).write(parsed, unit)
                except LineError as error:
                    bad.append(_told_line(number, line, error))
        return sorted(bad, key=lambda told: told["line_number"])

    def points(self, name: str) -> dict[Identity, dict[str, FieldValue]]:
        """What the table `gpu` of a database holds."""
        with self._lock:
            table = self._tables.get(name, {}).get("gpu", Table())
            return {identity: dict(values) for identity, values in table.points.items()}

    def query(self, name: str, sql: str, parameters: dict[str, Any]) -> pa.RecordBatchReader:
        """Answers a query.

        Raises:
            NotFoundError: there is no such database.
            Exception: whatever DataFusion says of the query.
        """
        with self._lock:
            if name not in self._tables:
                raise NotFoundError(f"database not found: {name}")
            tables = {table: content.to_arrow() for table, content in self._tables[name].items()}
        config = (
            datafusion.SessionConfig().with_default_catalog_and_schema("public", "iox").with_information_schema(True)
        )
        context = datafusion.SessionContext(config)
        for table, content in tables.items():
            context.register_record_batches(table, [content.to_batches() or [_empty(content.schema)]])
        _check_files(sql, parameters, tables, self.file_limit)
        only_queries = datafusion.SQLOptions().with_allow_ddl(False).with_allow_dml(False).with_allow_statements(False)
        frame = context.sql_with_options(sql, only_queries, param_values=parameters)
        result = frame.to_arrow_table()
        return result.to_reader()


def _check_files(sql: str, parameters: dict[str, Any], tables: dict[str, pa.Table], limit: int) -> None:
    """Refuses a query whose range of time lies in too many files, of ten minutes each."""
    if "FROM gpu" not in sql or "gpu" not in tables:
        return
    low, high = -(1 << 63), 1 << 63
    for sign, name in _BOUND.findall(sql):
        if sign == "<":
            high = min(high, parameters[name])
        else:
            low = max(low, parameters[name])
    times = tables["gpu"]["time"].cast(pa.int64()).to_pylist()
    if len({at // _FILE_NS for at in times if low <= at < high}) > limit:
        raise ValueError(
            f"External error: Query would exceed file limit of {limit} parquet files. "
            "Please specify a smaller time range for your query."
        )


def _empty(schema: pa.Schema) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([], schema=schema)


def _told(kind: str) -> str:
    return "iox::column_type::tag" if kind == TAG else f"iox::column_type::field::{kind}"


def _told_line(number: int, line: str, error: LineError) -> dict[str, Any]:
    return {"error_message": str(error), "line_number": number, "original_line": line[:20]}


def _guessed(stamp: int) -> int:
    size = abs(stamp)
    return next((unit for limit, unit in ((5e9, 10**9), (5e12, 10**6), (5e15, 10**3)) if size < limit), 1)


def to_json(bad: list[dict[str, Any]], *, accept_partial: bool) -> Iterator[bytes]:
    """The body of an answer about bad lines."""
    if accept_partial:
        yield json.dumps({"error": "partial write of line protocol occurred", "data": bad}).encode()
    else:
        yield json.dumps({"error": "parsing failed for write_lp endpoint", "data": bad[0]}).encode()
