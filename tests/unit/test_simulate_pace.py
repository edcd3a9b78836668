"""When blocks of a simulated fleet are due, by a clock that the test moves."""

import threading
import time

import pytest

from telemetry_broker import _core
from telemetry_broker.cli.simulating import Pace

SECOND_NS = 1_000_000_000


class Clock(threading.Event):
    """Is waited on, and moves by as much."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.now = 100.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        self.now += timeout
        return False


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def due(pace: Pace, clock: Clock, interval: int = 10, scrapes: int = 4, most: int = 16) -> list[float]:
    """Seconds from the beginning at which each block of a fleet of 16 GPUs was let go."""
    fleet = _core.SimulatedFleet(
        hosts=2, gpus=8, metrics=1, start_ns=5, interval_ns=interval * SECOND_NS, scrapes=scrapes
    )
    times = []
    while (block := fleet.next_rows(most)) is not None:
        pace.wait(block, clock)
        times.append(clock.now - 100.0)
    return times


def test_in_real_time_each_scrape_has_its_time(clock: Clock) -> None:
    assert due(Pace(5, 1.0, None), clock) == [0, 10, 20, 30]


def test_the_speed_says_how_much_faster(clock: Clock) -> None:
    assert due(Pace(5, 20.0, None), clock) == [0, 0.5, 1.0, 1.5]


def test_as_fast_as_it_goes_nothing_waits(clock: Clock) -> None:
    assert due(Pace(5, 0.0, None), clock) == [0, 0, 0, 0]


def test_a_rate_spreads_the_blocks_of_a_scrape(clock: Clock) -> None:
    assert due(Pace(5, 0.0, 8), clock, scrapes=2, most=4) == [0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5]
    assert due(Pace(5, 1.0, 8), clock, scrapes=2, most=8) == [3.5, 4.5, 13.5, 14.5]


def test_what_is_late_is_told_and_is_made_up_for(clock: Clock) -> None:
    pace = Pace(5, 1.0, None)
    clock.now += 25.0  # as if the first block had taken so long
    times = due(pace, clock)
    assert times == [25, 25, 25, 30]
    assert pace.behind == 0.0
    clock.now += 100.0
    assert due(pace, clock, scrapes=1) == [130]
    assert pace.behind == 130.0
