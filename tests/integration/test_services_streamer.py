"""`telemetry streamer` as a process, against a real broker: what is sent, once, and what is not."""

import os
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

import telemetry_broker as tb
from telemetry_broker import testing
from telemetry_services.streamer.live_fleet import SCRAPE_ROWS, LiveFleet
from tests.integration.service_processes import SAMPLE, BrokerProcess, Service, dump, row


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[BrokerProcess]:
    with BrokerProcess(tmp_path / "broker") as process:
        yield process


def stream(broker: BrokerProcess, csv: Path, *arguments: object, delay: int | None = 0, **environment: str) -> Service:
    """Runs a streamer to its end."""
    environment = {"BROKER_URL": broker.url, "CSV_PATH": str(csv), **environment}
    if delay is not None:
        environment["CSV_DELAY_MS"] = str(delay)
    data = broker_data(csv)
    with Service("streamer", "--port", 0, "--data", data, *arguments, environment=environment) as streamer:
        streamer.wait()
    return streamer


def broker_data(csv: Path) -> Path:
    return csv.parent / "streamer" if csv != SAMPLE else Path("/nonexistent")


def lines(broker: BrokerProcess, topic: str = "telemetry") -> list[str]:
    with tb.connect(broker.url) as client:
        found: list[str] = []
        for partition in client.describe_topic(topic).partitions:
            start: tb.Position = tb.START
            while page := client.read(topic, partition.partition, start, max_records=10_000):
                found += [value.decode() for value in page.values]
                start = page.next
        return sorted(found)


def test_a_dump_is_sent_once_however_often_it_is_streamed(broker: BrokerProcess, tmp_path: Path) -> None:
    csv = tmp_path / "dump.csv"
    csv.write_bytes(SAMPLE.read_bytes())
    first = stream(broker, csv)
    assert first.process.returncode == 0, first.output
    assert "Published message" in first.output
    sent = lines(broker)
    assert sum(line.count("DCGM_FI_DEV_") for line in sent) == 2470
    assert len({line.partition("uuid=")[2].partition(" ")[0] for line in sent}) == 247
    second = stream(broker, csv)
    assert second.process.returncode == 0
    assert "Published message" not in second.output
    assert lines(broker) == sent


def test_again_sends_it_once_more(broker: BrokerProcess, tmp_path: Path) -> None:
    csv = dump([row(0), row(1)], tmp_path / "dump.csv")
    stream(broker, csv)
    assert stream(broker, csv, "--again").process.returncode == 0
    assert len(lines(broker)) == 4


def test_what_has_grown_is_added(broker: BrokerProcess, tmp_path: Path) -> None:
    csv = dump([row(0), row(1)], tmp_path / "dump.csv")
    stream(broker, csv)
    dump([row(0), row(1), row(2), row(3)], csv)
    stream(broker, csv)
    assert len(lines(broker)) == 4


def test_the_topic_is_that_of_the_variable_with_its_partitions(broker: BrokerProcess, tmp_path: Path) -> None:
    csv = dump([row(0)], tmp_path / "dump.csv")
    streamed = stream(broker, csv, MSG_QUEUE_TOPIC="other", PARTITIONS_PER_TOPIC="2", MSG_QUEUE_PRODUCER_NAME="s-7")
    assert "producer=s-7" in streamed.output
    assert len(lines(broker, "other")) == 1
    with tb.connect(broker.url) as client:
        assert len(client.describe_topic("other").partitions) == 2


def test_the_proxys_host_is_that_of_msg_queue_addr(tmp_path: Path) -> None:
    csv = dump([row(0)], tmp_path / "dump.csv")
    environment = {"MSG_QUEUE_ADDR": "http://proxy.invalid:8080", "CSV_PATH": str(csv)}
    with Service("streamer", "--port", 0, "--data", tmp_path, environment=environment) as streamer:
        streamer.wait_for(r"grpc://proxy\.invalid:9090")
        assert streamer.stop() == 0


def test_the_delay_is_a_pause_after_each_row(broker: BrokerProcess, tmp_path: Path) -> None:
    csv = dump([row(second) for second in range(100)], tmp_path / "dump.csv")
    environment = {"BROKER_URL": broker.url, "CSV_PATH": str(csv), "CSV_DELAY_MS": "3600000"}
    with Service("streamer", "--port", 0, "--data", tmp_path, environment=environment) as streamer:
        streamer.wait_for("Published message")
        assert len(lines(broker)) == 1  # the first row, and now it pauses for an hour
        assert streamer.stop(timeout=5) == 0


