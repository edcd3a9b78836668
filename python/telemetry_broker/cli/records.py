"""Records as JSON objects and back: what ``consume --format json`` prints, ``produce --format json`` takes."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from telemetry_broker.batch import Records
from telemetry_broker.cli.output import json_bytes, json_time
from telemetry_broker.cli.parser import near
from telemetry_broker.cli.values import time_ns

_TAKEN: Final = ("value", "key", "headers", "timestamp")
_WHERE_IT_WAS: Final = ("topic", "partition", "offset", "append_time", "attempt")


@dataclass(frozen=True, slots=True)
class Record:
    """What a producer sends."""

    value: bytes
    key: bytes | None = None
    headers: dict[str, bytes] = field(default_factory=dict)
    timestamp_ns: int = 0


def rows(records: Records) -> Iterator[tuple[int, int, int, bytes | None, bytes, dict[str, bytes]]]:
    """Of each record its offset, when it was appended, the producer's time, key, value and headers."""
    return zip(
        records.offsets,
        records.append_times_ns,
        records.timestamps_ns,
        records.keys,
        records.values,
        records.headers,
        strict=True,
    )


def as_objects(records: Records) -> Iterator[dict[str, Any]]:
    """An object for each record, with where it is; ``attempt`` only where it was leased."""
    attempt = getattr(records, "attempt", None)
    for offset, append_ns, timestamp_ns, key, value, headers in rows(records):
        shown = {
            "topic": records.topic,
            "partition": records.partition,
            "offset": offset,
            "append_time": json_time(append_ns),
            "timestamp": json_time(timestamp_ns),
            "key": json_bytes(key),
            "value": json_bytes(value),
            "headers": {name: json_bytes(content) for name, content in headers.items()},
        }
        if attempt is not None:
            shown["attempt"] = attempt
        yield shown


def from_json(line: bytes) -> Record:
    """The record of an object on a line; where it was before is passed over.

    Raises:
        ValueError: it is no such object; the message says what is wrong with it.
    """
    try:
        told = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"no JSON: {error}") from error
    if not isinstance(told, dict):
        raise ValueError(f"{_kind(told)}: give an object with value, and key, headers and timestamp as needed")
    for name in told:
        if name not in _TAKEN and name not in _WHERE_IT_WAS:
            raise ValueError(f"the field {name!r} is not known{near(name, _TAKEN)}")
    if told.get("value") is None:
        raise ValueError('value is missing: give text, or {"base64": "..."}')
    headers = told.get("headers") or {}
    if not isinstance(headers, dict):
        raise ValueError(f"headers is {_kind(headers)}: give an object of names and values")
    return Record(
        _bytes("value", told["value"]),
        None if told.get("key") is None else _bytes("key", told["key"]),
        {name: _bytes(f"header {name!r}", content) for name, content in headers.items()},
        _time(told.get("timestamp")),
    )


def _kind(value: object) -> str:
    kinds = {dict: "an object", list: "a list", str: "text", bool: "a truth value", type(None): "null"}
    return kinds.get(type(value), "a number")


def _bytes(what: str, told: object) -> bytes:
    try:
        match told:
            case str():
                return told.encode()
            case {"base64": str(text), **rest} if not rest:
                return base64.b64decode(text, validate=True)
    except (binascii.Error, UnicodeEncodeError, ValueError) as error:
        raise ValueError(f"{what} is not what it says: {error}") from error
    raise ValueError(f'{what} is {_kind(told)}: give text, or {{"base64": "..."}}')


def _time(told: object) -> int:
    match told:
        case None:
            return 0
        case str():
            return time_ns(told)
        case int() if not isinstance(told, bool) and -(1 << 63) <= told < 1 << 63:
            return told
    raise ValueError(f"timestamp is {told!r}: give a time in RFC 3339, or nanoseconds since the epoch")
