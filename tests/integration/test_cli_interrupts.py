"""Ctrl-C, SIGTERM, a reader that goes away, and a broker that does: nothing is lost, and nothing is a traceback."""

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import telemetry_broker as tb
from tests.integration.cli_runs import PATIENCE, Cli, Running
from tests.integration.service_processes import BrokerProcess

RECORDS = 2000
SIGNALS = [signal.SIGINT, signal.SIGTERM]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    with BrokerProcess(tmp_path_factory.mktemp("server")) as process:
        yield process


@pytest.fixture(params=["file", "grpc"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A broker with an empty topic `t` of one partition."""
    url = f"file://{tmp_path}/data" if request.param == "file" else request.getfixturevalue("server").url
    yield from with_topic(url)


@pytest.fixture
def far(server: BrokerProcess) -> Iterator[str]:
    """The same, of a broker elsewhere, which others can use meanwhile."""
    yield from with_topic(server.url)


def with_topic(url: str) -> Iterator[str]:
    with tb.connect(url) as broker:
        broker.create_topic("t", partitions=1)
    yield url
    with tb.connect(url) as broker:
        broker.delete_topic("t")


def fill(url: str, first: int = 0, count: int = RECORDS) -> None:
    with tb.connect(url) as broker, broker.producer("t") as producer:
        for number in range(first, first + count):
            producer.send(b"%100d" % number)


def numbers(text: str) -> list[int]:
    return [int(line) for line in text.splitlines()]


def told(running: Running, url: str, count: int) -> list[int]:
    """What it prints first; over a folder, it says first that it is alone with it."""
    if url.startswith("file:"):
        assert "nobody else can add records" in running.error_line()
    return [int(running.line()) for _ in range(count)]


@pytest.mark.parametrize("number", SIGNALS)
def test_following_goes_on_with_what_comes_until_it_is_interrupted(far: str, number: int) -> None:
    fill(far, count=10)
    with Cli(far).begin("consume", "t", "--follow", "--from", "start") as consume:
        assert told(consume, far, 10) == list(range(10))
        fill(far, 10, 5)
        assert told(consume, far, 5) == list(range(10, 15))
        consume.interrupt(number)
        assert consume.end() == (130, "", "")


def test_following_from_the_end_begins_with_the_next_record(far: str) -> None:
    fill(far, count=10)
    with Cli(far).begin("consume", "t", "--follow", "--from", "end", "--max-records", "3") as consume:
        first = 10
        while consume.process.poll() is None:  # it has begun by the time that it ends
            fill(far, first, 1)
            first += 1
        got = numbers(consume.end()[1])
    assert len(got) == 3
    assert got == list(range(got[0], got[0] + 3))
    assert got[0] >= 10


def test_following_ends_over_a_folder_too(url: str) -> None:
    fill(url, count=10)
    with Cli(url).begin("consume", "t", "--follow") as consume:
        assert told(consume, url, 10) == list(range(10))
        consume.interrupt()
        assert consume.end() == (130, "", "")


@pytest.mark.parametrize("number", SIGNALS)
def test_an_interrupted_consumer_gives_back_its_leases_and_keeps_its_acks(far: str, number: int) -> None:
    fill(far, count=10)
    with tb.connect(far) as broker, Cli(far).begin("consume", "t", "--group", "g", "--follow") as consume:
        assert told(consume, far, 10) == list(range(10))
        deadline = time.monotonic() + PATIENCE
        while broker.describe_group("t", "g").lag:
            assert time.monotonic() < deadline, "what was printed is not acked"
        consume.interrupt(number)
        assert consume.end() == (130, "", "")
        (state,) = broker.describe_group("t", "g").partitions
        assert (state.lag, state.in_flight) == (0, 0)


def test_a_consumer_of_a_folder_ends_at_ctrl_c_and_loses_nothing(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/data"
    with tb.connect(url) as broker:
        broker.create_topic("t", partitions=1)
    fill(url, count=10)
    with Cli(url).begin("consume", "t", "--group", "g", "--follow") as consume:
        assert told(consume, url, 10) == list(range(10))
        consume.interrupt()  # before or behind the ack of what it printed
        assert consume.end() == (130, "", "")
    with tb.connect(url) as broker:
        (state,) = broker.describe_group("t", "g").partitions
        assert state.in_flight == 0
        assert state.lag in (0, 10)


def test_a_consumer_that_is_interrupted_while_its_pipe_is_full_acks_only_what_was_taken(url: str) -> None:
    fill(url)
    with Cli(url).begin("consume", "t", "--group", "g") as consume:
        first = consume.line()
        assert int(first) == 0
        with_more = consume.process.stdout
        assert with_more is not None
        consume.interrupt()  # the pipe holds 64 KiB, the records have 200 KiB: it waits in a write
        rest = with_more.read()
        assert consume.process.wait(PATIENCE) == 130
    got = [0, *numbers(rest[: rest.rfind("\n") + 1])]  # a line that was cut in the middle was not written
    assert got == list(range(len(got)))
    with tb.connect(url) as broker:
        (state,) = broker.describe_group("t", "g").partitions
        assert state.in_flight == 0
        assert state.acked_end_offset <= len(got), "nothing is acked that was not written"
        with broker.consumer("t", "g", idle_timeout=0) as consumer:
            left = [int(value) for batch in consumer for value in batch.values]
    assert left == list(range(state.acked_end_offset, RECORDS))


@pytest.mark.parametrize("group", [[], ["--group", "g"]], ids=["look", "group"])
def test_a_reader_that_has_seen_enough_ends_it_without_a_word(url: str, group: list[str]) -> None:
    fill(url)
    with Cli(url).begin("consume", "t", *group) as consume:
        assert int(consume.line()) == 0
        consume.close_output()
        assert consume.end() == (0, "", "")
    if group:
        with tb.connect(url) as broker:
            (state,) = broker.describe_group("t", "g").partitions
            assert state.in_flight == 0
            assert 0 <= state.acked_end_offset < RECORDS


@pytest.mark.parametrize("number", SIGNALS)
def test_an_interrupted_producer_stores_what_it_read_and_says_how_much(url: str, number: int) -> None:
    with Cli(url).begin("produce", "t", "--format", "json") as produce:
        produce.write('{"value": "a"}\n{"value": "b"}\n{"bad": 1}\n')
        assert produce.error_line().startswith("line 3: ")
        produce.interrupt(number)
        status, stdout, stderr = produce.end()
    assert (status, stdout) == (130, "stored 2 records in t\n")
    assert "Ctrl-C again gives it up" in stderr
    assert "refused 1 line" in stderr
    with tb.connect(url) as broker:
        assert broker.read("t", 0).values == [b"a", b"b"]


def test_what_the_broker_does_not_store_is_told_with_its_lines_and_ends_the_reading(far: str) -> None:
    with tb.connect(far) as broker, Cli(far).begin("produce", "t") as produce:
        produce.write("a\n")
        with broker.consumer("t", "watch") as consumer:
            assert consumer.receive(wait=PATIENCE).values == [b"a"]
        broker.delete_topic("t")
        produce.write("b\n")
        assert "topic.not_found: t/0: a batch of 1 records was not stored" in produce.error_line()
        produce.write("c\n")
        status, stdout, stderr = produce.end()
        broker.create_topic("t")
    assert (status, stdout) == (1, "stored 1 record in t\n")
    assert "what was not stored is among the lines 1 to 3; reading ended" in stderr


def test_a_second_ctrl_c_gives_up_what_a_broker_that_is_gone_does_not_take(tmp_path: Path) -> None:
    with BrokerProcess(tmp_path / "data") as server, tb.connect(server.url) as broker:
        broker.create_topic("t", partitions=1)
        with Cli(server.url).begin("produce", "t", "--format", "json", "--json") as produce:
            produce.write('{"value": "a"}\n')
            with broker.consumer("t", "watch") as consumer:
                assert consumer.receive(wait=PATIENCE).values == [b"a"]
            server.kill()
            produce.write('{"value": "b"}\n{}\n')
            assert produce.error_line().startswith("line 3: ")  # so it has read what is before
            produce.interrupt()
            assert "Ctrl-C again" in produce.error_line()
            produce.interrupt()
            status, stdout, stderr = produce.end()
    assert status == 130
    counts = json.loads(stdout)
    assert counts["refused"] == 1
    assert counts["failed"] in (1, 2), "the broker may have died before it answered for the first one"
    assert counts["stored"] + counts["failed"] == 2
    assert "not stored, or nobody knows whether" in stderr


def test_following_sits_out_a_broker_that_is_away(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with BrokerProcess(data) as server:
        url, port = server.url, int(server.grpc.rpartition(":")[2])
        with tb.connect(url) as broker:
            broker.create_topic("t", partitions=1)
        fill(url, count=3)
        with Cli(url).begin("consume", "t", "--follow") as consume:
            assert told(consume, url, 3) == [0, 1, 2]
            server.kill()
            with BrokerProcess(data, grpc_port=port):
                fill(url, 3, 2)
                assert told(consume, url, 2) == [3, 4]
                consume.interrupt()
                assert consume.end() == (130, "", "")


def test_a_full_disk_behind_standard_output_is_a_sentence_and_nothing_is_acked(url: str) -> None:
    fill(url, count=10)
    cli = Cli(url)
    command = [*cli.program, "consume", "t", "--group", "g"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            command, env=cli.environment, stdout=full, stderr=subprocess.PIPE, text=True, timeout=PATIENCE, check=False
        )
    assert done.returncode == 2
    assert "standard input or output: No space left on device" in done.stderr
    assert done.stderr.count("\n") == 1
    with tb.connect(url) as broker:
        assert broker.describe_group("t", "g").lag == 10
