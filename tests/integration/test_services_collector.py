"""The collector, with a real broker and a real store: each record once, whatever fails in between."""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import grpc
import httpx
import pyarrow as pa
import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import telemetry_broker as tb
from telemetry_broker import testing, tracing
from telemetry_broker.v1 import collector_pb2 as pb
from telemetry_broker.v1.collector_pb2_grpc import CollectorServiceStub
from telemetry_services.store import OffsetRange, Rows, StoreSchemaError, open_store
from telemetry_services.testing import RecordingStore
from tests.integration.cli_runs import SERVICES
from tests.integration.running_collector import Running, lag, point, produce
from tests.integration.service_processes import PATIENCE, BrokerProcess, Service


@pytest.fixture
def broker() -> Iterator[tb.Broker]:
    with testing.broker() as broker:
        broker.create_topic("telemetry", partitions=2)
        yield broker


def test_records_are_stored_and_acked(broker: tb.Broker, tmp_path: Path) -> None:
    produce(broker, point(1), point(2))
    produce(broker, point(3, gpu=1), partition=1)
    store = RecordingStore()
    with Running(broker, store, tmp_path) as running:
        running.stored(3)
        assert lag(broker) == 0
        status = running.collector.status
        assert (status.rows_stored, status.samples_stored, status.records_rejected) == (3, 3, 0)
    assert store.summary().samples == 3


def test_a_commit_is_a_span_with_links_to_those_that_sent_its_records(
    broker: tb.Broker, tmp_path: Path, spans: InMemorySpanExporter
) -> None:
    with broker.producer("telemetry") as producer:
        for partition in (0, 1):
            with tracing.send(producer) as headers:
                producer.send(point(1, gpu=partition), partition=partition, headers=headers)
    with Running(broker, RecordingStore(), tmp_path) as running:
        running.stored(2)
    finished = spans.get_finished_spans()
    sent, processed = finished[:2], finished[2:]
    assert {span.name for span in processed} == {"process telemetry"}
    linked = [link.context.span_id for span in processed for link in span.links]
    assert sorted(linked) == sorted(span.context.span_id for span in sent)
    counts = [span.attributes["messaging.batch.message_count"] for span in processed if span.attributes]
    assert sum(count for count in counts if isinstance(count, int)) == 2


def test_a_record_that_cannot_be_decoded_goes_to_the_dead_letters_alone(broker: tb.Broker, tmp_path: Path) -> None:
    produce(broker, point(1), b"not a line", point(2), b"gpu,uuid=x util=NaN 1", point(3))
    store = RecordingStore()
    with Running(broker, store, tmp_path) as running:
        running.stored(3)
        assert running.collector.status.records_rejected == 2
        assert lag(broker) == 0
    assert store.summary().samples == 3
    dead = broker.read("telemetry.dlq", 0)
    assert dead.values == [b"not a line", b"gpu,uuid=x util=NaN 1"]


def test_a_collector_goes_on_where_the_store_is_and_not_where_the_group_is(broker: tb.Broker, tmp_path: Path) -> None:
    produce(broker, point(1), point(2))
    store = RecordingStore()
    with Running(broker, store, tmp_path) as running:
        running.stored(2)
    # A crash between commit and ack leaves the group behind the store, a restored store leaves it ahead of it.
    broker.seek("telemetry", "g", tb.START)
    produce(broker, point(3))
    with Running(broker, store, tmp_path) as running:
        running.stored(1)
        assert lag(broker) == 0
    assert store.summary().samples == 3


def test_an_empty_store_gets_all_that_the_topic_still_has(broker: tb.Broker, tmp_path: Path) -> None:
    produce(broker, point(1), point(2))
    with Running(broker, RecordingStore(), tmp_path) as running:
        running.stored(2)
    fresh = RecordingStore()
    with Running(broker, fresh, tmp_path) as running:
        running.stored(2)
    assert fresh.summary().samples == 2


def test_a_store_that_fails_is_tried_again(broker: tb.Broker, tmp_path: Path) -> None:
    produce(broker, point(1))
    store = RecordingStore()
    store.fail_writes(2)
    store.fail_writes(1, after_commit=True)
    with Running(broker, store, tmp_path) as running:
        produce(broker, point(2), partition=1)
        running.stored(2)
        produce(broker, point(3), partition=1)
        running.stored(3)
    assert store.summary().samples == 3
    assert lag(broker) == 0


