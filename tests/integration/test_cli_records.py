"""Records in and out of a topic from the command line: formats, positions, groups, and what is refused."""

import base64
import json
import os
import pty
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import telemetry_broker as tb
from tests.integration.cli_runs import Cli
from tests.integration.service_processes import BrokerProcess

NS = 1_752_871_354_123_456_789
ODD = bytes(range(256))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    with BrokerProcess(tmp_path_factory.mktemp("server")) as process:
        yield process


@pytest.fixture(params=["file", "grpc"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A broker with an empty topic `t` of two partitions."""
    url = f"file://{tmp_path}/data" if request.param == "file" else request.getfixturevalue("server").url
    with tb.connect(url) as broker:
        broker.create_topic("t", partitions=2)
    yield url
    with tb.connect(url) as broker:
        for topic in broker.topics():
            broker.delete_topic(topic.name)


@pytest.fixture
def cli(url: str) -> Cli:
    return Cli(url)


def stored(url: str, topic: str = "t") -> list[bytes]:
    with tb.connect(url) as broker:
        return [value for partition in range(2) for value in broker.read(topic, partition, max_records=65_536).values]


def test_lines_are_stored_as_they_are_and_come_back_so(cli: Cli, url: str) -> None:
    lines = b"a\n\n\xff\xfe\x00b\r\nlast"
    assert cli.ok("produce", "t", "--partition", "1", stdin=lines) == "stored 4 records in t\n"
    assert stored(url) == [b"a", b"", b"\xff\xfe\x00b\r", b"last"]
    done = subprocess.run(
        [*cli.program, "consume", "t"], env=cli.environment, capture_output=True, check=True, timeout=30
    )
    assert done.stdout == lines + b"\n"
    raw = [*cli.program, "consume", "t", "--format", "raw"]
    done = subprocess.run(raw, env=cli.environment, capture_output=True, check=True, timeout=30)
    assert done.stdout == lines.replace(b"\n", b"")


def test_nothing_on_standard_input_stores_nothing(cli: Cli) -> None:
    assert cli.ok("produce", "t", "--json") == '{"topic": "t", "stored": 0, "refused": 0, "failed": 0}\n'
    assert cli.ok("consume", "t") == ""


def test_key_header_and_partition_hold_for_every_record(cli: Cli, url: str) -> None:
    cli.ok("produce", "t", "--key", "GPU-1", "--header", "source=test", "--header", "empty=", stdin="a\nb\n")
    cli.ok("produce", "t", "--key", "GPU-1", stdin="c\n")
    home = tb.partition_for_key(b"GPU-1", 2)
    cli.ok("produce", "t", "--key", "GPU-1", "--partition", str(1 - home), "--format", "raw", stdin="two\nlines")
    with tb.connect(url) as broker:
        (records,) = broker.read("t", home).ranges
        assert (records.values, records.keys) == ([b"a", b"b", b"c"], [b"GPU-1"] * 3)
        assert records.headers == [{"source": b"test", "empty": b""}] * 2 + [{}]
        assert broker.read("t", 1 - home).values == [b"two\nlines"]


def test_what_consume_prints_as_json_produce_takes(cli: Cli, url: str) -> None:
    with tb.connect(url) as broker, broker.producer("t") as producer:
        producer.send(
            b"text \xc3\xa9\n\x1b[31m", key=b"k", partition=0, timestamp_ns=NS, headers={"unit": b"W", "odd": ODD}
        )
        producer.send(ODD, partition=0)
    printed = cli.ok("consume", "t", "--format", "json")
    first, second = map(json.loads, printed.splitlines())
    assert first["append_time"].endswith("Z")
    del first["append_time"]
    assert first == {
        "topic": "t",
        "partition": 0,
        "offset": 0,
        "timestamp": "2025-07-18T20:42:34.123456789Z",
        "key": "k",
        "value": "text é\n\x1b[31m",
        "headers": {"unit": "W", "odd": {"base64": base64.b64encode(ODD).decode()}},
    }
    assert (second["key"], second["timestamp"], second["headers"]) == (None, None, {})
    assert printed.isascii(), "no byte of a record can reach a terminal as it is"

    with tb.connect(url) as broker:
        broker.create_topic("copy", partitions=1)
    assert cli.ok("produce", "copy", "--format", "json", stdin=printed) == "stored 2 records in copy\n"
    with tb.connect(url) as broker:
        source, copy = broker.read("t", 0).ranges[0], broker.read("copy", 0).ranges[0]
        for column in ("values", "keys", "headers", "timestamps_ns"):
            assert getattr(copy, column) == getattr(source, column)


def test_lines_that_are_no_records_are_told_counted_and_passed_over(cli: Cli, url: str) -> None:
    refused = {
        '{"vlaue": "x"}': "the field 'vlaue' is not known; did you mean value?",
        "[1]": "a list: give an object",
        "{": "no JSON",
        "[" * 100_000: "no JSON",
        '{"key": "k"}': "value is missing",
        '{"value": 7}': "value is a number: give text",
        '{"value": {"base64": "!"}}': "value is not what it says",
        '{"value": "\\ud800"}': "value is not what it says",
        '{"value": "x", "headers": ["a"]}': "headers is a list",
        '{"value": "x", "headers": {"": "a"}}': "header name",
        '{"value": "x", "timestamp": "2025-07-18T20:42:34"}': "it needs its zone",
        '{"value": "x", "timestamp": true}': "timestamp is True",
    }
    good = '{"value": "good", "timestamp": 7, "key": null, "headers": null}'
    done = cli("produce", "t", "--format", "json", stdin="\n".join([good, *refused, "", good]))
    assert (done.returncode, done.stdout) == (1, "stored 2 records in t\n")
    told = done.stderr.splitlines()
    assert told[-1] == f"refused {len(refused)} lines"
    for number, (line, why) in enumerate(zip(told, refused.values(), strict=False), 2):
        assert line.startswith(f"line {number}: ")
        assert why in line
    assert stored(url) == [b"good", b"good"]


def test_a_line_that_is_too_long_is_passed_over_and_never_held(cli: Cli, url: str) -> None:
    long, most = b"x" * (1 << 20), b"y" * ((1 << 20) - 64)
    done = cli("produce", "t", "--json", stdin=b"\n".join([b"a", long + long, most, long, b"b", long + long + long]))
    assert done.returncode == 1
    assert json.loads(done.stdout) == {"topic": "t", "stored": 3, "refused": 3, "failed": 0}
    numbers = [line.partition(":")[0] for line in done.stderr.splitlines()]
    assert numbers == ["line 2", "line 4", "line 6", "refused 3 lines"]
    assert sorted(map(len, stored(url))) == [1, 1, len(most)]
    done = cli("produce", "t", "--format", "raw", stdin=long)
    assert (done.returncode, done.stdout) == (1, "stored 0 records in t\n")


def test_reading_begins_where_it_is_told_and_leaves_no_trace(cli: Cli, url: str) -> None:
    with tb.connect(url) as broker, broker.producer("t") as producer:
        for number in range(1000):
            producer.send(b"%d" % number, partition=0)
        producer.flush()
        producer.send(b"other", partition=1)
    everything = [*map(str, range(1000)), "other"]
    assert cli.ok("consume", "t").splitlines() == everything
    assert cli.ok("consume", "t", "--from", "start", "-n", "3").splitlines() == ["0", "1", "2"]
    assert cli.ok("consume", "t", "--from", "end") == ""
    assert cli.ok("consume", "t", "--from", "998", "--partition", "0").splitlines() == ["998", "999"]
    assert cli.ok("consume", "t", "--from", "1h").splitlines() == everything
    assert cli.ok("consume", "t", "--from", "2100-01-01T00:00:00Z") == ""
    assert cli.ok("consume", "t", "--partition", "1", "--partition", "0").splitlines() == everything
    with tb.connect(url) as broker:
        assert broker.groups("t") == []


def test_partitions_are_merged_in_the_order_in_which_records_were_appended(cli: Cli, url: str) -> None:
    with tb.connect(url) as broker, broker.producer("t") as producer:
        for number in range(20):
            producer.send(b"%d" % number, partition=number % 2)
            producer.flush()
    assert cli.ok("consume", "t").splitlines() == [str(number) for number in range(20)]


def test_a_group_gets_each_record_once_and_acks_what_was_written(cli: Cli, url: str) -> None:
    cli.ok("produce", "t", "--key", "k", stdin="".join(f"{number}\n" for number in range(1000)))
    first = cli.ok("consume", "t", "--group", "g", "--max-records", "600").splitlines()
    rest = cli.ok("consume", "t", "--group", "g", "--format", "json").splitlines()
    assert len(first) == 600
    assert [*first, *(json.loads(line)["value"] for line in rest)] == [str(number) for number in range(1000)]
    assert {json.loads(line)["attempt"] for line in rest} == {1}
    assert cli.ok("consume", "t", "--group", "g") == ""
    with tb.connect(url) as broker:
        assert broker.describe_group("t", "g").lag == 0


def test_an_ordered_group_is_consumed_in_its_mode(cli: Cli, url: str) -> None:
    cli.ok("produce", "t", "--key", "k", stdin="a\nb\nc\n")
    cli.ok("group", "create", "t", "store", "--mode", "ordered")
    assert cli.ok("consume", "t", "--group", "store", "-n", "2").splitlines() == ["a", "b"]
    assert cli.ok("consume", "t", "--group", "store").splitlines() == ["c"]


def test_pretty_shows_all_of_a_record_and_escapes_what_moves_a_terminal(cli: Cli, url: str) -> None:
    with tb.connect(url) as broker, broker.producer("t") as producer:
        producer.send(
            b"\x1b]0;title\x07\nsecond \xff", key=b"\x1b[31m", partition=1, timestamp_ns=NS, headers={"h\x9b": b"\r"}
        )
    lines = cli.ok("consume", "t", "--format", "pretty").splitlines()
    head = lines[0].split(", ")
    assert (head[0], head[2], head[3]) == ("t/1 offset 0", "time 2025-07-18T20:42:34.123456789Z", "key \\x1b[31m")
    assert lines[1:] == ["  h\\x9b: \\r", "  \\x1b]0;title\\x07", "  second \\xff"]


def test_lines_on_a_terminal_are_escaped(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/data"
    with tb.connect(url) as broker:
        broker.create_topic("t")
        with broker.producer("t") as producer:
            producer.send(b"\x1b[31mred")
    cli = Cli(url)
    terminal, screen = pty.openpty()
    try:
        subprocess.run([*cli.program, "consume", "t"], env=cli.environment, stdout=screen, check=True, timeout=30)
        assert os.read(terminal, 1000) == b"\\x1b[31mred\r\n"
    finally:
        os.close(screen)
        os.close(terminal)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["produce", "t", "--partition", "9"], "has partitions 0 to 1, not 9"),
        (["consume", "t", "--partition", "9"], "has partitions 0 to 1, not 9"),
        (["consume", "t", "--from", "0"], "add --partition N"),
        (["consume", "t", "--from", "7", "--partition", "0"], "position.out_of_range"),
        (["consume", "t", "--from", "yesterday"], "'yesterday' is no position: give start, end"),
        (["consume", "t", "--from", "2025-07-18T20:42:34"], "is no position"),
        (["consume", "t", "--from", "2025-13-18T20:42:34Z"], "month must be in 1..12"),
        (["consume", "t", "--from", "end", "--group", "g"], "group seek t g"),
        (["consume", "t", "--format", "jsno"], "did you mean json?"),
        (["consume", "t", "--max-records", "0"], "'0' is no whole number from 1"),
        (["produce", "t", "--header", "x"], "give NAME=VALUE"),
        (["produce", "tt"], "did you mean t?"),
        (["consume", "other"], "known topics: t"),
    ],
)
def test_a_misuse_is_one_sentence_with_its_remedy_and_status_2(tmp_path: Path, arguments: list[str], word: str) -> None:
    url = f"file://{tmp_path}/data"
    with tb.connect(url) as broker:
        broker.create_topic("t", partitions=2)
    done = Cli(url)(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert word in done.stderr
    assert done.stderr.count("\n") == 1
