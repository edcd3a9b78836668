"""Questions in pieces of time, against a server that takes few files at a time."""

from collections.abc import Iterator
from itertools import pairwise

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry_services.store.influx_client import TooManyFilesError
from telemetry_services.store.influx_pieces import PIECE_NS, Pieces
from telemetry_services.store.series_sql import MAX_NS, MIN_NS, Bound

HOUR = 3_600 * 10**9
FILE = HOUR // 6


class Server:
    """Keeps times, and answers with those that lie in a range and are multiples of `every`."""

    def __init__(self, times: list[int], limit: int, every: int = 1) -> None:
        self.times = sorted(times)
        self.limit = limit
        self.every = every
        self.answered: list[tuple[int, int]] = []
        self.refused = 0

    def question(self, first_ns: int, end_ns: int) -> tuple[str, Bound]:
        return f"{first_ns} {end_ns}", Bound()

    def ask(self, sql: str, bound: Bound) -> Iterator[pa.RecordBatch]:
        low, high = map(int, sql.split())
        found = [at for at in self.times if low <= at < high]
        if len({at // FILE for at in found}) > self.limit:
            self.refused += 1
            raise TooManyFilesError("so many")
        self.answered.append((low, high))
        yield pa.record_batch([pa.array([at for at in found if at % self.every == 0], pa.int64())], ["time"])

    def first_time(self, first_ns: int, end_ns: int, *, descending: bool) -> int | None:
        inside = [at for at in self.times if first_ns <= at < end_ns]
        return None if not inside else inside[-1] if descending else inside[0]

    @property
    def pieces(self) -> Pieces:
        return Pieces(self.ask, self.first_time)


def times_of(batches: Iterator[pa.RecordBatch], *, descending: bool) -> list[int]:
    found = [batch.column(0).to_pylist() for batch in batches]
    return [at for times in found for at in (times[::-1] if descending else times)]


TIMES = st.lists(
    st.one_of(
        st.integers(-100, 100).map(lambda at: at * HOUR),
        st.integers(0, 2000).map(lambda at: at * FILE),
        st.integers(MIN_NS + 1, MAX_NS - 1),
    ),
    max_size=60,
)


@given(
    times=TIMES,
    bounds=st.tuples(
        st.one_of(st.just(MIN_NS), st.integers(-50, 150).map(lambda at: at * HOUR + 1)),
        st.one_of(st.just(MAX_NS), st.integers(150, 400).map(lambda at: at * HOUR + 1)),
    ),
    limit=st.integers(6, 20),
    step=st.sampled_from([1, 60 * 10**9, HOUR]),
    every=st.sampled_from([1, 2, 10**30]),
    descending=st.booleans(),
)
def test_all_of_a_range_is_read_once_in_order_and_no_window_is_cut(
    times: list[int], bounds: tuple[int, int], limit: int, step: int, every: int, descending: bool
) -> None:
    server = Server(times, limit, every)
    low, high = bounds
    expected = [at for at in server.times if low <= at < high and at % every == 0]
    if descending:
        expected.reverse()
    read = server.pieces.read(server.question, low, high, step_ns=step, descending=descending)
    assert times_of(read, descending=descending) == expected
    in_order = server.answered[::-1] if descending else server.answered
    for (_, end), (begin, _) in pairwise(in_order):
        assert end <= begin
        assert end % step == 0
        assert begin % step == 0
    split = server.pieces.split(server.question, low, high, descending=descending)
    assert times_of(split, descending=descending) == expected


def test_a_range_with_points_all_over_is_read_a_day_at_a_time() -> None:
    server = Server([at * HOUR for at in range(240)], limit=432)
    list(server.pieces.read(server.question, MIN_NS, MAX_NS))
    assert server.answered == [(at * PIECE_NS, (at + 1) * PIECE_NS) for at in range(11)]
    server.answered.clear()
    newest = next(server.pieces.read(server.question, MIN_NS, MAX_NS, descending=True))
    assert newest.num_rows == 24
    assert len(server.answered) == 1


def test_years_without_a_point_are_passed_over() -> None:
    year = 365 * PIECE_NS
    server = Server([0, 50 * year, 51 * year], limit=432)
    read = server.pieces.read(server.question, MIN_NS, MAX_NS)
    assert times_of(read, descending=False) == server.times
    assert len(server.answered) < 10


def test_what_the_server_refuses_once_is_not_asked_for_again_and_again() -> None:
    server = Server([at * FILE for at in range(144 * 10)], limit=40)
    list(server.pieces.read(server.question, MIN_NS, MAX_NS))
    assert server.refused == 2  # a day, and half a day


def test_a_window_of_too_many_files_is_told() -> None:
    server = Server([at * FILE for at in range(12)], limit=5)
    with pytest.raises(TooManyFilesError):
        list(server.pieces.read(server.question, 0, 2 * HOUR, step_ns=HOUR))
