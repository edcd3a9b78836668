"""/produce, /consume, /ack and /topics of the broker, as the clients in the field use them, over real sockets."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from starlette.applications import Starlette

import telemetry_broker as tb
from telemetry_broker import _core
from telemetry_broker.errors import CODES, error_from_code
from telemetry_services.broker.compat import CompatibilityEndpoints, CoreUpstream
from telemetry_services.broker.compat.errors import status_of
from telemetry_services.broker.compat.events import EventId
from telemetry_services.broker.compat.on_demand import MAX_PARTITIONS_ON_DEMAND
from telemetry_services.serving.http_server import HttpServer
from telemetry_services.serving.sockets import listen
from tests.integration.service_processes import BrokerProcess, ProxyProcess, Service, listed
from tests.integration.sse_client import GO_SCANNER_BYTES, Event, EventReader

SECONDS_AFTER_END = 5.0


Door = BrokerProcess | ProxyProcess
"""What answers the endpoints."""


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxyProcess]:
    """A proxy in front of two brokers."""
    data = tmp_path_factory.mktemp("brokers")
    with (
        BrokerProcess(data / "0") as one,
        BrokerProcess(data / "1") as two,
        ProxyProcess("--brokers", listed(one, two)) as process,
    ):
        yield process


@pytest.fixture(params=["broker", "proxy"])
def broker(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Door]:
    """A broker, or a proxy in front of two, without topics."""
    if request.param == "broker":
        with BrokerProcess(tmp_path / "data") as process:
            yield process
        return
    door: ProxyProcess = request.getfixturevalue("proxy")
    yield door
    with tb.connect(door.url) as client:
        for topic in client.topics():
            with suppress(tb.NotFoundError):  # dead letters go with their topic
                client.delete_topic(topic.name)


@pytest.fixture
def lone_broker(tmp_path: Path) -> Iterator[BrokerProcess]:
    with BrokerProcess(tmp_path / "data") as process:
        yield process


def produce(broker: Door, content: bytes | str, topic: str = "t", partition: object = 0) -> httpx.Response:
    parameters: dict[str, Any] = {"topic": topic} if partition is None else {"topic": topic, "partition": partition}
    return httpx.post(f"http://{broker.http}/produce", params=parameters, content=content, timeout=20)


def stored(response: httpx.Response) -> str:
    assert response.status_code == 200, response.text
    return str(response.json()["id"])


def ack(broker: Door, event: Event, topic: str = "t", group: str = "g") -> httpx.Response:
    parameters: dict[str, Any] = {"topic": topic, "partition": event.partition, "group": group}
    return httpx.post(f"http://{broker.http}/ack", params=parameters, json={"id": event.id}, timeout=20)


def reader(broker: Door, topic: str = "t", group: str = "g", partition: int | None = None) -> EventReader:
    chosen: dict[str, Any] = {} if partition is None else {"partition": partition}
    return EventReader(broker.http, topic=topic, group=group, **chosen)


def refused(response: httpx.Response, status: int = 400) -> str:
    assert response.status_code == status
    assert response.headers["content-type"].startswith("text/plain")
    return response.text


def test_a_record_goes_in_out_and_is_acked(broker: Door) -> None:
    before = datetime.now(UTC)
    given = stored(produce(broker, "gpu,uuid=GPU-1 DCGM_FI_DEV_GPU_UTIL=87", "telemetry", 1))
    with reader(broker, "telemetry", partition=1) as events:
        assert events.response.status == 200
        assert events.response.headers["content-type"] == "text/event-stream"
        lines = [events.line().decode() for _ in range(4)]
        event = Event(lines[0][4:-1], json.loads(lines[1][6:]), lines[2][11:-1])
        assert lines[0].startswith("id: ")
        assert lines[1].startswith("data: ")
        assert lines[2:] == ["partition: 1\n", "\n"]
        assert list(event.data) == ["id", "payload", "created_at", "topic", "partition"]
        assert event.data == {
            "id": event.id,
            "payload": "gpu,uuid=GPU-1 DCGM_FI_DEV_GPU_UTIL=87",
            "created_at": event.data["created_at"],
            "topic": "telemetry",
            "partition": 1,
        }
        assert event.id.startswith(f"{given}.")
        assert event.data["created_at"].endswith("Z")
        assert before <= datetime.fromisoformat(event.data["created_at"]) <= datetime.now(UTC)
        for _ in range(2):  # repeating an ack is fine
            answer = ack(broker, event, "telemetry")
            assert (answer.status_code, answer.text) == (200, "ok")
    with tb.connect(broker.url) as client:
        assert client.describe_group("telemetry", "g").lag == 0


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b'{"payload": "a \\"quoted\\"\\nline \\u00fc"}', 'a "quoted"\nline ü'.encode()),
        (b' {"payload": "x", "more": 1}', b"x"),
        (b'{"payload": ""}', b""),
        (b'{"payload": {"value": 1}}', b'{"payload": {"value": 1}}'),
        (b'{"device_id": "nvidia0", "value": 1}', b'{"device_id": "nvidia0", "value": 1}'),
        (b'["2025-07-18T20:42:34Z","DCGM_FI_DEV_GPU_UTIL"]', b'["2025-07-18T20:42:34Z","DCGM_FI_DEV_GPU_UTIL"]'),
        (b'{"payload": "torn', b'{"payload": "torn'),
        (b"[" * 100_000 + b'"payload"', b"[" * 100_000 + b'"payload"'),
        (b"\xff\x00\xfe", b"\xff\x00\xfe"),
    ],
)
def test_the_record_is_the_payload_of_a_json_object_or_the_body_as_it_came(
    lone_broker: BrokerProcess, body: bytes, value: bytes
) -> None:
    stored(produce(lone_broker, body))
    with tb.connect(lone_broker.url) as client:
        assert client.read("t", 0).values == [value]


def test_a_record_carries_the_trace_context_of_its_request_unless_that_is_malformed(broker: Door) -> None:
    parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    carried = {"traceparent": parent.encode()}
    cases: list[tuple[list[tuple[str, str]], dict[str, bytes]]] = [
        ([], {}),
        ([("traceparent", parent)], carried),
        (
            [("TraceParent", parent), ("tracestate", "a=1"), ("tracestate", "b=2")],
            {**carried, "tracestate": b"a=1,b=2"},
        ),
        ([("tracestate", "a=1")], {}),
        ([("traceparent", parent.upper()), ("tracestate", "a=1")], {}),
        ([("traceparent", "ff" + parent[2:])], {}),
        ([("traceparent", parent), ("traceparent", parent)], {}),
        ([("traceparent", parent), ("tracestate", "not a list")], carried),
    ]
    url = f"http://{broker.http}/produce?topic=t&partition=0"
    for given, _ in cases:
        stored(httpx.post(url, content="x", headers=given, timeout=20))
    with tb.connect(broker.url) as client:
        read = [headers for records in client.read("t", 0) for headers in records.headers]
    assert read == [expected for _, expected in cases]


def test_topics_and_partitions_are_made_on_demand_up_to_a_bound(tmp_path: Path) -> None:
    environment = {"PARTITIONS_PER_TOPIC": "2", "TOPICS": "one:1"}
    with BrokerProcess(tmp_path, environment=environment) as broker:
        topics = f"http://{broker.http}/topics"
        stored(produce(broker, "1", "new", None))
        stored(produce(broker, "1", "wide", 4))
        stored(produce(broker, "1", "one", 2))
        expected = {"new": [0, 1], "one": [0, 1, 2], "wide": [0, 1, 2, 3, 4]}
        assert httpx.get(topics).json() == expected
        message = refused(produce(broker, "1", "one", MAX_PARTITIONS_ON_DEMAND))
        assert message.startswith(
            f"partition is {MAX_PARTITIONS_ON_DEMAND}: topic 'one' has 3 partitions and grows on demand up to "
        )
        refused(produce(broker, "1", "never", MAX_PARTITIONS_ON_DEMAND))
        refused(produce(broker, "1", "bad name", 0))
        assert httpx.get(topics).json() == expected
        with tb.connect(broker.url) as client:
            assert client.describe_topic("one").topic.config_version == 2


def test_a_topic_that_many_grow_at_once_has_what_each_of_them_needs(broker: Door) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda number: produce(broker, str(number), partition=number), range(16)))
    assert sorted(map(stored, answers)) == sorted(f"{number}.0" for number in range(16))
    assert httpx.get(f"http://{broker.http}/topics").json() == {"t": list(range(16))}


def test_without_a_partition_all_are_read_those_that_come_later_too(broker: Door) -> None:
    ids = [stored(produce(broker, str(number), partition=None)) for number in range(4)]
    with reader(broker) as events:
        assert {event.payload for event in events.take(4)} == {"0", "1", "2", "3"}
        ids.append(stored(produce(broker, "grown", partition=7)))
        last = events.take(1)[0]
        assert (last.payload, last.partition) == ("grown", "7")
    assert len(set(ids)) == 5


def test_a_stream_that_waits_is_woken_by_a_record(broker: Door) -> None:
    stored(produce(broker, "0"))
    with reader(broker, partition=0) as events:
        events.take(1)
        began = time.monotonic()
        stored(produce(broker, "late"))
        assert events.take(1)[0].payload == "late"
        assert time.monotonic() - began < 5  # and not by the next heartbeat


def test_an_answer_does_not_wait_for_the_clients_acknowledgement() -> None:
    with (
        listen("127.0.0.1", 0, variable="PORT", flag="--port") as listener,
        socket.create_connection(listener.getsockname()),
    ):
        connection, _ = listener.accept()
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_groups_do_not_see_each_others_acks(broker: Door) -> None:
    for number in range(3):
        stored(produce(broker, str(number)))
    for group in ("a", "b"):
        with reader(broker, group=group) as events:
            taken = events.take(3)
            assert [event.payload for event in taken] == ["0", "1", "2"]
            assert [ack(broker, event, group=group).text for event in taken] == ["ok"] * 3


@pytest.mark.parametrize(
    ("method", "path", "words"),
    [
        ("POST", "/produce", "topic is missing"),
        ("POST", "/produce?topic=&partition=0", "topic is missing"),
        ("POST", "/produce?topic=t&partition=x", "partition is 'x'"),
        ("POST", "/produce?topic=t&partition=-1", "partition is '-1'"),
        ("POST", "/produce?topic=t&partition=", "partition is ''"),
        ("POST", "/produce?topic=t&partition=4294967296", "partition is '4294967296'"),
        ("POST", "/produce?topic=t&partition=4294967294", "grows on demand up to 64"),
        ("POST", "/produce?topic=../t", "../t"),
        ("GET", "/consume?topic=t", "group is missing"),
        ("GET", "/consume?group=g", "topic is missing"),
        ("GET", "/consume?topic=t&group=g&partition=1.5", "partition is '1.5'"),
        ("GET", "/consume?topic=t&group=a%20b", "a b"),
        ("POST", "/ack?topic=t", "group is missing"),
        ("POST", "/ack?group=g", "topic is missing"),
        ("POST", "/ack?topic=t&group=g&partition=x", "partition is 'x'"),
        ("POST", "/ack?topic=t&group=g", "the body names no event"),
    ],
)
def test_a_bad_parameter_is_refused_with_its_name_and_value(
    lone_broker: BrokerProcess, method: str, path: str, words: str
) -> None:
    stored(produce(lone_broker, "1"))
    response = httpx.request(method, f"http://{lone_broker.http}{path}", content="x" if method == "POST" else None)
    assert words in refused(response)
    assert response.headers["telemetry-code"].startswith("invalid.")


def test_bodies_that_are_no_record_are_refused(lone_broker: BrokerProcess) -> None:
    assert "the body is empty" in refused(produce(lone_broker, ""))
    assert "surrogate" in refused(produce(lone_broker, '{"payload": "\\ud800"}'))
    assert "longer than 1,048,576 bytes" in refused(produce(lone_broker, b"x" * (1 << 20) + b"x"), 413)
    chunks = (b"x" * 65_536 for _ in range(17))  # no Content-Length
    response = httpx.post(f"http://{lone_broker.http}/produce?topic=t&partition=0", content=chunks)
    assert "longer than 1,048,576 bytes" in refused(response, 413)
    # The record's own frame of some bytes comes on top.
    assert "a record may have 1048576" in refused(produce(lone_broker, b"x" * (1 << 20)))
    assert stored(produce(lone_broker, b"x" * ((1 << 20) - 16))) == "0.0"
    ack_body = httpx.post(f"http://{lone_broker.http}/ack?topic=t&group=g", content=b"x" * 70_000)
    refused(ack_body, 413)


def test_the_words_are_those_of_grpc(broker: Door) -> None:
    stored(produce(broker, "1"))
    with tb.connect(broker.url) as client:
        for topic, partition in (("nowhere", 0), ("t", 99)):
            with (
                pytest.raises(tb.BrokerError) as caught,
                client.consumer(topic, group="g", partitions=[partition]) as c,
            ):
                c.receive(wait=1)
            response = httpx.get(
                f"http://{broker.http}/consume", params={"topic": topic, "partition": partition, "group": "g"}
            )
            assert refused(response) == caught.value.message
            assert response.headers["telemetry-code"] == caught.value.code


def test_a_group_whose_acks_are_cumulative_is_refused(broker: Door) -> None:
    stored(produce(broker, "1"))
    with tb.connect(broker.url) as client:
        client.create_group("t", "o", mode="ordered")
    response = httpx.get(f"http://{broker.http}/consume", params={"topic": "t", "group": "o"})
    assert "ordered" in refused(response)
    assert response.headers["telemetry-code"] == "group.mode"


def test_an_ack_of_what_is_unknown_foreign_or_stale_is_refused(tmp_path: Path) -> None:
    with BrokerProcess(tmp_path, environment={"VISIBILITY_TIMEOUT": "1s"}) as broker:
        stored(produce(broker, "1"))
        stored(produce(broker, "1", "other"))
        with reader(broker) as events, reader(broker, group="h") as others:
            event, foreign = events.take(1)[0], others.take(1)[0]
            for unknown in ("0.0", "", "0.0.AAAA", "x", "0.0." + "A" * 401, event.id + "A", "9" * 30):
                assert "event" in refused(ack(broker, event._replace(id=unknown))) or unknown == "0.0.AAAA"
            assert "no longer held by this event" in refused(ack(broker, foreign))
            assert 'no group "nobody"' in refused(ack(broker, event, group="nobody"))
            refused(ack(broker, event, topic="other"))
            refused(ack(broker, event, topic="nowhere"))
            assert "is of partition 0, not 3" in refused(ack(broker, event._replace(partition="3")))
            beside = EventId.parse(event.id)._replace(offset=5)
            assert "not inside the lease" in refused(ack(broker, event._replace(id=str(beside))))
            again = events.take(1)[0]
            assert again.id != event.id
            stale = ack(broker, event)
            assert "given to another consumer" in refused(stale)
            assert stale.headers["telemetry-code"] == "lease.stale"
            while ack(broker, again).text != "ok":  # it took longer than the visibility timeout to get here
                again = events.take(1)[0]


def test_a_client_that_leaves_and_comes_back_gets_what_it_did_not_ack_within_seconds(broker: Door) -> None:
    # The clients in the field have a time limit of 60 s: the stream ends in the middle of their work, and they open the
    # next one. The visibility timeout is 30 s here.
    for number in range(5):
        stored(produce(broker, str(number)))
    with reader(broker, partition=0) as events:
        taken = events.take(5)
        for event in taken[:2]:
            assert ack(broker, event).text == "ok"
    left = time.monotonic()
    with reader(broker, partition=0) as events:
        assert ack(broker, taken[2]).text == "ok"  # was on its way when the stream ended
        again = events.take(2)
        assert 3.0 < time.monotonic() - left < SECONDS_AFTER_END + 2
        assert [event.payload for event in again] == ["3", "4"]
        for event in again:
            assert ack(broker, event).text == "ok"
        stored(produce(broker, "next"))
        assert events.take(1)[0].payload == "next"


def test_a_stream_holds_at_most_100_events_that_are_not_acked(broker: Door) -> None:
    with tb.connect(broker.url) as client:
        client.create_topic("t", partitions=2)
        with client.producer("t") as producer:
            for number in range(300):
                producer.send(b"%d" % number, partition=number % 2)
        with reader(broker) as slow, reader(broker) as quick:
            taken = slow.take(100)
            assert len({event.payload for event in taken}) == 100
            assert len({event.payload for event in quick.take(100)}) == 100
            in_flight = [part.in_flight for part in client.describe_group("t", "g").partitions]
            assert sum(in_flight) == 200
            assert ack(broker, taken[50]).text == "ok"  # makes room for one
            assert slow.take(1)[0].payload not in {event.payload for event in taken}
            assert sum(part.in_flight for part in client.describe_group("t", "g").partitions) == 200


def test_a_client_slower_than_the_visibility_timeout_is_not_sent_the_same_again(tmp_path: Path) -> None:
    with BrokerProcess(tmp_path, environment={"VISIBILITY_TIMEOUT": "1s"}) as broker:
        for number in range(8):
            stored(produce(broker, str(number)))
        with reader(broker, partition=0) as events:
            skipped, *taken = events.take(8)
            for event in taken:
                time.sleep(0.4)
                assert ack(broker, event).text == "ok"
            # What it passed over comes again after its own time.
            again = events.take(1)[0]
            assert (again.payload, again.id == skipped.id) == ("0", False)


def test_what_is_not_acked_comes_again_on_the_same_stream(tmp_path: Path) -> None:
    with BrokerProcess(tmp_path, environment={"VISIBILITY_TIMEOUT": "500ms"}) as broker:
        stored(produce(broker, "1"))
        with reader(broker, partition=0) as events:
            first, second = events.take(2)
            assert (first.payload, second.payload) == ("1", "1")


def test_payloads_travel_as_json_strings_whatever_is_in_them(broker: Door) -> None:
    text = 'tab\t, "quotes", \\, \x00, \x85, \u2028, \u2029, ü, 😀\nnext\r\nline: data: x'
    stored(produce(broker, text.encode()))
    stored(produce(broker, b"\xff\xfe\x00"))
    url = f"http://{broker.http}/consume?topic=t&group=httpx"
    with reader(broker) as events, httpx.stream("GET", url, timeout=20) as stream:
        first, second = events.take(2)
        assert first.payload == text
        assert "encoding" not in first.data
        assert (second.payload, second.data["encoding"]) == ("//4A", "base64")
        lines = stream.iter_lines()  # ends lines at U+2028 too
        assert [next(lines)[:4] for _ in range(4)] == ["id: ", "data", "part", ""]


def test_a_record_too_large_for_a_line_goes_to_the_dead_letters_and_the_stream_goes_on(broker: Door) -> None:
    def line(payload: str) -> int:
        overhead = '{"id":"","payload":"","created_at":"2026-01-01T00:00:00.000000Z","topic":"t","partition":0}'
        return len("data: \n") + len(overhead) + len("0.0.") + 76 + len(payload)

    fits = "x" * (GO_SCANNER_BYTES - 1 - line(""))
    assert line(fits) == GO_SCANNER_BYTES - 1
    for payload in (fits, fits + "x", '"' * 40_000, "after"):
        stored(produce(broker, payload))
    with reader(broker, partition=0) as events:
        assert [event.payload for event in events.take(2)] == [fits, "after"]
        # Another group would have them too; for this one they are set aside, with the reason.
        with tb.connect(broker.url) as client:
            assert client.read("t.dlq", 0).values == [(fits + "x").encode(), b'"' * 40_000]
            assert client.describe_group("t", "g").lag == 2
    assert "went to the dead-letter topic: as an event over HTTP a line of 65,536 bytes" in broker.output


def test_clients_at_the_same_time_get_each_record_once(broker: Door) -> None:
    seen: Counter[str] = Counter()
    lock = threading.Lock()

    def send(client: int) -> None:
        with httpx.Client(base_url=f"http://{broker.http}", timeout=20) as http:
            for number in range(40):
                stored(
                    http.post("/produce", params={"topic": "t", "partition": client % 2}, content=f"{client}-{number}")
                )

    def collect(partition: int) -> None:
        with (
            httpx.Client(base_url=f"http://{broker.http}", timeout=20) as http,
            reader(broker, partition=partition) as it,
        ):
            while (event := it.read()) is not None and event.payload != "end":
                parameters = {"topic": "t", "partition": event.partition, "group": "g"}
                assert http.post("/ack", params=parameters, json={"id": event.id}).text == "ok"
                with lock:
                    seen[event.payload] += 1

    for partition in range(2):
        stored(produce(broker, "begin", partition=partition))
    with ThreadPoolExecutor(12) as pool:
        collectors = [pool.submit(collect, number % 2) for number in range(4)]
        list(pool.map(send, range(6)))
        for partition in (0, 0, 1, 1):
            stored(produce(broker, "end", partition=partition))
        for collector in collectors:
            collector.result(timeout=30)
    assert sum(seen.values()) == len(seen) + 1  # "begin" of two partitions
    assert len(seen) == 6 * 40 + 1


def test_a_full_topic_is_429_and_a_draining_broker_503_and_nothing_was_stored(lone_broker: BrokerProcess) -> None:
    broker = lone_broker
    with tb.connect(broker.url) as client:
        client.create_topic("t", partitions=1, segment_bytes=1 << 20, max_partition_bytes=2 << 20)
        ids: list[str] = []
        while (answer := produce(broker, b"x" * 500_000)).status_code == 200:
            ids.append(stored(answer))
        assert "t/0" in refused(answer, 429) or "partition" in answer.text
        assert int(answer.headers["retry-after"]) >= 1
        assert answer.headers["telemetry-code"] == "log.full"
        assert client.describe_topic("t").partitions[0].end_offset == len(ids) > 0
    with grpc.insecure_channel(broker.grpc) as channel:
        drain: Any = channel.unary_unary("/telemetry_broker.v1.BrokerService/DrainBroker")
        drain(b"\x08\x01")
    answer = produce(broker, "1", "t")
    refused(answer, 503)
    assert int(answer.headers["retry-after"]) >= 1


def test_every_code_has_a_status_and_only_what_stored_nothing_asks_for_a_retry() -> None:
    statuses = {code: int(status_of(error_from_code(code, "x"))) for code in CODES}
    assert {statuses[code] for code in ("internal", "log.poisoned", "data.io", "log.corrupt", "produce.unknown")} == {
        500
    }
    retried = {code for code, status in statuses.items() if status in (429, 503)}
    assert retried == {
        "log.full",
        "limit.exceeded",
        "broker.unavailable",
        "broker.draining",
        "broker.closed",
        "timeout",
    }
    assert {status for code, status in statuses.items() if code.startswith(("invalid.", "lease.", "topic."))} == {400}
    assert status_of(error_from_code("newer.code", "x")) == 500


def test_records_of_an_fsync_topic_are_synced_together(tmp_path: Path) -> None:
    with BrokerProcess(tmp_path, environment={"DURABILITY": "fsync"}) as broker, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda number: produce(broker, str(number)), range(32)))
        assert {stored(answer) for answer in answers} == {f"0.{number}" for number in range(32)}
        with reader(broker) as events:
            assert {ack(broker, event).text for event in events.take(32)} == {"ok"}
        with tb.connect(broker.url) as client:
            assert client.describe_topic("t").partitions[0].synced_end_offset == 32


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_ends_the_streams_and_keeps_what_was_acked(tmp_path: Path, number: int) -> None:
    with BrokerProcess(tmp_path) as broker:
        for payload in ("0", "1"):
            stored(produce(broker, payload))
        with reader(broker) as events, reader(broker, group="idle") as idle:
            first, second = events.take(2)
            idle.take(2)
            assert ack(broker, first).text == "ok"
            began = time.monotonic()
            assert broker.stop(number) == 0
            assert time.monotonic() - began < 4
            assert events.read() is None  # a whole answer: its last chunk came
            assert idle.read() is None
    with BrokerProcess(tmp_path) as broker, reader(broker) as events:
        again = events.take(1)[0]
        assert again.payload == "1"
        assert ack(broker, again).text == "ok"
        assert "given to another consumer" in refused(ack(broker, second))


def test_an_event_of_before_a_restart_can_be_acked(tmp_path: Path) -> None:
    with BrokerProcess(tmp_path) as broker:
        stored(produce(broker, "1"))
        with reader(broker) as events:
            event = events.take(1)[0]
        broker.kill()
    with BrokerProcess(tmp_path) as broker:
        assert ack(broker, event).text == "ok"
        stored(produce(broker, "2"))
        with reader(broker) as events:
            assert events.take(1)[0].payload == "2"


def test_requests_records_and_streams_are_counted_by_endpoint(lone_broker: BrokerProcess) -> None:
    broker = lone_broker
    metrics = f"http://{broker.http}/metrics"
    for payload in ("0", "1", "2"):
        stored(produce(broker, payload))
    with reader(broker) as events:
        assert ack(broker, events.take(3)[0]).text == "ok"
        shown = httpx.get(metrics).text
        assert 'active_connections{service="broker"} 1.0' in shown
    httpx.get(f"http://{broker.http}/topics")
    httpx.request("BREW", f"http://{broker.http}/produce")
    shown = httpx.get(metrics).text
    for labels, count in (
        ('endpoint="/produce",method="POST",service="broker",status="200"', 3),
        ('endpoint="/consume",method="GET",service="broker",status="200"', 1),
        ('endpoint="/ack",method="POST",service="broker",status="200"', 1),
        ('endpoint="/topics",method="GET",service="broker",status="200"', 1),
        ('endpoint="/produce",method="other",service="broker",status="405"', 1),
    ):
        assert f"http_requests_total{{{labels}}} {count}.0" in shown
    assert 'messages_produced_total{service="broker",topic="t"} 3.0' in shown
    assert 'messages_consumed_total{service="broker",topic="t"} 3.0' in shown


def test_web_pages_of_others_are_kept_out(broker: Door) -> None:
    url, port = f"http://{broker.http}", broker.http.rpartition(":")[2]
    for headers in (
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Host": f"evil.example:{port}"},
        {"Host": f"evil.example:{port}", "Origin": f"http://evil.example:{port}"},
        {"Origin": "http://[broken"},
    ):
        refused(httpx.post(f"{url}/produce?topic=t", headers=headers, content="x"), 403)
        refused(httpx.get(f"{url}/topics", headers=headers), 403)
    for headers in ({"Host": f"localhost:{port}"}, {"Host": f"[::1]:{port}"}, {"Origin": url}, {"Host": ""}):
        assert httpx.get(f"{url}/topics", headers=headers).json() == {}


def test_head_tells_the_type_of_a_stream_and_leases_nothing(broker: Door) -> None:
    stored(produce(broker, "1"))
    response = httpx.head(f"http://{broker.http}/consume?topic=t&group=g")
    assert (response.status_code, response.headers["content-type"]) == (200, "text/event-stream")
    with reader(broker) as events:
        assert events.take(1)[0].payload == "1"


def test_up_serves_the_endpoints_on_its_one_port(tmp_path: Path) -> None:
    with Service("up", "--no-csv", "--data", tmp_path, "--port", 0, "--grpc-port", 0) as running:
        (address,) = running.wait_for(r"^API http://(\S+)").groups()
        assert httpx.get(f"http://{address}/topics").json() == {"telemetry": [0, 1, 2, 3]}
        posted = httpx.post(f"http://{address}/produce?topic=t&partition=0", content="1")
        assert posted.json() == {"id": "0.0"}
        with EventReader(address, topic="t", group="g") as events:
            event = events.take(1)[0]
            body = {"id": event.id}
            assert httpx.post(f"http://{address}/ack?topic=t&group=g&partition=0", json=body).text == "ok"
            assert httpx.get(f"http://{address}/api/v1/gpus").status_code == 401
            shown = httpx.get(f"http://{address}/metrics").text
            counted = 'http_requests_total{endpoint="/produce",method="POST",service="broker",status="200"} 1.0'
            assert counted in shown
            assert running.stop() == 0
            assert events.read() is None


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_reads_an_event_line_by_line_as_it_comes(broker: Door) -> None:
    url = f"http://{broker.http}"
    sent = ["curl", "-sS", "-X", "POST", f"{url}/produce?topic=t&partition=0", "-d", "gpu,uuid=GPU-1 U=1"]
    assert json.loads(subprocess.run(sent, check=True, capture_output=True).stdout) == {"id": "0.0"}
    command = ["curl", "-sS", "-N", f"{url}/consume?topic=t&partition=0&group=g"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as curl:
        assert curl.stdout is not None
        for payload in ("gpu,uuid=GPU-1 U=1", "second"):
            event_id, data, partition, blank = (curl.stdout.readline() for _ in range(4))
            shown = event_id.removeprefix("id: ").rstrip()
            assert json.loads(data.removeprefix("data: "))["payload"] == payload
            assert (partition, blank) == ("partition: 0\n", "\n")
            body = json.dumps({"id": shown})
            done = ["curl", "-sS", "-X", "POST", f"{url}/ack?topic=t&partition=0&group=g", "-d", body]
            assert subprocess.run(done, check=True, capture_output=True).stdout == b"ok"
            stored(produce(broker, "second"))
        curl.terminate()


async def test_a_silent_stream_sends_comment_lines(tmp_path: Path) -> None:
    core = _core.Broker(None)
    upstream = CoreUpstream(core)
    endpoints = CompatibilityEndpoints(upstream, partitions=1, heartbeat_seconds=0.05)
    server = HttpServer(endpoints.in_front_of(Starlette()), listen("127.0.0.1", 0, variable="PORT", flag="--port"))
    await server.start()
    try:
        async with httpx.AsyncClient(base_url=f"http://{server.address}", timeout=20) as http:
            await http.post("/produce?topic=t", content="1")
            async with http.stream("GET", "/consume?topic=t&group=g") as stream:
                lines = stream.aiter_lines()
                assert [(await anext(lines))[:3] for _ in range(4)] == ["id:", "dat", "par", ""]
                assert [await anext(lines) for _ in range(3)] == [": still here"] * 3
                await http.post("/produce?topic=t", content="2")
                while (line := await anext(lines)) == ": still here":
                    pass
                assert line.startswith("id: ")
            assert (await http.get("/elsewhere")).status_code == 404
    finally:
        upstream.close()
        await server.stop()
        core.close()
