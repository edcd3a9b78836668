"""Line protocol as InfluxDB 3 reads it, apart from our own reader, so that one can check the other."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

FLOAT, INTEGER, UINTEGER, STRING, BOOLEAN = "float", "integer", "uinteger", "string", "boolean"
FieldValue = float | int | str | bool

_NAME = r"(?:\\.|[^\\,= \n])+"
_MEASUREMENT = re.compile(r"(?:\\.|[^\\, \n])+")
_TAG = re.compile(rf",({_NAME})=((?:\\.|[^\\, \n])+)")
_STRING = r'"(?:\\.|[^"\\])*"'
_FIELD = re.compile(rf"({_NAME})=({_STRING}|[^, \n]*)", re.DOTALL)
_ESCAPE = re.compile(r"\\([\\,= ])")
_INTEGER = re.compile(r"(-?\d+)([iu])")
_NUMBER = re.compile(r"-?\d+(?:\.\d*)?(?:[eE][+-]?\d+)?")
_BOOLEANS = {word: word[0] in "tT" for word in ("t", "T", "true", "True", "TRUE", "f", "F", "false", "False", "FALSE")}
_END = re.compile(rf"(?:{_STRING}|\\.|[^\n])*?(?=\n|$)", re.DOTALL)

UNITS = {
    "nanosecond": 1,
    "ns": 1,
    "n": 1,
    "microsecond": 1_000,
    "us": 1_000,
    "u": 1_000,
    "millisecond": 1_000_000,
    "ms": 1_000_000,
    "second": 1_000_000_000,
    "s": 1_000_000_000,
}


class LineError(ValueError):
    """A line that is not taken, with the server's message."""


@dataclass(frozen=True)
class Line:
    """A point as it was written."""

    table: str
    tags: tuple[tuple[str, str], ...]
    fields: dict[str, tuple[str, FieldValue]]
    """Type and value by name."""
    time: int | None


def split(text: str) -> Iterator[tuple[int, str]]:
    """The lines that hold a point, with their numbers, from 1; those of blank lines and comments are counted too."""
    for number, line in enumerate(text.split("\n") if '"' not in text else _split_quoted(text), start=1):
        if line.strip() and not line.lstrip().startswith("#"):
            yield number, line.strip()


def _split_quoted(text: str) -> list[str]:
    lines, at = [], 0
    while at <= len(text):
        match = _END.match(text, at)
        assert match is not None
        lines.append(match.group())
        at = match.end() + 1
    return lines


def parse(line: str) -> Line:
    """Reads one line.

    Raises:
        LineError: it is none.
    """
    match = _MEASUREMENT.match(line)
    if match is None:
        raise LineError("Invalid measurement was provided")
    table, at = _plain(match.group()), match.end()
    tags: dict[str, str] = {}
    while tag := _TAG.match(line, at):
        tags[_plain(tag.group(1))] = _plain(tag.group(2))
        at = tag.end()
    if line[at : at + 1] not in ("", " "):
        raise LineError("Tag Set Malformed")
    at = _skip(line, at)
    fields: dict[str, tuple[str, FieldValue]] = {}
    while found := _FIELD.match(line, at):
        fields[_plain(found.group(1))] = _value(found.group(2))
        at = found.end()
        if line[at : at + 1] != ",":
            break
        at += 1
    if not fields:
        raise LineError("No fields were provided")
    stamp = line[_skip(line, at) :]
    return Line(table, tuple(sorted(tags.items())), fields, _time(stamp))


def _skip(line: str, at: int) -> int:
    while line[at : at + 1] == " ":
        at += 1
    return at


def _plain(text: str) -> str:
    return _ESCAPE.sub(r"\1", text)


def _value(text: str) -> tuple[str, FieldValue]:
    if text.startswith('"'):
        return STRING, text[1:-1].replace('\\"', '"').replace("\\\\", "\\")
    if text in _BOOLEANS:
        return BOOLEAN, _BOOLEANS[text]
    if match := _INTEGER.fullmatch(text):
        return (INTEGER if match.group(2) == "i" else UINTEGER), int(match.group(1))
    if _NUMBER.fullmatch(text) and math.isfinite(float(text)):
        return FLOAT, float(text)
    raise LineError("No fields were provided")


def _time(text: str) -> int | None:
    if not text:
        return None
    if not re.fullmatch(r"-?\d+", text) or not -(1 << 63) <= int(text) < 1 << 63:
        raise LineError(f"Unable to parse timestamp value '{text}'")
    return int(text)
