"""What the library's commands are given and show: positions, sizes, durations, records as JSON, tables, credentials."""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import telemetry_broker as tb
from telemetry_broker.cli import connecting, output, records, values
from telemetry_broker.cli.main import build_parser
from telemetry_broker.cli.parser import Parser
from telemetry_broker.testing import broker as broker_in_memory

int64 = st.integers(-(1 << 63), (1 << 63) - 1)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("30s", 30),
        ("500ms", 0.5),
        ("1h30m", 5400),
        ("1.5h", 5400),
        ("7d", 604_800),
        ("1d2h3m4s5ms", 93784.005),
    ],
)
def test_a_duration_is_numbers_with_units(text: str, seconds: float) -> None:
    assert values.duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "nbytes"), [("0", 0), ("1048576", 1 << 20), ("64MiB", 64 << 20), ("1.5 GiB", 3 << 29)]
)
def test_a_size_is_bytes_or_a_number_with_a_binary_unit(text: str, nbytes: int) -> None:
    assert values.size(text) == nbytes


@pytest.mark.parametrize(
    ("taken", "texts"),
    [
        (values.duration, ["", "30", "s", "-1s", "1x", "1s ", "٣s"]),
        (values.size, ["", "1MB", "1.5", "-1", "1 kiB", "99999999TiB"]),
        (values.count, ["0", "-1", "1.0", "", "1_000", "٣"]),
        (values.number, ["-1", str(1 << 32)]),
        (values.offsets, ["", "9-7", "a-b", "0-1000000"]),
        (values.position, ["", "begin", "-1", "2025-07-18", "2025-07-18T20:42:34", "9999-01-01T00:00:00Z"]),
        (values.header, ["", "=x", "name"]),
    ],
    ids=lambda each: each.__name__ if callable(each) else "",
)
def test_anything_else_is_refused_with_the_value(taken: Callable[[str], object], texts: list[str]) -> None:
    for text in texts:
        with pytest.raises(argparse.ArgumentTypeError) as caught:
            taken(text)
        assert repr(text) in str(caught.value) or text.partition("-")[0] in str(caught.value)


@given(st.integers(0, 10_000 * 86_400_000))
def test_a_duration_that_is_shown_can_be_given(milliseconds: int) -> None:
    assert round(values.duration(output.duration(milliseconds / 1000)) * 1000) == milliseconds


@given(int64)
def test_a_time_that_is_shown_can_be_given_to_the_nanosecond(time_ns: int) -> None:
    assert values.time_ns(output.rfc3339(time_ns)) == time_ns


def test_a_position_is_an_edge_an_offset_a_time_or_how_long_ago() -> None:
    assert values.position("start") is tb.START
    assert values.position("end") is tb.END
    assert values.position("4711") == 4711
    assert values.position("1970-01-01T01:00:00.5+01:00") == tb.AtTime(500_000_000)
    before = time.time_ns()
    ago = values.position("10m")
    assert isinstance(ago, tb.AtTime)
    assert before - 600_000_000_000 <= ago.time_ns <= time.time_ns() - 600_000_000_000
    assert list(values.offsets("7")) == [7]
    assert list(values.offsets("7-9")) == [7, 8, 9]


@given(
    st.lists(
        st.tuples(
            st.binary(max_size=40) | st.text(max_size=20).map(str.encode),
            st.none() | st.binary(max_size=10),
            st.dictionaries(st.text(min_size=1, max_size=8), st.binary(max_size=8), max_size=3),
            int64,
        ),
        min_size=1,
        max_size=5,
    )
)
def test_a_record_as_json_is_the_same_record_again(
    sent: list[tuple[bytes, bytes | None, dict[str, bytes], int]],
) -> None:
    with broker_in_memory(partitions=1) as broker:
        broker.create_topic("t")
        with broker.producer("t") as producer:
            for value, key, headers, timestamp_ns in sent:
                producer.send(value, key, headers=headers, timestamp_ns=timestamp_ns)
        (read,) = broker.read("t", 0).ranges
        lines = [json.dumps(shown) for shown in records.as_objects(read)]
    assert all(line.isascii() for line in lines)
    assert [records.from_json(line.encode()) for line in lines] == [records.Record(*fields) for fields in sent]


@given(st.binary(max_size=60))
def test_a_line_is_a_record_or_refused_in_words(line: bytes) -> None:
    try:
        records.from_json(line)
    except ValueError as error:
        assert str(error)  # noqa: PT017 - which lines are refused is not known here


def test_a_table_has_numbers_to_the_right_and_nothing_that_moves_a_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    output.table((">N", "NAME", ">SIZE"), [(1500, "a\x1b[31m\n", "1.0 KiB"), (7, "b", "12 B")])
    assert capsys.readouterr().out.splitlines() == [
        "    N  NAME            SIZE",
        "1,500  a\\x1b[31m\\n  1.0 KiB",
        "    7  b               12 B",
    ]


