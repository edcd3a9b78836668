"""Answers in the format that was asked for: JSON, CSV or Arrow."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from http import HTTPStatus
from typing import Any, Final

import pyarrow as pa
from fastapi import Request, Response

from telemetry_services.api.problems import ApiError

ARROW: Final = "application/vnd.apache.arrow.stream"
_FORMULA_STARTS: Final = ("=", "+", "-", "@", "\t", "\r")


class Format(StrEnum):
    """The formats there are, by the name that `format=` takes."""

    JSON = "json"
    CSV = "csv"
    ARROW = "arrow"


_TYPES: Final = {"application/json": Format.JSON, "text/csv": Format.CSV, ARROW: Format.ARROW}
_CONTENT_TYPES: Final = {Format.CSV: "text/csv; charset=utf-8; header=present", Format.ARROW: ARROW}
RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "content": {
            "text/csv": {"schema": {"type": "string"}},
            ARROW: {"schema": {"type": "string", "format": "binary"}},
        }
    }
}
"""For the documentation of routes that answer in every format."""


def choose(request: Request, given: Format | None) -> Format:
    """The format of an answer: `format=`, else what Accept likes best; raises ApiError (406) for others."""
    if given is not None:
        return given
    accept = request.headers.get("accept", "*/*")
    best, best_weight = None, 0.0
    for part in accept.split(","):
        kind, _, parameters = part.strip().partition(";")
        weight = _weight(parameters)
        for content_type, found in _TYPES.items():
            if weight > best_weight and _matches(kind.strip().lower(), content_type):
                best, best_weight = found, weight
    if best is None:
        raise ApiError(
            HTTPStatus.NOT_ACCEPTABLE,
            "not_acceptable",
            f"Accept names none of what there is: send one of {', '.join(_TYPES)}, or format=json, csv or arrow",
        )
    return best


def _weight(parameters: str) -> float:
    for parameter in parameters.split(";"):
        name, _, value = parameter.strip().partition("=")
        if name.lower() == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0


def _matches(kind: str, content_type: str) -> bool:
    return kind in ("*/*", content_type, f"{content_type.split('/')[0]}/*")


def answer_rows(
    chosen: Format, names: Sequence[str], rows: Iterable[Sequence[Any]], headers: Mapping[str, str]
) -> Response:
    """Rows as CSV or Arrow."""
    if chosen is Format.CSV:
        return Response(to_csv(names, rows), media_type=_CONTENT_TYPES[chosen], headers=dict(headers))
    columns = list(zip(*rows, strict=True)) or [()] * len(names)
    table = pa.table({name: pa.array(column) for name, column in zip(names, columns, strict=True)})
    return Response(to_arrow(table), media_type=ARROW, headers=dict(headers))


def answer_table(chosen: Format, table: pa.Table, headers: Mapping[str, str]) -> Response:
    """A table as CSV or Arrow; times as they are in Arrow, RFC 3339 in CSV."""
    if chosen is Format.ARROW:
        return Response(to_arrow(table), media_type=ARROW, headers=dict(headers))
    columns = json_columns(table)
    rows = zip(*columns.values(), strict=True) if columns else ()
    text = to_csv(list(columns), (["" if cell is None else cell for cell in row] for row in rows))
    return Response(text, media_type=_CONTENT_TYPES[chosen], headers=dict(headers))


def json_columns(table: pa.Table) -> dict[str, list[Any]]:
    """The columns of a table as JSON has them; times are RFC 3339."""
    from telemetry_services.api.times import format_time

    columns: dict[str, list[Any]] = {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        if pa.types.is_timestamp(column.type):
            shown: dict[int, str] = {}
            times = column.cast(pa.int64()).to_pylist()
            columns[name] = [shown.get(at) or shown.setdefault(at, format_time(at)) for at in times]
        elif pa.types.is_floating(column.type):
            columns[name] = [None if value is None or value != value else value for value in column.to_pylist()]
        else:
            columns[name] = column.to_pylist()
    return columns


def to_csv(names: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """CSV as RFC 4180 has it. A text that a spreadsheet would run as a formula gets an apostrophe in front."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(names)
    writer.writerows([_harmless(cell) for cell in row] for row in rows)
    return out.getvalue()


def _harmless(cell: Any) -> Any:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA_STARTS) else cell


def to_arrow(table: pa.Table) -> bytes:
    """An Arrow IPC stream."""
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()
