"""Positions, durations, errors and the package itself."""

import inspect
import pickle
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

import telemetry_broker as tb
from telemetry_broker import _core, errors, positions
from telemetry_broker.v1 import broker_pb2 as pb


def test_every_code_of_the_core_is_in_the_table_with_its_status() -> None:
    statuses = {code: info.status for code, info in errors.CODES.items()}
    assert _core.error_codes().items() <= statuses.items()


def test_every_code_has_a_class_that_is_public_and_pickles() -> None:
    for code, info in errors.CODES.items():
        error = errors.error_from_code(code, "text", retry_after=0.5)
        assert type(error) is info.error
        assert getattr(tb, type(error).__name__) is type(error)
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), again.code, again.message, again.retry_after) == (info.error, code, "text", 0.5)


def test_a_code_of_a_newer_broker_is_kept() -> None:
    error = errors.error_from_code("moon.phase", "text")
    assert (type(error), error.code) == (tb.BrokerError, "moon.phase")


@given(st.floats(0, positions.MAX_TIMEOUT))
def test_milliseconds_are_never_too_few_and_never_zero_by_rounding(seconds: float) -> None:
    milliseconds = positions.milliseconds("x", seconds)
    assert milliseconds >= seconds * 1000 - 0.001
    assert milliseconds < seconds * 1000 + 1
    if seconds >= 0.000_001:
        assert milliseconds > 0


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf"), 43_200.1])
def test_durations_out_of_bounds_are_refused(seconds: float) -> None:
    with pytest.raises(tb.InvalidArgumentError, match="give 0 to 43200 s"):
        positions.milliseconds("x", seconds)


def test_a_time_is_given_in_seconds_or_as_a_datetime() -> None:
    when = datetime(2025, 7, 18, 20, 42, 34, 123456, UTC)
    assert tb.at_time(when) == tb.AtTime(1_752_871_354_123_456_000)
    assert tb.at_time(1_752_871_354) == tb.AtTime(1_752_871_354_000_000_000)
    with pytest.raises(tb.InvalidArgumentError):
        tb.at_time(float("nan"))


@pytest.mark.parametrize(
    ("position", "encoded"),
    [
        (tb.START, pb.Position(edge=pb.EDGE_START)),
        (tb.END, pb.Position(edge=pb.EDGE_END)),
        (0, pb.Position(offset=0)),
        (tb.AtTime(5), pb.Position(time_ns=5)),
        (tb.Offset(b"l" * 16, 7), pb.Position(offset=7, log_id=b"l" * 16)),
    ],
)
def test_positions_are_encoded(position: tb.Position, encoded: pb.Position) -> None:
    assert positions.encode_position(position) == encoded


@pytest.mark.parametrize("position", [-1, 1 << 64, "start", None])
def test_what_is_no_position_is_refused(position: object) -> None:
    with pytest.raises(tb.InvalidArgumentError):
        positions.encode_position(position)  # type: ignore[arg-type] # that is the point


def test_everything_public_is_documented() -> None:
    for name in tb.__all__:
        thing = getattr(tb, name)
        if inspect.isclass(thing) or inspect.isfunction(thing):
            assert inspect.getdoc(thing), name
        if inspect.isclass(thing):
            for member, value in vars(thing).items():
                if not member.startswith("_") and (inspect.isfunction(value) or isinstance(value, property)):
                    assert inspect.getdoc(value), f"{name}.{member}"
