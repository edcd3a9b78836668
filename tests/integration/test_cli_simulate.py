"""`simulate` from the command line: the records of a seed, real time until Ctrl-C, dumps, and what is refused."""

import json
import signal
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

import telemetry_broker as tb
from telemetry_broker import _core
from tests.integration.cli_runs import Cli, Running
from tests.integration.service_processes import BrokerProcess

GOLDEN = Path(__file__).parents[1] / "vectors" / "fleet.txt"
OF_GOLDEN = (
    *("--hosts", "2", "--gpus", "2", "--seed", "7", "--start", "2025-07-18T12:00:00Z"),
    *("--speed", "0", "--duration", "30s"),
)
AN_HOUR = ("--speed", "0", "--duration", "1h")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    with BrokerProcess(tmp_path_factory.mktemp("server")) as process:
        yield process


@pytest.fixture
def url(server: BrokerProcess) -> Iterator[str]:
    yield server.url
    with tb.connect(server.url) as broker:
        for topic in broker.topics():
            broker.delete_topic(topic.name)


@pytest.fixture
def cli(url: str) -> Cli:
    return Cli(url)


def stored(url: str, topic: str = "telemetry") -> list[tuple[bytes | None, bytes]]:
    """Keys and values of a topic, partition by partition."""
    found: list[tuple[bytes | None, bytes]] = []
    with tb.connect(url) as broker:
        for partition in range(len(broker.describe_topic(topic).partitions)):
            page = broker.read(topic, partition)
            while page:
                for records in page:
                    found += zip(records.keys, records.values, strict=True)
                page = broker.read(topic, partition, page.next)
    return found


def test_a_seed_gives_the_records_that_it_always_gave(cli: Cli, url: str) -> None:
    assert cli.ok("simulate", *OF_GOLDEN).startswith("stored 12 records in telemetry: 360 samples in ")
    records = stored(url)
    assert sorted(value.decode() for _, value in records) == sorted(GOLDEN.read_text().splitlines())
    assert all(key is not None and b",uuid=%s " % key in value for key, value in records)


def test_a_topic_is_made_where_there_is_none_and_left_as_it_is_where_there_is_one(cli: Cli, url: str) -> None:
    cli.ok("topic", "create", "there", "--partitions", "3", "--durability", "memory")
    for topic in ("there", "new"):
        cli.ok("simulate", *OF_GOLDEN, "--topic", topic, "--partitions", "2")
    with tb.connect(url) as broker:
        there, new = broker.describe_topic("there"), broker.describe_topic("new")
    assert (len(there.partitions), there.topic.config.durability) == (3, "memory")
    assert len(new.partitions) == 2
    assert sorted(stored(url, "there")) == sorted(stored(url, "new"))


def test_the_folder_of_a_broker_takes_records_too(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/data"
    cli = Cli(url)
    cli.ok("topic", "create", "telemetry")
    cli.ok("simulate", *OF_GOLDEN)
    assert len(stored(url)) == 12


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_goes_on_in_real_time_until_it_is_interrupted(cli: Cli, url: str, number: int) -> None:
    with cli.begin("simulate", "--hosts", "3", "--interval", "1h") as running:
        assert running.error_line() == (
            f"simulating 24 GPUs on 3 hosts, 30 metrics each 1h, into telemetry of {url}; Ctrl-C ends it"
        )
        with tb.connect(url) as broker, broker.consumer("telemetry", group="g") as consumer:
            count = 0
            while count < 24:  # the first scrape; the next one is an hour away
                batch = consumer.receive(wait=10)
                count += len(batch.values)
                batch.ack()
        running.interrupt(number)
        status, printed, errors = running.end()
    assert (status, errors) == (130, "")
    assert printed.startswith("stored 24 records in telemetry: 720 samples in ")


def test_a_dump_has_the_columns_of_a_real_one_and_streams_to_the_same_records(
    cli: Cli, url: str, tmp_path: Path
) -> None:
    dump = tmp_path / "dump.csv"
    assert (
        Cli(None)
        .ok("simulate", *OF_GOLDEN, "--csv", dump)
        .startswith("stored 12 records as 360 rows of a dump: 360 samples in ")
    )
    reader = _core.CsvReader(dump, partitions=1)
    block = reader.next_block()
    assert block is not None
    assert (block.rows, block.samples, block.points, block.rejected) == (360, 360, 12, {})
    with tb.connect("mem://") as broker:
        broker.create_topic("t", partitions=1)
        with broker.producer("t") as producer:
            producer.append(block.batches[0], partition=0, sequence=1)
        values = broker.read("t", 0).values
    assert sorted(value.decode() for value in values) == sorted(GOLDEN.read_text().splitlines())


def test_a_dump_may_go_to_standard_output_whose_reader_may_leave(tmp_path: Path) -> None:
    cli, dump = Cli(None), tmp_path / "dump.csv"
    cli.ok("simulate", *OF_GOLDEN, "--csv", dump)
    done = cli("simulate", *OF_GOLDEN, "--csv", "-")
    assert (done.returncode, done.stdout) == (0, dump.read_text())
    assert done.stderr.startswith("stored 12 records as 360 rows")
    command = [*cli.program, "simulate", "--csv", "-", "--speed", "0", "--duration", "30d"]
    with Running(command, cli.environment) as running:
        assert running.line() == dump.read_text().splitlines()[0]
        running.close_output()
        status, _, errors = running.end()
    assert (status, len(errors.splitlines())) == (0, 1)


def test_a_file_that_is_there_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "dump.csv").write_text("mine")
    done = Cli(None)("simulate", *AN_HOUR, "--csv", tmp_path / "dump.csv")
    assert (done.returncode, done.stdout) == (2, "")
    assert "dump.csv is there already: remove it, or give another name" in done.stderr
    assert (tmp_path / "dump.csv").read_text() == "mine"