def test_a_pause_holds_records_back_until_it_ends(broker: tb.Broker, tmp_path: Path) -> None:
    store = RecordingStore()
    with Running(broker, store, tmp_path) as running:
        running.collector.pause(True)
        assert running.collector.flush().result(PATIENCE) == 0  # it has seen the pause
        produce(broker, point(1))
        assert running.collector.flush().result(PATIENCE) == 0
        assert store.summary().samples == 0
        running.collector.pause(False)
        running.stored(1)


class SlowStore(RecordingStore):
    """Takes longer than the leases last, as the clock has it."""

    def __init__(self, clock: testing.ManualClock, commits: int) -> None:
        super().__init__()
        self._clock = clock
        self._slow = commits

    def write(self, rows: Sequence[Rows], positions: Mapping[str, OffsetRange]) -> int:
        if self._slow > 0:
            self._slow -= 1
            self._clock.advance(60)
        return super().write(rows, positions)


class OvertakenStore(RecordingStore):
    """Another collector stores the first record of a log just before the first write."""

    def __init__(self) -> None:
        super().__init__()
        self._overtaken = False

    def write(self, rows: Sequence[Rows], positions: Mapping[str, OffsetRange]) -> int:
        if not self._overtaken:
            self._overtaken = True
            super().write([], {log_id: OffsetRange(span.first, span.first + 1) for log_id, span in positions.items()})
        return super().write(rows, positions)


def test_a_collector_that_was_overtaken_goes_on_though_nothing_more_comes(broker: tb.Broker, tmp_path: Path) -> None:
    store = OvertakenStore()
    produce(broker, point(1), point(2), point(3))
    with Running(broker, store, tmp_path) as running:
        running.stored(2)
        while lag(broker):
            assert running.error is None, running.error
    assert store.rows["util"].to_pylist() == [2.0, 3.0]


def test_leases_that_end_during_a_commit_cost_nothing(tmp_path: Path) -> None:
    clock = testing.ManualClock()
    store = SlowStore(clock, commits=3)
    with testing.broker(clock=clock) as broker:
        broker.create_topic("telemetry", partitions=2)
        with Running(broker, store, tmp_path) as running:
            for second in range(30):
                produce(broker, point(second), partition=second % 2)
            while lag(broker):
                assert running.error is None, running.error
    assert sorted(store.rows["util"].to_pylist()) == [float(second) for second in range(30)]


def test_several_collectors_share_a_topic_and_store_each_record_once(tmp_path: Path) -> None:
    store = RecordingStore()
    with testing.broker() as broker:
        broker.create_topic("telemetry", partitions=4)
        with Running(broker, store, tmp_path) as one, Running(broker, store, tmp_path) as two:
            for second in range(400):
                produce(broker, point(second), partition=second % 4)
                if second == 200:
                    one.stop.set()  # what it holds goes over to the other one
            while lag(broker):
                assert two.error is None, two.error
        assert one.error is None
    assert sorted(store.rows["util"].to_pylist()) == [float(second) for second in range(400)]


def test_a_collector_started_anew_knows_what_is_a_tag_and_what_is_a_metric(broker: tb.Broker, tmp_path: Path) -> None:
    store = RecordingStore()
    with Running(broker, store, tmp_path) as running:
        produce(broker, point(1), b"gpu,uuid=U,hostname=h,uuid2=x util=2 2")
        running.stored(2)
    odd = b"gpu,uuid=U uuid2=7 4000000000"
    with Running(broker, store, tmp_path) as fresh:
        produce(broker, point(3), odd, point(4), point(5), partition=0)
        fresh.stored(3)
        assert lag(broker) == 0
    assert broker.read("telemetry.dlq", 0).values == [odd]
    assert store.summary().samples == 5


class PickyStore(RecordingStore):
    """Takes no rows with some of the columns, whatever error it says that with."""

    def __init__(self, refused: set[str], error: Exception) -> None:
        super().__init__()
        self._refused = refused
        self._error = error

    def write(self, rows: Sequence[Rows], positions: Mapping[str, OffsetRange]) -> int:
        if any(self._refused & set(pa.table(piece).column_names) for piece in rows):
            raise self._error
        return super().write(rows, positions)