@given(st.text())
def test_safe_text_is_printable_and_readable_text_stays(text: str) -> None:
    shown = output.safe(text)
    assert shown.isprintable()
    assert shown == text or not text.isprintable()


def test_sizes_and_ages_are_readable() -> None:
    sizes = [output.size(nbytes) for nbytes in (0, 1023, 1024, 1536, 1 << 20, 5 << 30, 1 << 60)]
    assert sizes == ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "1.0 MiB", "5.0 GiB", "1024.0 PiB"]
    now = time.time_ns()
    ages = [output.age(now - seconds * 1_000_000_000) for seconds in (0, 90, 7_200, 200_000)]
    assert ages == ["now", "1 min ago", "2 h ago", "2 d ago"]
    assert output.age(now + 3_700_000_000_000) == "in 1 h"
    assert output.age(0) == "-"


# Which broker, with which credentials


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """What ``connect`` is told, in place of connecting."""
    calls: list[tuple[str, dict[str, Any]]] = []

    def connect(url: str, **options: Any) -> tb.Broker:
        calls.append((url, options))
        return tb.connect("mem://")

    monkeypatch.setattr(connecting, "connect", connect)
    for name in ("BROKER", "TOKEN", "TOKEN_FILE", "CA_FILE", "CERT_FILE", "KEY_FILE"):
        monkeypatch.delenv(f"TELEMETRY_{name}", raising=False)
    return calls


def run(*arguments: str) -> None:
    parsed = build_parser("prog").parse(["topic", "list", *arguments])
    with connecting.opened(parsed):
        pass


def test_connect_is_told_what_was_given_and_no_more(told: list[tuple[str, dict[str, Any]]]) -> None:
    run("--broker", "grpc://h:1")
    run("--broker", "grpcs://h:1", "--token-file", "t", "--ca-file", "ca", "--cert-file", "c", "--key-file", "k")
    assert told == [
        ("grpc://h:1", {}),
        ("grpcs://h:1", {"token_file": "t", "ca_file": "ca", "cert_file": "c", "key_file": "k"}),
    ]


def test_the_environment_says_what_no_option_says(
    told: list[tuple[str, dict[str, Any]]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TELEMETRY_BROKER", "grpcs://h:1")
    monkeypatch.setenv("TELEMETRY_CA_FILE", "ca")
    monkeypatch.setenv("TELEMETRY_TOKEN_FILE", "t")
    run()
    monkeypatch.setenv("TELEMETRY_TOKEN", "secret")
    run()
    run("--token-file", "mine", "--ca-file", "other", "--broker", "grpcs://other:1")
    tb.connect(f"file://{tmp_path}").close()
    run("--broker", f"file://{tmp_path}")
    assert told == [
        ("grpcs://h:1", {"ca_file": "ca", "token_file": "t"}),
        ("grpcs://h:1", {"ca_file": "ca", "token": "secret"}),
        ("grpcs://other:1", {"ca_file": "other", "token_file": "mine"}),
        (f"file://{tmp_path}", {}),
    ]


@pytest.mark.parametrize(
    ("url", "word"),
    [
        ("", "TELEMETRY_BROKER"),
        ("mem://x", "ends with the process"),
        (
            "file:///nonexistent/here",
            "there is no such folder; correct the path, or make a broker there with `prog topic",
        ),
        ("file:///usr", "this is no folder of a broker"),
    ],
)
def test_a_broker_that_cannot_be_meant_is_refused(told: list[tuple[str, dict[str, Any]]], url: str, word: str) -> None:
    with pytest.raises(tb.InvalidArgumentError, match=r"^invalid\.url: ") as caught:
        run("--broker", url)
    assert word in str(caught.value)
    assert told == []


def leaves(parser: Parser) -> list[Parser]:
    """The parsers of the commands that have no subcommands."""
    below = [
        each for action in parser.arguments() if isinstance(action.choices, dict) for each in action.choices.values()
    ]
    return [leaf for each in below for leaf in leaves(each)] if below else [parser]


@pytest.mark.parametrize("parser", leaves(build_parser("prog")), ids=lambda parser: parser.prog)
def test_every_command_has_a_help_that_says_what_each_option_is(parser: Parser) -> None:
    text = parser.format_help()
    assert text.startswith(f"usage: {parser.prog}")
    assert (parser.description or "").partition("\n")[0].endswith((".", ";"))
    assert [action.dest for action in parser.arguments() if not action.help] == []
    if parser.prog.split()[1] not in ("log", "completion"):
        assert "TELEMETRY_BROKER" in text
        assert "--token " not in text, "a token on a command line is seen by every user of the machine"
