"""`telemetry streamer` as a process, against a real broker: what is sent, once, and what is not."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

import telemetry_broker as tb
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
