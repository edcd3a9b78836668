"""Long questions, asked piece after piece of time.

InfluxDB 3 Core opens a bounded number of files for a query, 432 unless it is told otherwise, and refuses one that needs
more before it reads anything: then a shorter piece is asked for. And it answers a question within a deadline: so pieces
are no longer than a day where rows are read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, Protocol

import pyarrow as pa

from telemetry_services.store.influx_client import TooManyFilesError
from telemetry_services.store.series_sql import MAX_NS, MIN_NS, Bound

PIECE_NS: Final = 24 * 3_600 * 10**9

Question = Callable[[int, int], tuple[str, Bound]]
"""A statement for `first <= time < end`, and its parameters."""


class FirstTime(Protocol):
    """Gives the time of the first point in a range, or of the last (`descending`); None: there is none."""

    def __call__(self, first_ns: int, end_ns: int, /, *, descending: bool) -> int | None: ...


class Pieces:
    """Asks questions piece after piece.

    Args:
        ask: carries out a statement.
        first_time: see there.
    """

    def __init__(self, ask: Callable[[str, Bound], Iterator[pa.RecordBatch]], first_time: FirstTime) -> None:
        self._ask = ask
        self._first_time = first_time

    def split(
        self, question: Question, first_ns: int, end_ns: int, *, descending: bool = False
    ) -> Iterator[pa.RecordBatch]:
        """Ask for a range in as few pieces as the server takes, in the order of time; empty batches are left out."""
        ahead = [(first_ns, end_ns)]
        while ahead:
            low, high = ahead.pop()
            if low >= high:
                continue
            try:
                yield from self._answer(question, low, high)
            except TooManyFilesError:
                middle = (low + high) // 2
                if middle == low:
                    raise
                ahead += [(low, middle), (middle, high)] if descending else [(middle, high), (low, middle)]

    def read(
        self, question: Question, first_ns: int, end_ns: int, *, step_ns: int = 1, descending: bool = False
    ) -> Iterator[pa.RecordBatch]:
        """Ask for a range in pieces of `PIECE_NS`, in the order of time; empty batches are left out.

        They are shorter where the server refuses that, but never than `step_ns`, at whose multiples the cuts are; and
        longer behind one that was empty. Times without points are passed over.

        Raises:
            TooManyFilesError: the server does not even take a piece of one step.
        """
        length_ns = usual_ns = max(PIECE_NS, step_ns)
        empty = end_ns == MAX_NS if descending else first_ns == MIN_NS
        while first_ns < end_ns:
            if empty:
                at = self._first_time(first_ns, end_ns, descending=descending)
                if at is None:
                    return
                if descending:
                    end_ns = min(end_ns, (at // step_ns + 1) * step_ns)
                else:
                    first_ns = max(first_ns, at // step_ns * step_ns)
            low, high = _piece(first_ns, end_ns, length_ns, step_ns, descending=descending)
            try:
                empty = True
                for batch in self._answer(question, low, high):
                    empty = False
                    yield batch
            except TooManyFilesError:
                if high - low <= step_ns:
                    raise
                length_ns = max((high - low) // 2, step_ns)
                usual_ns = min(usual_ns, length_ns)
                empty = False
                continue
            # Points of others may lie in an empty piece, and there may be many such.
            length_ns = length_ns * 2 if empty else usual_ns
            first_ns, end_ns = (first_ns, low) if descending else (high, end_ns)

    def _answer(self, question: Question, low: int, high: int) -> Iterator[pa.RecordBatch]:
        return (batch for batch in self._ask(*question(low, high)) if batch.num_rows)


def _piece(first_ns: int, end_ns: int, length_ns: int, step_ns: int, *, descending: bool) -> tuple[int, int]:
    """Return the next piece of a range: about so long, and of one step at least."""
    if descending:
        cut = -(-(end_ns - length_ns) // step_ns) * step_ns
        if cut >= end_ns:
            cut = (end_ns - 1) // step_ns * step_ns
        return max(first_ns, cut), end_ns
    cut = (first_ns + length_ns) // step_ns * step_ns
    if cut <= first_ns:
        cut = (first_ns // step_ns + 1) * step_ns
    return first_ns, min(end_ns, cut)
