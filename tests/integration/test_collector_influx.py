"""The collector into InfluxDB, a stand-in of which fails in every way: each point is stored, and a bad one is told."""

import json
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

import telemetry_broker as tb
from telemetry_broker import testing
from telemetry_services.store import LineStore, open_store
from tests.influxdb3 import Dropped, Half, Slow, StandIn, Status
from tests.integration.running_collector import Running, lag, point, produce
from tests.integration.service_processes import PATIENCE, BrokerProcess, Service, dump, row

ROW = [
    "1970-01-01T00:00:07Z",
    "util",
    "0",
    "nvidia0",
    "GPU-7",
    "H100",
    "h",
    "",
    "",
    "",
    "7",
    'job="dgx"',
]


@pytest.fixture
def broker() -> Iterator[tb.Broker]:
    with testing.broker() as broker:
        broker.create_topic("telemetry", partitions=2)
        yield broker


@pytest.fixture
def server() -> Iterator[StandIn]:
    with StandIn() as server:
        yield server


@pytest.fixture
def store(server: StandIn) -> Iterator[LineStore]:
    store = open_store(f"influxdb://{server.address}/telemetry")
    assert isinstance(store, LineStore)
    yield store
    store.close()


def seconds(server: StandIn) -> list[int]:
    """The times of all points of the stand-in, in seconds."""
    return sorted(stamp // 1_000_000_000 for _, stamp in server.points("telemetry"))


def settled(condition: object, what: str) -> None:
    """Looks again and again, without a pause worth the name, until it is so."""
    deadline = time.monotonic() + PATIENCE
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, what
        time.sleep(0.001)


def test_the_three_kinds_of_records_are_stored_and_acked(
    broker: tb.Broker, server: StandIn, store: LineStore, tmp_path: Path
) -> None:
    named = {"device_id": "nvidia0", "metric": "util", "value": 8, "time": "1970-01-01T00:00:08Z", "hostname": "h"}
    produce(broker, point(1), json.dumps(ROW).encode())
    produce(broker, json.dumps(named).encode(), b"[]", b"gpu,uuid=x util=NaN 1", partition=1)
    with Running(broker, store, tmp_path) as running:
        running.stored(3)
        settled(lambda: lag(broker) == 0, "all is acked")
        status = running.collector.status
        assert (status.rows_stored, status.samples_stored, status.records_rejected) == (3, 3, 2)
    assert seconds(server) == [1, 7, 8]
    assert ((("device", "nvidia0"), ("hostname", "h"), ("uuid", "nvidia0")), 8_000_000_000) in server.points(
        "telemetry"
    )
    assert broker.read("telemetry.dlq", 1).values == [b"[]", b"gpu,uuid=x util=NaN 1"]


def test_of_a_partial_write_just_the_bad_records_are_dead_lettered_and_a_redrive_stores_them_after_the_fix(
    broker: tb.Broker, server: StandIn, store: LineStore, tmp_path: Path
) -> None:
    with Running(broker, store, tmp_path) as running:
        running.stored(0)
        produce(broker, point(0))
        running.stored(1)
        # Another writer gets in first, with an integer where ours are floats.
        server.databases.write("telemetry", "gpu odd=1i 1", "ns", accept_partial=True)
        bad = {17: "odd", 18: "odd", 63: "odd"}
        values = [point(second, metric=bad.get(second, "util")) for second in range(1, 100)]
        produce(broker, *values[:50])
        produce(broker, *values[50:], partition=1)
        running.stored(97)
        settled(lambda: lag(broker) == 0, "all is acked")
        status = running.collector.status
        assert (status.rows_stored, status.samples_stored, status.records_rejected) == (97, 97, 3)
        dead = broker.dead_letters("telemetry")
        assert [letter.value for letter in dead] == [values[second - 1] for second in bad]
        assert all("invalid column type for column 'odd'" in letter.reason for letter in dead)

        server.databases.drop("telemetry")
        assert broker.redrive("telemetry") == 3
        running.stored(100)
    assert seconds(server) == [17, 18, 63]


@pytest.mark.parametrize(
    "fault", [Status(500), Status(503), Status(429), Status(401), Half(), Dropped(stored=True), Dropped(stored=False)]
)
def test_each_point_is_stored_once_whatever_its_write_ended_with(
    broker: tb.Broker, server: StandIn, store: LineStore, tmp_path: Path, fault: Status | Half | Dropped
) -> None:
    server.fail(fault, fault)
    with Running(broker, store, tmp_path) as running:
        for second in range(20):
            produce(broker, point(second), partition=second % 2)
        running.stored(20)
        settled(lambda: lag(broker) == 0, "all is acked")
        assert running.collector.status.last_error == ""
    assert seconds(server) == list(range(20))
    assert len(server.writes) > 2


def test_commits_are_under_way_side_by_side_and_acked_in_their_order(
    broker: tb.Broker, server: StandIn, store: LineStore, tmp_path: Path
) -> None:
    slow = Slow()
    server.fail(slow)
    with Running(broker, store, tmp_path) as running:
        try:
            for second in range(store.writes_in_flight):
                produce(broker, point(second))
                server.wait_for_writes(second + 1)
            settled(lambda: len(seconds(server)) == store.writes_in_flight, "all are stored")
            # The first is not answered, so nothing after it is acked.
            assert lag(broker) == store.writes_in_flight
            assert running.collector.status.records_stored == 0
        finally:
            slow.released.set()
        running.stored(store.writes_in_flight)
        settled(lambda: lag(broker) == 0, "all is acked")


def test_a_store_that_is_away_is_asked_by_one_commit_alone_and_all_bounds_hold(
    broker: tb.Broker, server: StandIn, store: LineStore, tmp_path: Path
) -> None:
    with Running(broker, store, tmp_path) as running:
        with server.failing(Status(503)):
            produced = 0
            while len(server.writes) < 7:
                if produced < 500:
                    produce(broker, point(produced))
                    produced += 1
            bodies = [request.body for request in server.writes]
            # Each that was under way when it went away may have asked once; after that just the oldest does.
            assert set(bodies[store.writes_in_flight :]) == {bodies[0]}
            assert "503" in running.collector.status.last_error
            assert running.collector.status.records_stored == 0
        running.stored(produced)
        assert running.collector.status.last_error == ""
    assert len(server.points("telemetry")) == produced


def test_a_store_that_nobody_serves_at_the_start_is_waited_for(
    broker: tb.Broker, server: StandIn, store: LineStore, tmp_path: Path
) -> None:
    produce(broker, point(1))
    with server.away():
        running = Running(broker, store, tmp_path)
        running.__enter__()
        settled(lambda: "does not answer" in running.collector.status.last_error, "it says so")
    try:
        running.stored(1)
    finally:
        running.__exit__()


def test_records_that_come_again_overwrite_themselves_and_the_groups_position_counts(
    broker: tb.Broker, server: StandIn, store: LineStore, tmp_path: Path
) -> None:
    produce(broker, point(1), point(2))
    with Running(broker, store, tmp_path) as running:
        running.stored(2)
    broker.seek("telemetry", "g", tb.START)
    produce(broker, point(3))
    with Running(broker, store, tmp_path) as running:
        running.stored(3)
    before = len(server.writes)
    with Running(broker, store, tmp_path) as running:
        produce(broker, point(4))
        running.stored(1)
    assert seconds(server) == [1, 2, 3, 4]
    assert server.writes[before].body.count(b"\n") == 1


def test_several_collectors_share_a_topic_and_store_each_point(
    server: StandIn, store: LineStore, tmp_path: Path
) -> None:
    with testing.broker() as broker:
        broker.create_topic("telemetry", partitions=4)
        with Running(broker, store, tmp_path) as one, Running(broker, store, tmp_path) as two:
            for second in range(400):
                produce(broker, point(second), partition=second % 4)
                if second == 200:
                    one.stop.set()  # what it holds goes over to the other one
            settled(lambda: two.error is not None or lag(broker) == 0, "all is acked")
            assert two.error is None
        assert one.error is None
    assert seconds(server) == list(range(400))


def test_leases_that_end_while_the_store_is_slow_cost_nothing(
    server: StandIn, store: LineStore, tmp_path: Path
) -> None:
    clock = testing.ManualClock()
    slow = Slow()
    server.fail(slow)
    with testing.broker(clock=clock) as broker:
        broker.create_topic("telemetry", partitions=1)
        with Running(broker, store, tmp_path) as running:
            produce(broker, point(1))
            server.wait_for_writes(1)
            clock.advance(60)
            produce(broker, point(2))
            server.wait_for_writes(2)
            slow.released.set()
            settled(lambda: running.error is not None or lag(broker) == 0, "all is acked")
            assert running.error is None
    assert seconds(server) == [1, 2]


def test_records_are_given_out_once_while_the_store_takes_longer_than_a_lease(
    server: StandIn, store: LineStore, tmp_path: Path
) -> None:
    slow = Slow()
    server.fail(slow)
    with testing.broker() as broker:
        broker.create_topic("telemetry", partitions=1, visibility_timeout=2)
        with Running(broker, store, tmp_path) as running:
            try:
                produce(broker, point(1))
                server.wait_for_writes(1)
                other = broker.consumer("telemetry", group="other")
                assert other.receive(wait=PATIENCE).attempt == 1
                assert other.receive(wait=PATIENCE).attempt == 2, "a lease that nobody extends is over"
                produce(broker, point(2))  # whoever takes it takes what is given out again, too
                server.wait_for_writes(2)
            finally:
                slow.released.set()
            running.stored(2)
            settled(lambda: lag(broker) == 0, "all is acked")
    assert [request.body.count(b"\n") for request in server.writes] == [1, 1]


def test_new_metrics_tags_and_kinds_are_stored_and_a_tag_that_becomes_a_field_costs_its_record(
    broker: tb.Broker, server: StandIn, store: LineStore, tmp_path: Path
) -> None:
    drift = [
        b"gpu,uuid=U,hostname=h util=1 1",
        b"gpu,uuid=U,hostname=h util=2i,fresh=3 2",  # an integer where a float was, and a new metric
        b"gpu,uuid=U,hostname=h,zone=z fresh=4.5 3",  # a new tag
        b"gpu,uuid=U,hostname=h zone=1 4",  # which becomes a field
        b"gpu,uuid=U,hostname=h whole=5i 5",
        b"gpu,uuid=U,hostname=h whole=5.5 6",  # a float where an integer was
    ]
    with Running(broker, store, tmp_path) as running:
        for number, line in enumerate(drift):
            produce(broker, line)
            settled(lambda number=number: _done(running) == number + 1, "one by one")
        produce(broker, b"gpu,uuid=U " + b",".join(b"m%03d=%d" % (n, n) for n in range(480)) + b" 7")
        produce(broker, *(b"gpu,uuid=U m9%02d=1 %d" % (n, n + 8) for n in range(40)))
        settled(lambda: _done(running) == 47, "all")
        rejected = running.collector.status.records_rejected
    values = {stamp: fields for (_, stamp), fields in server.points("telemetry").items()}
    assert values[2] == {"util": 2.0, "fresh": 3.0}
    assert (values[5], values[6]) == ({"whole": 5.0}, {"whole": 5.5})
    assert 4 not in values
    # InfluxDB has 500 columns a table, the time among them: what is over that is dead-lettered, the rest is stored.
    columns = {name for fields in values.values() for name in fields}
    assert len(columns) + len({"uuid", "hostname", "zone", "time"}) <= 500
    assert len(broker.read("telemetry.dlq", 0).values) == rejected
    assert len(values) == 47 - rejected


def _done(running: Running) -> int:
    assert running.error is None, running.error
    return running.collector.status.records_stored + running.collector.status.records_rejected


# Processes


def collector(broker: BrokerProcess, server: StandIn, tmp_path: Path, **environment: str) -> Service:
    environment = {
        "BROKER_URL": broker.url,
        "INFLUXDB_URL": f"http://{server.address}",
        "INFLUXDB_BUCKET": "telemetry",
        "COLLECT_MAX_AGE": "50ms",
        **environment,
    }
    return Service("collector", "--port", 0, "--grpc-port", 0, "--data", tmp_path / "c", environment=environment)


@pytest.fixture
def brokers(tmp_path: Path) -> Iterator[BrokerProcess]:
    with BrokerProcess(
        tmp_path / "broker", "--topics", "telemetry:2", environment={"VISIBILITY_TIMEOUT": "1s"}
    ) as process:
        yield process


def test_a_collector_process_says_on_ready_and_in_metrics_that_the_store_is_away(
    brokers: BrokerProcess, server: StandIn, tmp_path: Path
) -> None:
    with collector(brokers, server, tmp_path) as process, tb.connect(brokers.url) as broker:
        (http,) = process.wait_for(r"Starting collector.* http=(\S+)").groups()
        produce(broker, point(1))
        process.wait_for("Processed message")
        assert httpx.get(f"http://{http}/ready").status_code == 200
        assert 'store_health_status{service="collector"} 1.0' in httpx.get(f"http://{http}/metrics").text
        with server.away():
            produce(broker, point(2))
            process.wait_for("storing failed, trying again.*does not answer")
            ready = httpx.get(f"http://{http}/ready")
            assert ready.status_code == 503
            assert f"influxdb://{server.address}/telemetry does not answer" in ready.text
            assert 'store_health_status{service="collector"} 0.0' in httpx.get(f"http://{http}/metrics").text
        process.wait_for("(?s)Processed message.*")
        settled(lambda: broker.describe_group("telemetry", "telemetry_group").lag == 0, "all is acked")
        assert process.stop() == 0
    assert seconds(server) == [1, 2]


def test_a_token_that_is_not_known_ends_the_start_with_a_sentence(brokers: BrokerProcess, tmp_path: Path) -> None:
    token = "apiv3_secret"
    with (
        StandIn(token="another") as server,
        collector(brokers, server, tmp_path, INFLUXDB_TOKEN=token, LOG_LEVEL="DEBUG") as process,
    ):
        assert process.wait() == 1
        assert "INFLUXDB_TOKEN" in process.output
        assert token not in process.output


def test_a_collector_stopped_past_its_leases_and_woken_loses_and_doubles_nothing(
    brokers: BrokerProcess, server: StandIn, tmp_path: Path
) -> None:
    slow = Slow()
    with tb.connect(brokers.url) as broker, collector(brokers, server, tmp_path) as sleeper:
        sleeper.wait_for("Starting collector")
        server.fail(slow)
        produce(broker, *(point(second) for second in range(10)))
        server.wait_for_writes(1)
        sleeper.freeze()
        slow.released.set()
        with collector(brokers, server, tmp_path) as other:
            produce(broker, *(point(second) for second in range(10, 20)), partition=1)
            settled(lambda: broker.describe_group("telemetry", "telemetry_group").lag == 0, "the other takes over")
            sleeper.process.send_signal(signal.SIGCONT)
            produce(broker, *(point(second) for second in range(20, 30)))
            produce(broker, *(point(second) for second in range(30, 40)), partition=1)
            settled(lambda: broker.describe_group("telemetry", "telemetry_group").lag == 0, "both go on")
            assert other.stop() == 0
        assert sleeper.stop() == 0
    assert seconds(server) == list(range(40))


def test_up_stores_a_dump_there_and_answers_for_it(server: StandIn, tmp_path: Path) -> None:
    environment = {"INFLUXDB_URL": f"http://{server.address}", "INFLUXDB_BUCKET": "fleet"}
    rows = [row(second, gpu=gpu, value=second) for second in range(10) for gpu in range(5)]
    csv = dump(rows, tmp_path / "dump.csv")
    command = ("up", "--once", "--csv", csv, "--data", tmp_path / "data", "--port", 0, "--grpc-port", 0)
    for _ in range(2):  # the second time adds nothing
        with Service(*command, environment=environment) as up:
            assert up.wait(60) == 0, up.output
            assert re.match("stored 50 samples of 50 from 5 GPUs on 1 host", up.output.splitlines()[-1])
    assert len(server.points("fleet")) == 50