def test_a_loop_shifts_the_timestamps(broker: BrokerProcess, tmp_path: Path) -> None:
    csv = dump([row(0), row(1)], tmp_path / "dump.csv")
    environment = {"BROKER_URL": broker.url, "CSV_PATH": str(csv)}
    arguments = ("--port", 0, "--data", tmp_path, "--loop", "--rate", 100)
    for enough in (6, 10):  # the second start goes on where the first one stopped
        with Service("streamer", *arguments, environment=environment) as streamer:
            streamer.wait_for(r"Published message.*")
            while len(lines(broker)) < enough:
                assert streamer.process.poll() is None
            assert streamer.stop() == 0
    times = sorted(int(line.rsplit(" ", 1)[1]) // 1_000_000_000 for line in lines(broker))
    assert times == list(range(times[0], times[0] + len(times)))


def test_bad_rows_are_counted_by_reason_and_kept(broker: BrokerProcess, tmp_path: Path) -> None:
    rows = [row(0), row(1, value="NaN"), row(2, value="many"), '"short","row"', row(3), row(4).replace("2025", "once")]
    csv = dump(rows, tmp_path / "dump.csv")
    streamed = stream(broker, csv)
    assert streamed.process.returncode == 0
    assert len(lines(broker)) == 2
    assert "4 rows cannot be used" in streamed.output
    for reason in ("not_finite 1", "number 1", "short 1", "timestamp 1"):
        assert reason in streamed.output
    rejects = tmp_path / "streamer" / "rejects" / "dump.csv"
    assert str(rejects) in streamed.output
    assert rejects.read_text().count("\n") == 1 + 4
    stream(broker, csv)
    assert rejects.read_text().count("\n") == 1 + 4


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, ["no such file"]),
        (b"", ["csv.empty"]),
        (b"a,b,c\n1,2,3\n", ["csv.header", "timestamp"]),
    ],
)
def test_a_file_that_is_no_dump_ends_with_a_sentence(
    broker: BrokerProcess, tmp_path: Path, content: bytes | None, words: list[str]
) -> None:
    csv = tmp_path / "dump.csv"
    if content is not None:
        csv.write_bytes(content)
    streamed = stream(broker, csv)
    assert streamed.process.returncode == 1
    assert "Traceback" not in streamed.output
    for word in (*words, str(csv)):
        assert word in streamed.output


def test_a_file_without_a_good_row_ends_with_an_error_that_says_why(broker: BrokerProcess, tmp_path: Path) -> None:
    csv = dump([row(0, value="many"), row(1, value="few")], tmp_path / "dump.csv")
    streamed = stream(broker, csv)
    assert streamed.process.returncode == 1
    for word in ("source.no_rows", "number 2", str(tmp_path / "streamer" / "rejects" / "dump.csv")):
        assert word in streamed.output


def test_a_second_run_on_a_file_without_a_good_row_fails_too(broker: BrokerProcess, tmp_path: Path) -> None:
    csv = dump([row(0, value="many"), row(1, value="few")], tmp_path / "dump.csv")
    for _ in range(2):
        streamed = stream(broker, csv)
        assert streamed.process.returncode == 1
        rejects = tmp_path / "streamer" / "rejects" / "dump.csv"
        assert f"2 rows cannot be used (number 2); they are kept in {rejects}" in streamed.output
    nothing = dump([row(0, value="")], tmp_path / "empty.csv")
    for _ in range(2):
        streamed = stream(broker, nothing)
        assert streamed.process.returncode == 1
        assert "no row can be stored: 1 row, none with a value" in streamed.output


@pytest.mark.parametrize("kind", ["fifo", "/dev/zero"])
def test_what_is_no_regular_file_is_refused_and_not_waited_for(
    broker: BrokerProcess, tmp_path: Path, kind: str
) -> None:
    path = Path(kind)
    if kind == "fifo":
        path = tmp_path / "pipe.csv"
        os.mkfifo(path)
    environment = {"BROKER_URL": broker.url, "CSV_PATH": str(path)}
    with Service("streamer", "--port", 0, "--data", tmp_path / "s", environment=environment) as streamer:
        assert streamer.wait() == 1
        assert f"csv.unreadable: {path}: not a regular file" in streamer.output


def test_metrics_that_no_table_can_hold_are_rejects_and_their_neighbours_are_sent(
    broker: BrokerProcess, tmp_path: Path
) -> None:
    names = ["X\0", "date", "nanos", "uuid", "dcgm_fi_dev_gpu_util"]
    rows = [row(0), *(row(0, metric=name) for name in names), row(1)]
    streamed = stream(broker, dump(rows, tmp_path / "dump.csv"))
    assert streamed.process.returncode == 0, streamed.output
    assert "5 rows cannot be used (metric 5)" in streamed.output
    assert [line.partition(" ")[2].partition("=")[0] for line in lines(broker)] == ["DCGM_FI_DEV_GPU_UTIL"] * 2


def test_repeated_rows_and_missing_values_are_told(broker: BrokerProcess, tmp_path: Path) -> None:
    rows = [row(0, value=1), row(0, value=2), row(1, value=""), row(2)]
    streamed = stream(broker, dump(rows, tmp_path / "dump.csv"))
    assert re.search(r"Streamed all of it rows=4 samples=2 .*duplicates=1 missing=1", streamed.output), streamed.output


