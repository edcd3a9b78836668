"""What people and scripts are shown: aligned tables, JSON, sizes and ages, and text that is safe on a terminal."""

from __future__ import annotations

import base64
import json
import sys
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Final

_KIBI: Final = 1024
_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_AGES: Final = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))
_LENGTHS: Final = ((86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s"))


def line(text: str) -> None:
    """A line of the result."""
    sys.stdout.write(text + "\n")


def note(text: str) -> None:
    """A line for people beside the result."""
    sys.stderr.write(safe(text) + "\n")


def json_line(value: object) -> None:
    """An object on a line of its own. ASCII: no terminal and no locale makes anything else of it."""
    line(json.dumps(value))


def table(columns: Sequence[str], rows: Iterable[Sequence[str | int]]) -> None:
    """Prints rows under headings, all columns as wide as their widest cell.

    What could move a terminal's cursor or change its colours is escaped.

    Args:
        columns: the headings; a ``>`` in front of one marks a column of numbers or sizes.
        rows: a cell for each column.
    """
    shown = [[f"{cell:,}" if isinstance(cell, int) else safe(cell) for cell in row] for row in rows]
    to_right = [column.startswith(">") for column in columns]
    headings = [column.removeprefix(">") for column in columns]
    widths = [max(map(len, cells)) for cells in zip(headings, *shown, strict=True)]
    for cells in (headings, *shown):
        padded = (
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(cells, widths, to_right, strict=True)
        )
        line("  ".join(padded).rstrip())


def facts(pairs: Iterable[tuple[str, str]]) -> None:
    """Prints names and values, one a line."""
    listed = list(pairs)
    width = max(len(name) for name, _ in listed)
    for name, value in listed:
        line(f"{name.ljust(width)}  {safe(value)}")


def note_missing(brokers: Sequence[str]) -> None:
    """Says which brokers are away, and so are missing in what was shown."""
    if brokers:
        note(f"not in here, because they are away: {', '.join(brokers)}")


def safe(text: str) -> str:
    """On one line of a terminal, whatever the text is: control characters and the like are escaped."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def safe_bytes(value: bytes) -> str:
    """The same for bytes; those that are no UTF-8 are escaped too."""
    return safe(value.decode(errors="backslashreplace"))


def json_bytes(value: bytes | None) -> str | dict[str, str] | None:
    """Text as it is, other bytes as ``{"base64": ...}``."""
    if value is None:
        return None
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(value).decode()}


def size(nbytes: int) -> str:
    """Bytes in the unit that keeps the number below 1,024."""
    amount = float(nbytes)
    for unit in _UNITS:
        if amount < _KIBI or unit == _UNITS[-1]:
            break
        amount /= _KIBI
    return f"{nbytes} B" if unit == "B" else f"{amount:.1f} {unit}"


def duration(seconds: float) -> str:
    """The shortest text that says it exactly and that an option takes: ``500ms``, ``30s``, ``7d``."""
    milliseconds = round(seconds * 1000)
    for length, unit in _LENGTHS:
        if milliseconds and milliseconds % length == 0:
            return f"{milliseconds // length}{unit}"
    return f"{milliseconds}ms" if milliseconds else "0"


def age(time_ns: int) -> str:
    """How long ago, roughly; ``-`` for 0, which is never."""
    if time_ns == 0:
        return "-"
    seconds = (time.time_ns() - time_ns) // 1_000_000_000
    for length, unit in _AGES:
        if abs(seconds) >= length:
            return f"{seconds // length} {unit} ago" if seconds > 0 else f"in {-seconds // length} {unit}"
    return "now"


def rfc3339(time_ns: int) -> str:
    """A time in UTC with all its nanoseconds, which as a number JSON readers would round."""
    seconds, fraction = divmod(time_ns, 1_000_000_000)
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{fraction:09d}Z"
    except (ValueError, OverflowError, OSError):
        return f"{time_ns} ns"


def json_time(time_ns: int) -> str | None:
    """The same, null for 0."""
    return rfc3339(time_ns) if time_ns else None


def plural(count: int, noun: str) -> str:
    """A count and what is counted, with thousands apart."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")
