"""Topics, groups, dead letters and the broker itself from the command line: what is done, and what is shown of it."""

import os
import pty
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import telemetry_broker as tb
from tests.integration.cli_runs import LIBRARY, SERVICES, Cli
from tests.integration.service_processes import BrokerProcess


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    with BrokerProcess(tmp_path_factory.mktemp("server")) as process:
        yield process


@pytest.fixture(params=["file", "grpc"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A broker without topics."""
    if request.param == "file":
        url = f"file://{tmp_path}/data"
        tb.connect(url).close()
        yield url
        return
    url = request.getfixturevalue("server").url
    yield url
    with tb.connect(url) as broker:
        for topic in broker.topics():
            broker.delete_topic(topic.name)


@pytest.fixture
def cli(url: str) -> Cli:
    return Cli(url)


def fill(url: str, topic: str = "telemetry", records: int = 1500) -> None:
    """A topic of two partitions, unless there is one: so many records in the first one, none in the other."""
    with tb.connect(url) as broker:
        if topic not in {known.name for known in broker.topics()}:
            broker.create_topic(topic, partitions=2)
        with broker.producer(topic) as producer:
            for number in range(records):
                producer.send(b"%d" % number, partition=0)


def squeezed(text: str) -> list[str]:
    """The lines, with one space for many."""
    return [" ".join(line.split()) for line in text.splitlines()]


def test_topics_are_made_listed_described_and_changed(cli: Cli, url: str) -> None:
    made = cli.ok("topic", "create", "telemetry", "--partitions", "2", "--retention", "1h30m", "--durability", "fsync")
    assert made == "telemetry: 2 partitions, durability fsync, retention 90m, 1.0 GiB, version 1\n"
    fill(url)
    header, row = cli.ok("topic", "list").splitlines()
    assert header.split("  ")[0] == "TOPIC"
    assert re.fullmatch(r"telemetry +2 +1,500 +[0-9.]+ KiB  fsync +90m, 1.0 GiB +(now|\d+ s ago)", row)
    assert header.index("RECORDS") + len("RECORDS") == row.index("1,500") + len("1,500"), "numbers are to the right"

    lines = squeezed(cli.ok("topic", "describe", "telemetry"))
    assert "durability fsync" in lines
    assert "max attempts 20" in lines
    assert "PARTITION START END RECORDS SYNCED SIZE LAST RECORD" in lines
    assert any(re.fullmatch(r"0 0 1,500 1,500 1,500 [0-9.]+ KiB (now|\d+ s ago)", line) for line in lines)
    assert "1 0 0 0 0 0 B -" in lines

    changed = cli.ok("topic", "configure", "telemetry", "--max-partition-bytes", "10GiB", "--if-version", "1")
    assert changed.endswith("version 2\n")
    assert "partition bound 10.0 GiB, then reject" in squeezed(cli.ok("topic", "describe", "telemetry"))
    stale = cli("topic", "configure", "telemetry", "--max-attempts", "3", "--if-version", "1")
    assert (stale.returncode, stale.stdout) == (2, "")
    assert "topic.version" in stale.stderr


def test_the_json_of_topics_has_stable_names(cli: Cli, url: str) -> None:
    (made,) = cli.objects("topic", "create", "telemetry", "--partitions", "2", "--json")
    config = {
        "topic": "telemetry",
        "config_version": 1,
        "partitions": 2,
        "durability": "os",
        "retention_seconds": 86400.0,
        "retention_bytes": 1 << 30,
        "max_partition_bytes": None,
        "full_policy": "reject",
        "segment_bytes": 64 << 20,
        "max_attempts": 20,
        "visibility_timeout_seconds": 30.0,
    }
    assert made == config
    fill(url)
    (listed,) = cli.objects("topic", "list", "--json")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", listed["last_append_time"])
    assert listed == config | {
        "records": 1500,
        "bytes": listed["bytes"],
        "last_append_time": listed["last_append_time"],
    }
    (described,) = cli.objects("topic", "describe", "telemetry", "--json")
    states = described.pop("partition_states")
    assert described == listed
    assert states[0].keys() == {
        "partition",
        "log_id",
        "start_offset",
        "end_offset",
        "synced_end_offset",
        "bytes",
        "last_append_time",
        "poisoned",
        "recovered_cut_bytes",
        "dropped_records",
        "forgotten_producers",
    }
    assert [(state["partition"], state["start_offset"], state["end_offset"]) for state in states] == [
        (0, 0, 1500),
        (1, 0, 0),
    ]


def test_what_deletes_needs_yes_where_nobody_can_be_asked(cli: Cli, url: str) -> None:
    fill(url)
    cli.ok("consume", "telemetry", "--group", "g")
    for arguments in (
        ("topic", "purge", "telemetry"),
        ("topic", "delete", "telemetry"),
        ("group", "delete", "telemetry", "g"),
    ):
        refused = cli(*arguments)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert "--yes" in refused.stderr
    assert cli.ok("topic", "purge", "telemetry", "--partition", "1", "--yes") == "purged 0 records of telemetry\n"
    assert cli.ok("topic", "purge", "telemetry", "--yes") == "purged 1,500 records of telemetry\n"
    assert cli.objects("topic", "purge", "telemetry", "--yes", "--json") == [{"topic": "telemetry", "purged": 0}]
    assert cli.ok("group", "delete", "telemetry", "g", "--yes") == "deleted g of telemetry\n"
    assert cli.ok("topic", "delete", "telemetry", "--yes") == "deleted telemetry\n"
    done = cli("topic", "list")
    assert (done.returncode, done.stdout) == (0, "")
    assert "topic create NAME" in done.stderr


@pytest.mark.parametrize(("answer", "status", "is_left"), [(b"y\n", 0, False), (b"n\n", 1, True), (b"\x04", 1, True)])
def test_a_person_at_a_terminal_is_asked(tmp_path: Path, answer: bytes, status: int, is_left: bool) -> None:
    url = f"file://{tmp_path}/data"
    fill(url)
    cli = Cli(url)
    terminal, screen = pty.openpty()
    try:
        with subprocess.Popen(
            [*cli.program, "topic", "delete", "telemetry"],
            env=cli.environment,
            stdin=screen,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as asking:
            assert asking.stderr is not None
            assert asking.stdout is not None
            question = b""
            while not question.endswith(b"[y/N] "):
                question += asking.stderr.read(1)
            os.write(terminal, answer)
            assert asking.wait(30) == status
    finally:
        os.close(screen)
        os.close(terminal)
    assert question.decode() == "Delete topic telemetry with 1,500 records and 0 groups, for good? [y/N] "
    with tb.connect(url) as broker:
        assert [topic.name for topic in broker.topics()] == ["telemetry"] * is_left


def test_groups_are_made_listed_described_and_moved(cli: Cli, url: str) -> None:
    fill(url)
    assert "first consumer" in cli("group", "list", "telemetry").stderr
    made = cli.ok("group", "create", "telemetry", "store", "--mode", "ordered", "--from", "end")
    assert made == "store: a group of telemetry, ordered\n"
    cli.ok("consume", "telemetry", "--group", "collector", "--max-records", "1200")
    assert squeezed(cli.ok("group", "list", "telemetry")) == [
        "GROUP MODE LAG IN FLIGHT REDELIVERED",
        "collector shared 300 0 0",
        "store ordered 0 0 0",
    ]
    assert cli.objects("group", "list", "telemetry", "--json")[0] == {
        "topic": "telemetry",
        "group": "collector",
        "mode": "shared",
        "lag": 300,
        "in_flight": 0,
        "redelivered": 0,
    }
    lines = squeezed(cli.ok("group", "describe", "telemetry", "collector"))
    assert "lag 300" in lines
    assert "0 1,200 1,200 300 0 0 0" in lines

    moved = squeezed(cli.ok("group", "seek", "telemetry", "collector", "--to", "5", "--partition", "0"))
    assert moved[1] == "0 5 5 1,495 0 0 0"
    (told,) = cli.objects("group", "seek", "telemetry", "collector", "--to", "10m", "--json")
    assert [state["acked_end_offset"] for state in told["partitions"]] == [0, 0]
    (told,) = cli.objects("group", "seek", "telemetry", "collector", "--to", "2100-01-01T00:00:00Z", "--json")
    assert [state["lag"] for state in told["partitions"]] == [0, 0]
    (state,) = cli.objects("group", "describe", "telemetry", "collector", "--json")
    assert state["partitions"][0]["next_offset"] == 1500
    assert state["partitions"][0].keys() == told["partitions"][0].keys()


def test_dead_letters_are_listed_and_redriven(cli: Cli, url: str) -> None:
    fill(url, records=4)
    with tb.connect(url) as broker, broker.consumer("telemetry", "collector") as consumer:
        batch = consumer.receive(wait=5)
        batch.nack(offsets=[1], dead_letter=True, reason="no\x1b[31m number\n")
        batch.nack(offsets=[2, 3], dead_letter=True, reason="late")
        batch.ack()
    done = cli("dlq", "list", "telemetry")
    assert (done.returncode, done.stderr) == (0, "3 dead letters in telemetry\n")
    assert "\x1b" not in done.stdout
    lines = squeezed(done.stdout)
    assert lines[0] == "PARTITION OFFSET GROUP ATTEMPTS GIVEN UP REASON VALUE"
    assert re.fullmatch(r"0 0 collector 1 (now|\d+ s ago) no\\x1b\[31m number\\n 1", lines[1])
    assert cli("dlq", "list", "telemetry.dlq", "--max-records", "1").stderr == "1 of 3 dead letters in telemetry\n"
    letters = cli.objects("dlq", "list", "telemetry", "--group", "collector", "--json")
    assert [(letter["offset"], letter["reason"], letter["origin_offset"], letter["value"]) for letter in letters] == [
        (0, "no\x1b[31m number\n", 1, "1"),
        (1, "late", 2, "2"),
        (2, "late", 3, "3"),
    ]
    assert letters[0].keys() == {
        *("topic", "partition", "offset", "group", "reason", "attempts", "time"),
        *("origin_log_id", "origin_offset", "timestamp", "key", "value", "headers"),
    }
    refused = cli("dlq", "redrive", "telemetry", "--offset", "1")
    assert (refused.returncode, "--partition" in refused.stderr) == (2, True)
    put_back = cli.ok("dlq", "redrive", "telemetry", "--partition", "0", "--offset", "1-2")
    assert put_back == "redriven 2 records of telemetry\n"
    assert cli.objects("dlq", "redrive", "telemetry", "--json") == [{"topic": "telemetry", "redriven": 1}]
    assert cli.ok("consume", "telemetry", "--group", "collector").split() == ["2", "3", "1"]


def test_the_broker_itself_is_described(cli: Cli, url: str) -> None:
    fill(url)
    lines = squeezed(cli.ok("describe"))
    assert any(line.endswith(f"at {url}") for line in lines)
    assert {f"version {tb.__version__}", "topics 1 with 2 partitions", "takes records yes"} <= set(lines)
    (state,) = cli.objects("describe", "--json")
    assert (state["version"], state["topics"], state["partitions"], state["draining"]) == (tb.__version__, 1, 2, False)
    assert Path(state["data_dir"]).is_dir()
    assert state["free_bytes"] > state["min_free_bytes"] > 0


def test_the_services_command_has_the_same_commands(url: str) -> None:
    library, services = Cli(url, LIBRARY), Cli(url, SERVICES)
    assert services.ok("topic", "create", "telemetry") == library.ok("topic", "create", "telemetry")
    assert services.ok("produce", "telemetry", stdin="a\n") == "stored 1 record in telemetry\n"
    assert services.ok("consume", "telemetry") == "a\n"
    assert library("--help").stdout.count("\n") > 10
    for arguments in (("topic", "lst"), ("topic", "describe", "nope")):
        near, far = library(*arguments), services(*arguments)
        assert far.returncode == near.returncode == 2
        assert far.stderr == near.stderr.replace("python -m telemetry_broker", "telemetry")