@pytest.mark.parametrize(
    "error", [StoreSchemaError("not these"), pa.ArrowInvalid("not these"), pa.ArrowNotImplementedError("not these")]
)
def test_of_records_in_one_batch_only_those_the_store_refuses_are_dead_lettered(
    broker: tb.Broker, tmp_path: Path, error: Exception
) -> None:
    bad = {17: "odd", 18: "odd", 63: "odder", 99: "odd"}
    values = [point(second, metric=bad.get(second, "util")) for second in range(100)]
    produce(broker, *values, b"not a line")
    store = PickyStore(set(bad.values()), error)
    with Running(broker, store, tmp_path) as running:
        running.stored(96)
        assert running.collector.status.records_rejected == 5
        assert lag(broker) == 0
        produce(broker, point(200))
        running.stored(97)
    dead = broker.read("telemetry.dlq", 0).values
    assert sorted(dead) == sorted([*(values[second] for second in bad), b"not a line"])
    expected = [float(second) for second in range(100) if second not in bad]
    assert store.rows["util"].to_pylist() == [*expected, 200.0]


@pytest.mark.parametrize(
    "line",
    [
        b"gpu,uuid=U,hostname=h m\0x=1 5",
        b"gpu,uuid=U,hostname=h date=1 5",
        b"gpu,uuid=U,hostname=h nanos=1 5",
        b"gpu,uuid=U,hostname=h pod=1 5",
        b"gpu,uuid=U,hostname=h UTIL=1 5",
        b"gpu,uuid=U,hostname=h,date=x util=1 5",
        b"gpu,uuid=U,hostname=h,gpu_i_id=1 util=1 5",
        "gpu,uuid=U,ho\u017ftname=h util=1 5".encode(),  # another letter, the same name to a store
    ],
)
def test_a_name_that_no_table_can_hold_costs_its_record_only(tmp_path: Path, line: bytes) -> None:
    store = open_store(f"delta://{tmp_path / 'store'}")
    with testing.broker() as broker:
        broker.create_topic("telemetry", partitions=1)
        produce(broker, point(1), point(2), line, point(3))
        with Running(broker, store, tmp_path) as running:
            running.stored(3)
            assert lag(broker) == 0
        assert broker.read("telemetry.dlq", 0).values == [line]
    assert store.summary().samples == 3
    store.close()


def test_new_metrics_tags_and_kinds_join_the_table_and_what_does_not_fit_costs_its_record(tmp_path: Path) -> None:
    store = open_store(f"delta://{tmp_path / 'store'}")
    drift = [
        b"gpu,uuid=U,hostname=h util=1 1",
        b"gpu,uuid=U,hostname=h util=2i,fresh=3 2",  # an integer where a float was, and a new metric
        b"gpu,uuid=U,hostname=h,zone=z fresh=4.5 3",  # a new tag
        b"gpu,uuid=U,hostname=h zone=1 4",  # which becomes a field
        b"gpu,uuid=U,hostname=h whole=5i 5",
        b"gpu,uuid=U,hostname=h whole=5.5 6",  # a float where an integer was
    ]
    many = [
        b"gpu,uuid=U,hostname=h " + b",".join(b"m%d=1" % n for n in range(s, s + 100)) + b" 7"
        for s in range(0, 1000, 100)
    ]
    with testing.broker() as broker:
        broker.create_topic("telemetry", partitions=1)
        with Running(broker, store, tmp_path) as running:
            for stored, line in enumerate(drift, start=1):
                produce(broker, line)
                running.stored(stored if stored < 4 else stored - 1)
            produce(broker, *many)
            running.stored(9)
            while lag(broker):
                assert running.error is None, running.error
        # A batch has 500 columns at most: of a thousand metrics those that come first are stored.
        assert broker.read("telemetry.dlq", 0).values[0] == drift[3]
        rejected = running.collector.status.records_rejected
        assert 1 < rejected < len(many)
    samples = {(sample.metric, sample.time_ns): sample.value for sample in store.telemetry("U", limit=1000)}
    assert (samples["util", 2], samples["fresh", 3], samples["whole", 5], samples["whole", 6]) == (2.0, 4.5, 5.0, 5.5)
    assert len(store.metrics()) == 3 + 100 * (len(many) - rejected + 1)
    store.close()


# Processes


@pytest.fixture
def server(tmp_path: Path) -> Iterator[BrokerProcess]:
    with BrokerProcess(tmp_path / "broker", "--topics", "telemetry:2") as process:
        yield process


def collector(server: BrokerProcess, tmp_path: Path, **environment: str) -> Service:
    store = f"delta://{tmp_path / 'store'}"
    environment = {"BROKER_URL": server.url, "STORE": store, **environment}
    return Service("collector", "--port", 0, "--grpc-port", 0, "--data", tmp_path / "c", environment=environment)