def test_a_partition_count_that_an_existing_topic_does_not_have_is_warned_of(
    broker: BrokerProcess, tmp_path: Path
) -> None:
    csv = dump([row(0)], tmp_path / "dump.csv")
    assert "PARTITIONS_PER_TOPIC" not in stream(broker, csv).output
    streamed = stream(broker, csv, PARTITIONS_PER_TOPIC="8")
    assert "WARNING streamer: the topic telemetry has 4 partitions and keeps them" in streamed.output
    assert streamed.process.returncode == 0


def test_use_http_queue_is_logged(broker: BrokerProcess, tmp_path: Path) -> None:
    csv = dump([row(0)], tmp_path / "dump.csv")
    assert "USE_HTTP_QUEUE" not in stream(broker, csv).output
    assert "USE_HTTP_QUEUE is accepted and changes nothing" in stream(broker, csv, USE_HTTP_QUEUE="true").output


# The live fleet, in this process


class Ticks(threading.Event):
    """A stop that lets a loop go round so many times, at once; `between` is called before each but the first."""

    def __init__(self, count: int, between: Callable[[int], None] = lambda _: None) -> None:
        super().__init__()
        self._count = count
        self._between = between
        self._passed = 0

    def wait(self, timeout: float | None = None) -> bool:
        if self._passed:
            self._between(self._passed)
        self._passed += 1
        return self._passed > self._count


def scraped(broker: tb.Broker) -> int:
    """Points in the topic."""
    return broker.describe_topic("telemetry").partitions[0].end_offset


def test_the_live_fleet_scrapes_at_every_tick(tmp_path: Path) -> None:
    csv = dump([row(0), row(0, metric="OTHER")], tmp_path / "dump.csv")
    with testing.broker() as broker:
        broker.create_topic("telemetry", partitions=1)
        LiveFleet(broker, csv, "telemetry").run(Ticks(5))
        assert scraped(broker) == 5


def test_a_long_dump_is_scraped_in_parts_and_then_from_its_beginning(tmp_path: Path) -> None:
    csv = dump([row(0, gpu=gpu) for gpu in range(SCRAPE_ROWS + 1)], tmp_path / "dump.csv")
    with testing.broker() as broker:
        broker.create_topic("telemetry", partitions=1)
        LiveFleet(broker, csv, "telemetry").run(Ticks(3))
        assert scraped(broker) == 2 * SCRAPE_ROWS + 1


def test_the_live_fleet_waits_for_a_dump_that_is_gone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    csv = dump([row(0)], tmp_path / "dump.csv")

    def move(tick: int) -> None:
        if tick == 1:
            csv.rename(tmp_path / "away.csv")
        elif tick == 3:
            (tmp_path / "away.csv").rename(csv)

    with testing.broker() as broker:
        broker.create_topic("telemetry", partitions=1)
        LiveFleet(broker, csv, "telemetry").run(Ticks(5, move))
        assert scraped(broker) == 3
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 2
    assert str(csv) in warnings[0]


def test_the_side_port_counts(broker: BrokerProcess, tmp_path: Path) -> None:
    csv = dump([row(0), row(1), row(2, value="bad")], tmp_path / "dump.csv")
    environment = {"BROKER_URL": broker.url, "CSV_PATH": str(csv)}
    with Service("streamer", "--port", 0, "--data", tmp_path, "--rate", 1000, "--loop", environment=environment) as it:
        (address,) = it.wait_for(r"Starting streamer http=(\S+)").groups()
        it.wait_for("Published message")
        metrics = httpx.get(f"http://{address}/metrics").text
        assert 'messages_produced_total{service="streamer",topic="telemetry"}' in metrics
        assert 'telemetry_data_points_total{service="streamer",type="sent"}' in metrics
        assert httpx.get(f"http://{address}/health").json()["topic"] == "telemetry"
        assert httpx.get(f"http://{address}/ready").status_code == 200


def test_a_streamer_waits_for_its_broker(tmp_path: Path) -> None:
    csv = dump([row(0), row(1)], tmp_path / "dump.csv")
    with BrokerProcess(tmp_path / "broker") as broker:
        port = int(broker.grpc.rpartition(":")[2])
        broker.stop()
    environment = {"BROKER_URL": f"grpc://127.0.0.1:{port}", "CSV_PATH": str(csv), "CSV_DELAY_MS": "0"}
    with Service("streamer", "--port", 0, "--data", tmp_path / "s", environment=environment) as streamer:
        streamer.wait_for("trying again")
        with BrokerProcess(tmp_path / "broker", grpc_port=port) as broker:
            assert streamer.wait() == 0, streamer.output
            assert len(lines(broker)) == 2