def test_a_disk_that_is_full_is_told_with_what_was_written() -> None:
    cli = Cli(None)
    with Path("/dev/full").open("wb") as full:
        command = [*cli.program, "simulate", *AN_HOUR, "--csv", "-"]
        done = subprocess.run(
            command, env=cli.environment, stdout=full, stderr=subprocess.PIPE, check=False, timeout=30
        )
    assert done.returncode != 0
    assert b"No space left on device" in done.stderr
    assert b"Traceback" not in done.stderr


def test_the_counts_are_one_object_for_scripts(cli: Cli) -> None:
    [told] = cli.objects("simulate", *OF_GOLDEN, "--json")
    fixed = {
        "topic": "telemetry",
        "csv": None,
        "hosts": 2,
        "gpus": 4,
        "metrics": 30,
        "seed": 7,
        "first_time": "2025-07-18T12:00:00.000000000Z",
        "last_time": "2025-07-18T12:00:20.000000000Z",
        "records": 12,
        "samples": 360,
        "behind_seconds": 0.0,
    }
    assert {name: told[name] for name in fixed} == fixed
    assert set(told) - set(fixed) == {"bytes", "seconds", "samples_per_second"}
    assert told["bytes"] > GOLDEN.stat().st_size


def test_without_a_start_what_is_quicker_than_real_time_ends_now(cli: Cli) -> None:
    [told] = cli.objects("simulate", *AN_HOUR, "--interval", "1m", "--json")
    with_rate = cli.objects("simulate", *AN_HOUR, "--interval", "1m", "--rate", "100000", "--json")[0]
    assert told["records"] == with_rate["records"] == 60 * 32
    assert told["last_time"] <= json.loads(cli.ok("topic", "describe", "telemetry", "--json"))["last_append_time"]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--hosts", "0"), "0 hosts; a fleet has 1 to 65536"),
        (("--gpus", "17"), "17 GPUs; a host has 1 to 16"),
        (("--metrics", "31"), "31 metrics; there are 30"),
        (("--interval", "0"), "an interval of 0 ns; give 1 ms to 1 day"),
        (("--interval", "fast"), "'fast' is no duration"),
        (("--interval", f"{'9' * 400}d"), "is more than 100 years"),
        (("--start", "yesterday"), "'yesterday' is no time in RFC 3339"),
        (("--start", "1969-01-01T00:00:00Z"), "give one from 1970 to 2249"),
        (("--duration", "0"), "--duration is 0: give a time, such as 1h"),
        (("--speed", "-1"), "'-1' is no number of 0 or more"),
        (("--speed", "0"), "--speed 0 does not end by itself: add --duration"),
        (("--csv", "dump.csv", "--broker", "grpc://127.0.0.1:1"), "give one of them"),
        (("--broker", "mem://"), "ends with the process that has it"),
    ],
)
def test_what_makes_no_sense_is_refused_before_the_broker_is_asked(options: tuple[str, ...], told: str) -> None:
    done = Cli("grpc://127.0.0.1:1")("simulate", *options)
    assert (done.returncode, done.stdout) == (2, "")
    assert told in done.stderr


def test_a_broker_that_is_not_there_is_told_and_nothing_counts_as_stored() -> None:
    done = Cli("grpc://127.0.0.1:1")("simulate", *AN_HOUR)
    assert (done.returncode, done.stdout) == (2, "")
    assert "grpc://127.0.0.1:1 did not answer" in done.stderr


def test_a_topic_that_cannot_be_is_told(cli: Cli) -> None:
    done = cli("simulate", *AN_HOUR, "--topic", "a/b")
    assert (done.returncode, done.stdout) == (2, "")
    assert 'topic name "a/b" is not allowed' in done.stderr


def test_a_scrape_is_in_the_topic_before_the_next_one(cli: Cli, url: str) -> None:
    cli.ok("simulate", "--hosts", "200", "--partitions", "1", "--interval", "1h", "--speed", "0", "--duration", "3h")
    times = [int(value.rsplit(b" ", 1)[1]) for _, value in stored(url)]
    assert len(times) == 200 * 8 * 3
    assert all(before <= after for before, after in pairwise(times))