def test_a_collector_process_stores_and_tells(server: BrokerProcess, tmp_path: Path) -> None:
    with collector(server, tmp_path, MSG_QUEUE_GROUP="g7", MSG_QUEUE_CONSUMER_NAME="c7") as process:
        grpc_address, http = process.wait_for(r"Starting collector grpc=(\S+) http=(\S+)").groups()
        with tb.connect(server.url) as broker:
            produce(broker, point(1), point(2), b"bad")
            process.wait_for("Processed message.*records=3.*rejected=1")
            (group,) = broker.groups("telemetry")
            assert group == tb.Group("g7", "ordered")
            assert "consumer=c7-" in process.output
        with grpc.insecure_channel(grpc_address) as channel:
            stub = CollectorServiceStub(channel)
            stub.Flush(pb.FlushRequest(timeout_ms=20_000))
            status = stub.GetStatus(pb.GetStatusRequest())
            assert (status.topic, status.group, status.records_stored, status.records_rejected) == (
                "telemetry",
                "g7",
                2,
                1,
            )
            assert status.store == f"delta://{tmp_path / 'store'}"
            assert stub.Pause(pb.PauseRequest(paused=True)).paused
            assert stub.GetStatus(pb.GetStatusRequest()).paused
        metrics = httpx.get(f"http://{http}/metrics").text
        assert 'messages_consumed_total{service="collector",topic="telemetry"} 3.0' in metrics
        assert 'database_operations_total{operation="write",service="collector",status="success"}' in metrics
        assert 'message_processing_duration_seconds_count{service="collector",topic="telemetry"}' in metrics
        assert 'telemetry_data_points_total{service="collector",type="stored"} 2.0' in metrics
        assert httpx.get(f"http://{http}/ready").status_code == 200
        assert process.stop() == 0
    store = open_store(f"delta://{tmp_path / 'store'}")
    assert store.summary().samples == 2
    store.close()


def test_a_stop_commits_what_was_taken(server: BrokerProcess, tmp_path: Path) -> None:
    with collector(server, tmp_path, COLLECT_MAX_AGE="60s") as process, tb.connect(server.url) as broker:
        process.wait_for("Starting collector")
        produce(broker, point(1))
        while not any(partition.in_flight for partition in _group(broker)):
            assert process.process.poll() is None
        assert process.stop(signal.SIGTERM, timeout=10) == 0
        assert broker.describe_group("telemetry", "telemetry_group").lag == 0
    store = open_store(f"delta://{tmp_path / 'store'}")
    assert store.summary().samples == 1
    store.close()


def _group(broker: tb.Broker) -> tuple[tb.GroupPartition, ...]:
    try:
        return broker.describe_group("telemetry", "telemetry_group").partitions
    except tb.NotFoundError:
        return ()


def test_a_store_that_cannot_be_written_ends_the_start_with_a_sentence(server: BrokerProcess, tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file")
    with collector(server, tmp_path) as process:
        assert process.wait() == 1
        assert "store." in process.output
        assert "Traceback" not in process.output


def telemetry(*words: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, *SERVICES, *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)


def test_the_command_line_looks_at_a_collector_and_holds_it(server: BrokerProcess, tmp_path: Path) -> None:
    with collector(server, tmp_path, COLLECT_MAX_AGE="60s") as process, tb.connect(server.url) as broker:
        (address,) = process.wait_for(r"Starting collector grpc=(\S+)").groups()
        url = f"grpc://{address}"
        produce(broker, point(1), point(2))
        flushed = telemetry("collector", "flush", "--collector", url)
        assert (flushed.returncode, flushed.stderr) == (0, "")
        assert flushed.stdout in ("stored 2 records\n", "stored 0 records\n")  # it may have come before the records
        assert telemetry("collector", "pause", "--collector", url).stdout == "paused\n"
        shown = telemetry("collector", "status", "--collector", url)
        assert (shown.returncode, shown.stderr) == (0, "")
        assert re.search(r"^state +paused$", shown.stdout, re.MULTILINE)
        assert telemetry("collector", "resume", "--collector", url).stdout == "resumed\n"
        told = json.loads(telemetry("collector", "status", "--collector", url, "--json").stdout)
        assert (told["topic"], told["paused"], told["records_rejected"]) == ("telemetry", False, 0)
        assert process.stop() == 0
    gone = telemetry("collector", "status", "--collector", url)
    assert gone.returncode == 1
    assert "see that it runs" in gone.stderr
    assert telemetry("collector", "status", "--collector", "localhost").returncode == 1
