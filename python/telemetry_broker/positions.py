"""Places in a partition and lengths of time, as the library's callers say them and as the wire does."""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from telemetry_broker.errors import InvalidArgumentError
from telemetry_broker.v1 import broker_pb2 as pb

MAX_TIMEOUT: Final = 43_200.0
"""Longest visibility timeout and longest nack delay: 12 hours, in seconds."""


class Edge(enum.Enum):
    """An end of a partition: ``START`` or ``END``."""

    START = "start"
    END = "end"

    def __repr__(self) -> str:
        return self.name


START: Final = Edge.START
"""The oldest record that is kept."""

END: Final = Edge.END
"""Behind the newest record: only what comes later."""


@dataclass(frozen=True, slots=True)
class Offset:
    """A position that names its log, for stores that remember where they were.

    A partition that lost its volume starts a new log with the same numbers; with ``log_id`` such a position is refused
    (``position.log_id``) and never mistaken for the old one.
    """

    log_id: bytes
    """16 bytes, as ``Batch.log_id`` gives it."""
    offset: int


@dataclass(frozen=True, slots=True)
class AtTime:
    """The first record that the broker appended at or after a time; made by ``at_time``."""

    time_ns: int


Position = Edge | int | Offset | AtTime
"""Where to begin: ``START``, ``END``, an offset, ``at_time(...)``, or an ``Offset`` with its log id."""


def at_time(when: float | datetime) -> AtTime:
    """The position of the first record appended at or after a time.

    Args:
        when: seconds since the Unix epoch, or a datetime; one without a zone is local time, as everywhere in Python.
    """
    seconds = when.timestamp() if isinstance(when, datetime) else when
    if not math.isfinite(seconds):
        raise InvalidArgumentError(f"at_time({when!r}): give seconds since the epoch or a datetime")
    # Whole seconds apart from the fraction: a float cannot hold today's nanoseconds.
    whole = math.floor(seconds)
    return AtTime(whole * 1_000_000_000 + round((seconds - whole) * 1_000_000) * 1_000)


def encode_position(position: Position) -> pb.Position:
    """The position as the wire says it."""
    match position:
        case Edge.START:
            return pb.Position(edge=pb.EDGE_START)
        case Edge.END:
            return pb.Position(edge=pb.EDGE_END)
        case AtTime(time_ns):
            return pb.Position(time_ns=time_ns)
        case Offset(log_id, offset):
            return pb.Position(offset=unsigned("the position's offset", offset), log_id=log_id)
        case int():
            return pb.Position(offset=unsigned("the position", position))
    raise InvalidArgumentError(
        f"{position!r} is no position: give START, END, an offset, at_time(...) or Offset(log_id, offset)"
    )


def unsigned(what: str, value: int, bits: int = 64) -> int:
    """Returns ``value`` if an unsigned field of so many bits holds it, else raises InvalidArgumentError."""
    if not 0 <= value < 1 << bits:
        raise InvalidArgumentError(f"{what} is {value}; give 0 to {(1 << bits) - 1}")
    return value


def ascending_ranges(offsets: Iterable[int]) -> list[range]:
    """Offsets as ascending ranges without gaps; repeated ones count once."""
    found: list[range] = []
    for offset in sorted(set(offsets)):
        if found and found[-1].stop == offset:
            found[-1] = range(found[-1].start, offset + 1)
        else:
            found.append(range(offset, offset + 1))
    return found


def milliseconds(what: str, seconds: float, *, least: float = 0.0, most: float = MAX_TIMEOUT) -> int:
    """Seconds as whole milliseconds, rounded up, so that a short time never becomes 0, which may mean "the default".

    Raises:
        InvalidArgumentError: not a number, or not from ``least`` to ``most`` seconds.
    """
    if not least <= seconds <= most:
        raise InvalidArgumentError(f"{what} is {seconds} s; give {least:g} to {most:.12g} s")
    return math.ceil(round(seconds * 1000, 3))
