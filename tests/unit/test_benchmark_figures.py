"""What the benchmarks make of what they measured: percentiles, latencies and ratios."""

import asyncio
import time

import pytest

from benchmarks.load import Arrivals, Load, percentile, precise_loop, stamped
from benchmarks.peers.compare import as_times
from benchmarks.results import Result
from benchmarks.workload import PAYLOAD_BYTES


@pytest.mark.parametrize(
    ("percent", "expected"), [(0.0, 1.0), (50.0, 2.0), (75.0, 3.0), (75.1, 4.0), (99.0, 4.0), (100.0, 4.0)]
)
def test_a_percentile_is_one_of_the_values(percent: float, expected: float) -> None:
    assert percentile([4.0, 2.0, 1.0, 3.0], percent) == expected


def test_no_values_have_no_percentile() -> None:
    with pytest.raises(ValueError, match="no values"):
        percentile([], 50)


def test_a_stamped_record_has_the_size_of_all_records() -> None:
    assert len(stamped()) == PAYLOAD_BYTES


def test_a_record_is_late_by_the_time_since_its_stamp() -> None:
    arrivals = Arrivals(expected=1)
    value = stamped()
    time.sleep(0.01)
    assert not arrivals.complete
    arrivals.take(value)
    assert arrivals.complete
    assert 0.01 <= arrivals.seconds[0] < 5


def test_the_first_second_does_not_count() -> None:
    arrivals = Arrivals(expected=4)
    now = time.perf_counter_ns()
    for age in (3.0, 2.5, 1.9, 0.5):  # seconds before now
        arrivals.take(f"{now - round(age * 1e9):020}".encode())
    assert [round(seconds, 1) for seconds in arrivals.warmed()] == [1.9, 0.5]
    assert arrivals.rate == pytest.approx(3 / 2.5)


def test_a_load_keeps_its_pace_with_and_without_an_event_loop() -> None:
    load = Load(rate=1000, seconds=0.2)

    async def send() -> list[bytes]:
        return [value async for value in load.paced_async()]

    with asyncio.Runner(loop_factory=precise_loop) as runner:
        for values in (list(load.paced()), runner.run(send())):
            assert len(values) == 200
            assert int(values[-1][:20]) - int(values[0][:20]) >= 0.19e9


def test_our_rates_are_divided_by_those_of_the_same_work() -> None:
    theirs = [
        Result("Peer: produce", 50.0, "records/s", "a call"),
        Result("Peer: consume + ack", 200.0, "records/s", "a call"),
    ]
    ours = {"produce": 1000.0, "produce one by one": 100.0, "consume + ack": 300.0}
    ratios = list(as_times("grpc://", "Peer", ours, theirs, 2, "produce one by one"))
    assert [(ratio.name, ratio.value, ratio.met) for ratio in ratios] == [
        ("produce, grpc:// / Peer", 2.0, True),
        ("consume + ack, grpc:// / Peer", 1.5, False),
    ]


def test_a_ratio_without_a_target_is_neither_met_nor_missed() -> None:
    theirs = [Result("Peer: produce", 1.0, "records/s", ""), Result("Peer: consume + ack", 1.0, "records/s", "")]
    ours = {"produce": 2.0, "consume + ack": 2.0}
    assert [ratio.met for ratio in as_times("grpc://", "Peer", ours, theirs, None, "produce")] == [None, None]
