"""Durations, topic lists and times, against what wrote them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry_services.api.times import format_time, parse_time
from telemetry_services.config.values import (
    format_duration,
    format_topics,
    parse_duration,
    parse_topics,
    without_credentials,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30s", 30), ("120s", 120), ("1m30s", 90), ("500ms", 0.5), ("1.5h", 5400), ("0", 0), ("250us", 0.00025)],
)
def test_a_go_duration_is_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "30", "s", "1 m", "-3s", "1d", "1m 30s", "٣s", "9" * 400 + "h", "1s" * 400])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        parse_duration(text)


@pytest.mark.parametrize("unit", [1_000_000_000, 1_000_000, 1_000])
@given(number=st.integers(0, 86_400_000))
def test_a_duration_reads_back_as_written(unit: int, number: int) -> None:
    assert parse_duration(format_duration(number * unit / 1e9)) == number * unit / 1e9


TOPIC_NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)


@given(st.dictionaries(TOPIC_NAMES, st.none() | st.integers(1, 4096)))
def test_a_topic_list_reads_back_as_written(topics: dict[str, int | None]) -> None:
    assert parse_topics(format_topics(topics)) == topics
    assert parse_topics(topics) == topics


@pytest.mark.parametrize("topics", [{"-bad": 1}, {"a": 0}, {"a": 4097}, {"a": True}, {"a": 1.5}, {"a": "x"}, {"a": {}}])
def test_a_topic_table_has_the_bounds_of_a_topic_list(topics: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="is not a"):
        parse_topics(topics)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("delta:///var/lib/a@b?", "delta:///var/lib/a@b?********"),
        ("grpc://a:1,b:2", "grpc://a:1,b:2"),
        ("nats://user:sesam@host:4222", "nats://********@host:4222"),
        ("http://sesam@host/p?token=sesam&a=://x", "http://********@host/p?********"),
        ("http://host?token=sesam", "http://host?********"),
        ("a@b?c", "a@b?c"),
    ],
)
def test_what_may_be_secret_in_a_url_is_masked(text: str, shown: str) -> None:
    assert without_credentials(text) == shown


@given(st.integers(-(1 << 63), (1 << 63) - 1))
def test_a_time_reads_back_as_written(time_ns: int) -> None:
    assert parse_time(format_time(time_ns)) == time_ns


@pytest.mark.parametrize(
    ("text", "time_ns"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T02:00:00.5+02:00", 500_000_000),
        ("1970-01-01 00:00:01.000000001z", 1_000_000_001),
        ("1969-12-31T23:59:59.999999999Z", -1),
    ],
)
def test_an_rfc_3339_time_is_read_to_the_nanosecond(text: str, time_ns: int) -> None:
    assert parse_time(text) == time_ns


@pytest.mark.parametrize(
    "text", ["", "yesterday", "2025-07-18", "2025-07-18T20:42:34", "2025-13-01T00:00:00Z", "1500-01-01T00:00:00Z"]
)
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        parse_time(text)
