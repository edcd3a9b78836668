"""What options are given as: numbers in bounds, sizes, durations, positions. argparse names the option in an error."""

from __future__ import annotations

import re
import time
from argparse import ArgumentTypeError
from datetime import datetime
from typing import Final

from telemetry_broker.positions import END, START, AtTime, Position

_UNIT_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}
_DURATION: Final = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?(?:ms|s|m|h|d))+")
_DURATION_PART: Final = re.compile(r"([0-9.]+)(ms|s|m|h|d)")
_SIZE: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?(KiB|MiB|GiB|TiB)|([0-9]+)")
_UNIT_BYTES: Final = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
_RFC3339: Final = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]([0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.([0-9]{1,9}))?([Zz]|[+-][0-9]{2}:[0-9]{2})"
)
_MOST_SECONDS: Final = 100 * 365.25 * 86_400  # in nanoseconds they fit into 64 bits
_MOST_OFFSETS: Final = 1_000_000

POSITIONS: Final = "start, end, an offset, a time (2025-07-18T20:42:34Z) or how long ago (10m)"


def _whole(text: str, least: int, most: int) -> int:
    number = int(text) if text.isascii() and text.isdecimal() else -1
    if not least <= number <= most:
        raise ArgumentTypeError(f"{text!r} is no whole number from {least:,} to {most:,}")
    return number


def count(text: str) -> int:
    """A number of records, 1 or more."""
    return _whole(text, 1, (1 << 63) - 1)


def number(text: str) -> int:
    """What fits an unsigned field of 32 bits, such as a partition; the broker knows narrower bounds."""
    return _whole(text, 0, (1 << 32) - 1)


def factor(text: str) -> float:
    """How many times as much: ``10``, ``0.5``; 0 too."""
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text):
        raise ArgumentTypeError(f"{text!r} is no number of 0 or more, such as 1, 10 or 0.5")
    return float(text)


def offset(text: str) -> int:
    """An offset of a partition."""
    return _whole(text, 0, (1 << 64) - 1)


def offsets(text: str) -> range:
    """An offset, or the first and the last of several: ``7`` or ``7-9``."""
    first, dash, last = text.partition("-")
    found = range(offset(first), offset(last if dash else first) + 1)
    if not 0 < len(found) <= _MOST_OFFSETS:
        raise ArgumentTypeError(
            f"{text!r} names {len(found):,} offsets; give the first, a dash and the last, {_MOST_OFFSETS:,} at most"
        )
    return found


def size(text: str) -> int:
    """Bytes: ``1048576``, ``1MiB``, ``1.5GiB``."""
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ArgumentTypeError(
            f"{text!r} is no size: give bytes, or a number with KiB, MiB, GiB or TiB, such as 64MiB"
        )
    amount, unit, nbytes = match.groups()
    found = int(nbytes) if nbytes else round(float(amount) * _UNIT_BYTES[unit])
    if found >= 1 << 64:
        raise ArgumentTypeError(f"{text!r} is more than 64 bits hold")
    return found


def duration(text: str) -> float:
    """Seconds: ``30s``, ``1h30m``, ``500ms``, ``7d``; only ``0`` needs no unit."""
    if text == "0":
        return 0.0
    if not _DURATION.fullmatch(text):
        raise ArgumentTypeError(f"{text!r} is no duration: give a number with ms, s, m, h or d, such as 30s or 1h30m")
    found = sum(float(amount) * _UNIT_SECONDS[unit] for amount, unit in _DURATION_PART.findall(text))
    if found > _MOST_SECONDS:
        raise ArgumentTypeError(f"{text!r} is more than 100 years")
    return found


def time_ns(text: str) -> int:
    """Nanoseconds since the epoch of a time in RFC 3339, to the nanosecond.

    Raises:
        ValueError: it is none, or none that 64 bits hold.
    """
    match = _RFC3339.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no time in RFC 3339, such as 2025-07-18T20:42:34Z; it needs its zone")
    date, clock, fraction, zone = match.groups()
    whole = datetime.fromisoformat(f"{date}T{clock}{zone.upper()}")
    found = int(whole.timestamp()) * 1_000_000_000 + int((fraction or "").ljust(9, "0"))
    if not -(1 << 63) <= found < 1 << 63:
        raise ValueError(f"{text!r} is not between the years 1678 and 2262, which 64 bits of nanoseconds hold")
    return found


def moment(text: str) -> int:
    """Nanoseconds since the epoch of a time in RFC 3339, or of so long ago: ``10m``."""
    if _DURATION.fullmatch(text):
        return max(0, time.time_ns() - nanoseconds(duration(text)))
    try:
        return time_ns(text)
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from error


def nanoseconds(seconds: float) -> int:
    """The same in nanoseconds."""
    return round(seconds * 1_000_000_000)


def position(text: str) -> Position:
    """A place in a partition; what it can be is in ``POSITIONS``."""
    match text:
        case "start":
            return START
        case "end":
            return END
    if text.isascii() and text.isdecimal():
        return offset(text)
    if _DURATION.fullmatch(text) or _RFC3339.fullmatch(text):
        return AtTime(moment(text))
    raise ArgumentTypeError(f"{text!r} is no position: give {POSITIONS}")


def header(text: str) -> tuple[str, bytes]:
    """A header's name and value: ``NAME=VALUE``."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise ArgumentTypeError(f"{text!r} is no header: give NAME=VALUE")
    return name, value.encode(errors="surrogateescape")
