"""`telemetry broker` as a process: what its settings do, what its ports answer, how it ends."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

import telemetry_broker as tb
from telemetry_broker.status_details import read_details
from telemetry_broker.v1 import broker_pb2 as pb
from telemetry_broker.v1.broker_pb2_grpc import BrokerServiceStub
from telemetry_services.broker.grpc_front import SERVICE
from tests.integration.service_processes import BrokerProcess, Service

if TYPE_CHECKING:
    from telemetry_broker.v1.broker_pb2_grpc import BrokerServiceAsyncStub

T = TypeVar("T")


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[BrokerProcess]:
    with BrokerProcess(tmp_path / "data") as process:
        yield process


@pytest.fixture
async def stub(broker: BrokerProcess) -> AsyncIterator[BrokerServiceAsyncStub]:
    async with grpc.aio.insecure_channel(broker.grpc) as channel:
        yield _stub(channel)


def entry(value: bytes) -> pb.Record:
    return pb.Record(value=value)


def test_processes_share_a_folder_through_a_socket(tmp_path: Path) -> None:
    data, path = tmp_path / "data", tmp_path / "data/broker.sock"
    data.mkdir()
    with Service("broker", "--data", data, "--listen", f"unix:{path}") as first:
        assert first.wait_for(r"Starting broker grpc=(\S+) http=-")[1] == f"unix:{path}"
        assert path.stat().st_mode & 0o077 == 0, "the socket is for this user only"
        with tb.connect(f"grpc+unix://{path}") as one, tb.connect(f"grpc+unix://{path}") as other:
            one.create_topic("telemetry", partitions=1)
            with one.producer("telemetry") as producer:
                producer.send(b"shared")
            with other.consumer("telemetry", group="g") as consumer:
                assert consumer.receive(wait=10).values == [b"shared"]
        with pytest.raises(tb.InUseError) as refused:
            tb.connect(f"file://{data}")
        assert f"telemetry broker --data {data} --listen unix:{path}" in refused.value.message
        assert f"grpc+unix://{path}" in refused.value.message
        with Service("broker", "--data", tmp_path / "other", "--listen", f"unix:{path}") as second:
            assert second.process.wait(30) != 0
            assert "is in use by another process" in second.output
        first.process.kill()
        first.process.wait(30)
    with Service("broker", "--data", data, "--listen", f"unix:{path}", "--port", "0") as again:
        again.wait_for(r"Starting broker grpc=unix:\S+ http=127")
        with tb.connect(f"grpc+unix://{path}") as client:
            assert [topic.name for topic in client.topics()] == ["telemetry"]


def test_a_socket_that_cannot_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    for address, words in [
        (f"unix:{tmp_path / 'taken'}", "there is a file of that name"),
        (f"unix:{tmp_path / 'missing/broker.sock'}", "there is no folder"),
        (f"unix:{tmp_path / ('x' * 120)}", "at most 107"),
        ("tcp:127.0.0.1", "not a unix: address"),
    ]:
        with Service("broker", "--data", tmp_path / "data", "--listen", address) as service:
            assert service.process.wait(30) != 0
            assert words in service.output


def test_the_side_port_answers_health_ready_and_metrics(broker: BrokerProcess) -> None:
    with tb.connect(broker.url) as client:
        client.create_topic("telemetry", partitions=2)
        with client.producer("telemetry") as producer:
            producer.send(b"1", partition=1)
        with client.consumer("telemetry", group="g") as consumer:
            batch = consumer.receive(wait=10)
            queued = 'message_queue_size{partition="1",service="broker",topic="telemetry"} 1.0'
            assert queued in httpx.get(f"http://{broker.http}/metrics").text
            assert batch.ack() == 1
    health = httpx.get(f"http://{broker.http}/health").json()
    assert health["status"] == "healthy"
    assert (health["broker_index"], health["broker_count"], health["owned_partitions"]) == (0, 1, [0, 1])
    assert isinstance(health["timestamp"], int)
    assert httpx.get(f"http://{broker.http}/ready").json() == {"status": "ready"}
    metrics = httpx.get(f"http://{broker.http}/metrics").text
    assert 'messages_produced_total{service="broker",topic="telemetry"} 1.0' in metrics
    assert 'messages_consumed_total{service="broker",topic="telemetry"} 1.0' in metrics
    assert 'message_queue_size{partition="1",service="broker",topic="telemetry"} 0.0' in metrics
    assert 'service_health{service="broker"} 1.0' in metrics


def test_a_broker_among_others_says_which_one_it_is(tmp_path: Path) -> None:
    others = {"BROKER_SERVICE": "msg-queue", "BROKER_COUNT": "3"}
    for environment in ({"HOSTNAME": "msg-queue-2"}, {"HOSTNAME": "elsewhere-7", "BROKER_INDEX": "2"}):
        with BrokerProcess(tmp_path, environment={**others, **environment}) as broker:
            broker.wait_for(r"Starting broker .* broker=msg-queue-2 broker_index=2 broker_count=3 ")
            health = httpx.get(f"http://{broker.http}/health").json()
            assert (health["broker_index"], health["broker_count"]) == (2, 3)
            with tb.connect(broker.url) as client:
                assert client.describe().name == "msg-queue-2"
                assert client.describe().members == ()  # nobody comes in by their names
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    reachable = ("--host", "0.0.0.0", "--insecure")
    with (
        BrokerProcess(tmp_path, *reachable, environment={**others, "BROKER_INDEX": "2"}, grpc_port=port),
        tb.connect(f"grpc://127.0.0.1:{port}") as client,
    ):
        told = client.describe()
        assert not told.is_many
        assert [member.name for member in told.members] == ["msg-queue-0", "msg-queue-1", "msg-queue-2"]
        assert told.members[0].address == f"msg-queue-0.msg-queue:{port}"


def test_topics_are_made_at_start(tmp_path: Path) -> None:
    environment = {"TOPICS": "events:8,orders", "PARTITIONS_PER_TOPIC": "3"}
    for _ in range(2):  # the second time they are there already
        with BrokerProcess(tmp_path, environment=environment) as broker, tb.connect(broker.url) as client:
            assert {topic.name: topic.config.partitions for topic in client.topics()} == {"events": 8, "orders": 3}
            assert broker.stop() == 0


def test_the_visibility_timeout_is_that_of_the_variable(tmp_path: Path) -> None:
    with (
        BrokerProcess(tmp_path, environment={"VISIBILITY_TIMEOUT": "200ms", "TOPICS": "t:1"}) as broker,
        tb.connect(broker.url) as client,
        client.producer("t") as producer,
        client.consumer("t", group="g") as consumer,
    ):
        producer.send(b"1")
        first = consumer.receive(wait=10)
        assert first.visibility_timeout == 0.2
        assert consumer.receive(wait=10).attempt == 2  # woken by the deadline, not by a record


def test_the_durability_is_that_of_the_variable(tmp_path: Path) -> None:
    with (
        BrokerProcess(tmp_path, environment={"DURABILITY": "fsync", "TOPICS": "t:1"}) as broker,
        tb.connect(broker.url) as client,
    ):
        assert client.describe_topic("t").topic.config.durability == "fsync"
        with client.producer("t") as producer:
            producer.send(b"1")
        partition = client.describe_topic("t").partitions[0]
        assert partition.synced_end_offset == partition.end_offset > partition.start_offset


def test_addresses_and_folder_are_those_of_the_variables(tmp_path: Path) -> None:
    environment = {"HOST": "127.0.0.2", "PORT": "0", "GRPC_PORT": "0", "DATA_DIR": str(tmp_path / "here")}
    with Service("broker", "--topics", "t", environment=environment) as broker:
        grpc_address, http = broker.wait_for(r"Starting broker grpc=(\S+) http=(\S+)").groups()
        assert httpx.get(f"http://{http}/health").status_code == 200
        with tb.connect(f"grpc://{grpc_address}") as client:
            assert [topic.name for topic in client.topics()] == ["t"]
        assert (http.partition(":")[0], grpc_address.partition(":")[0]) == ("127.0.0.2", "127.0.0.2")
        assert (tmp_path / "here" / "t").is_dir()
        assert broker.stop() == 0


def test_the_queue_size_bounds_what_is_in_memory_only(tmp_path: Path) -> None:
    environment = {"QUEUE_SIZE": "10", "DURABILITY": "memory", "TOPICS": "t:1"}
    with BrokerProcess(tmp_path, environment=environment) as broker, tb.connect(broker.url) as client:
        with client.producer("t") as producer:
            for number in range(5):
                producer.send(b"few %d." % number)
                producer.flush()
            assert b"few" not in _on_disk(tmp_path)
            for number in range(20):
                producer.send(b"many %d." % number)
                producer.flush()
        assert b"few 0." in _on_disk(tmp_path)
        assert b"many 19." not in _on_disk(tmp_path)
        assert broker.stop() == 0
    assert b"many 19." in _on_disk(tmp_path)


def _on_disk(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.glob("t/partition-0/*.log")))


def test_health_and_reflection_answer_over_grpc(broker: BrokerProcess) -> None:
    with grpc.insecure_channel(broker.grpc) as channel:
        request = health_pb2.HealthCheckRequest(service="telemetry_broker.v1.BrokerService")
        health_stub: Any = health_pb2_grpc.HealthStub(channel)
        health = health_stub.Check(request)
        assert health.status == health_pb2.HealthCheckResponse.SERVING
        listing = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
        reflection_stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
        answer = next(reflection_stub.ServerReflectionInfo(listing))
        names = {service.name for service in answer.list_services_response.service}
        assert {"telemetry_broker.v1.BrokerService", "grpc.health.v1.Health"} <= names


async def test_an_error_carries_its_code(stub: BrokerServiceAsyncStub) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.DescribeTopic(pb.DescribeTopicRequest(name="nowhere"))
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    assert read_details(caught.value.trailing_metadata() or ()) == ("topic.not_found", None, None)


async def test_garbage_is_refused_and_the_server_lives_on(broker: BrokerProcess) -> None:
    async with grpc.aio.insecure_channel(broker.grpc) as channel:
        for method in ("Produce", "Receive", "Read", "Ack", "CreateTopic"):
            call: Any = channel.unary_unary(f"/telemetry_broker.v1.BrokerService/{method}")
            for garbage in (b"\xff", b"\x0a\xff\xff\xff\xff\x7f", b"\x0b"):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await call(garbage)
                assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT, method
        await _stub(channel).ListTopics(pb.ListTopicsRequest())


async def test_receive_waits_until_a_record_comes(stub: BrokerServiceAsyncStub) -> None:
    await stub.CreateTopic(pb.CreateTopicRequest(name="t", config=pb.TopicConfig(partitions=1)))
    request = pb.ReceiveRequest(topic="t", group="g", consumer="c", wait_ms=30_000)
    waiting = asyncio.create_task(_call(stub.Receive(request)))
    await asyncio.sleep(0)
    await stub.Produce(pb.ProduceRequest(topic="t", partition=0, records=[entry(b"late")]))
    answer = await waiting
    assert [record.value for record in answer.deliveries[0].records] == [b"late"]


async def test_receive_and_read_answer_empty_when_the_wait_ends(stub: BrokerServiceAsyncStub) -> None:
    await stub.CreateTopic(pb.CreateTopicRequest(name="t", config=pb.TopicConfig(partitions=1)))
    request = pb.ReceiveRequest(topic="t", group="g", consumer="c", wait_ms=50)
    assert not (await stub.Receive(request)).deliveries
    read = pb.ReadRequest(topic="t", partition=0, wait_ms=50)
    getattr(read, "from").edge = pb.EDGE_START
    assert not (await stub.Read(read)).deliveries


async def calls_under_way(broker: BrokerProcess, count: int) -> None:
    """Returns once the server has so many."""
    async with httpx.AsyncClient(base_url=f"http://{broker.http}") as http:
        while f'active_connections{{service="broker"}} {count}.0' not in (await http.get("/metrics")).text:
            assert broker.process.poll() is None


async def test_read_from_the_end_waits_for_what_comes_next(broker: BrokerProcess, stub: BrokerServiceAsyncStub) -> None:
    await stub.CreateTopic(pb.CreateTopicRequest(name="t", config=pb.TopicConfig(partitions=1)))
    await stub.Produce(pb.ProduceRequest(topic="t", partition=0, records=[entry(b"old")]))
    request = pb.ReadRequest(topic="t", partition=0, wait_ms=30_000)
    getattr(request, "from").edge = pb.EDGE_END
    waiting = asyncio.create_task(_call(stub.Read(request)))
    await calls_under_way(broker, 1)
    await stub.Produce(pb.ProduceRequest(topic="t", partition=0, records=[entry(b"new")]))
    answer = await waiting
    assert [record.value for record in answer.deliveries[0].records] == [b"new"]


async def test_a_wait_over_the_bound_is_refused(stub: BrokerServiceAsyncStub) -> None:
    await stub.CreateTopic(pb.CreateTopicRequest(name="t"))
    with pytest.raises(grpc.aio.AioRpcError, match="wait_ms is 60001"):
        await stub.Receive(pb.ReceiveRequest(topic="t", group="g", consumer="c", wait_ms=60_001))


async def test_a_client_that_leaves_takes_nothing_with_it(broker: BrokerProcess, stub: BrokerServiceAsyncStub) -> None:
    await stub.CreateTopic(pb.CreateTopicRequest(name="t", config=pb.TopicConfig(partitions=1)))
    request = pb.ReceiveRequest(topic="t", group="g", consumer="gone", wait_ms=30_000)
    leaving = stub.Receive(request)
    await calls_under_way(broker, 1)
    leaving.cancel()
    await calls_under_way(broker, 0)
    await stub.Produce(pb.ProduceRequest(topic="t", partition=0, records=[entry(b"1")]))
    request = pb.ReceiveRequest(topic="t", group="g", consumer="here", wait_ms=10_000)
    answer = await stub.Receive(request)
    assert [delivery.attempt for delivery in answer.deliveries] == [1]


async def test_a_produce_stream_answers_in_order_and_outlives_an_error(stub: BrokerServiceAsyncStub) -> None:
    await stub.CreateTopic(pb.CreateTopicRequest(name="t", config=pb.TopicConfig(partitions=1)))
    stream = stub.ProduceStream()
    for topic, value in (("t", b"a"), ("nowhere", b"b"), ("t", b"c")):
        produce = pb.ProduceRequest(topic=topic, partition=0, records=[entry(value)])
        await stream.write(pb.ProduceStreamRequest(produce=produce))
    await stream.done_writing()
    answers = [answer async for answer in stream]
    assert [answer.WhichOneof("result") for answer in answers] == ["produced", "error", "produced"]
    assert answers[1].error.code == "topic.not_found"
    offsets = [answers[i].produced.appended[0].base_offset for i in (0, 2)]
    assert offsets[1] == offsets[0] + 1


async def test_a_consume_stream_sends_while_credit_lasts_and_gives_back_when_it_dies(
    stub: BrokerServiceAsyncStub,
) -> None:
    await stub.CreateTopic(pb.CreateTopicRequest(name="t", config=pb.TopicConfig(partitions=1)))
    records = [entry(b"%d" % number) for number in range(10)]
    await stub.Produce(pb.ProduceRequest(topic="t", partition=0, records=records))
    stream: Any = stub.Consume()
    start = pb.ConsumeStart(receive=pb.ReceiveRequest(topic="t", group="g", consumer="c"), credit_records=4)
    await stream.write(pb.ConsumeRequest(start=start))
    first = (await stream.read()).delivery
    assert [record.value for record in first.records] == [b"0", b"1", b"2", b"3"]
    await stream.write(pb.ConsumeRequest(ack=pb.AckRequest(leases=[pb.LeaseRange(lease_id=first.lease_id)])))
    assert (await stream.read()).acked.acked == 4
    await stream.write(pb.ConsumeRequest(credit=pb.ConsumeCredit(records=2)))
    second = (await stream.read()).delivery
    assert [record.value for record in second.records] == [b"4", b"5"]
    await stream.write(pb.ConsumeRequest(ack=pb.AckRequest(leases=[pb.LeaseRange(lease_id=b"bogus")])))
    assert (await stream.read()).error.code == "invalid.lease"
    stream.cancel()
    # The call may overtake the news of the stream's death: then it gets what nobody had.
    request = pb.ReceiveRequest(topic="t", group="g", consumer="d", wait_ms=10_000, max_records=2)
    attempts: dict[bytes, int] = {}
    for _ in range(3):
        (delivery,) = (await stub.Receive(request)).deliveries
        attempts |= {record.value: delivery.attempt for record in delivery.records}
    assert attempts == {b"4": 2, b"5": 2, b"6": 1, b"7": 1, b"8": 1, b"9": 1}


async def test_credit_in_deliveries_is_never_passed_and_can_be_taken_back(stub: BrokerServiceAsyncStub) -> None:
    await stub.CreateTopic(pb.CreateTopicRequest(name="t", config=pb.TopicConfig(partitions=1)))
    records = [entry(b"%d" % number) for number in range(10)]
    await stub.Produce(pb.ProduceRequest(topic="t", partition=0, records=records))
    stream: Any = stub.Consume()
    receive = pb.ReceiveRequest(topic="t", group="g", consumer="c", max_records=2)
    await stream.write(pb.ConsumeRequest(start=pb.ConsumeStart(receive=receive, credit_deliveries=2)))
    for offset in (0, 2):
        assert (await stream.read()).delivery.base_offset == offset
    for credit in (pb.ConsumeCredit(replace=True), pb.ConsumeCredit(deliveries=1, replace=True)):
        await stream.write(pb.ConsumeRequest(credit=credit))
        assert (await stream.read()).WhichOneof("response") == "credited"
    assert (await stream.read()).delivery.base_offset == 4
    await stream.write(pb.ConsumeRequest(credit=pb.ConsumeCredit(deliveries=1000)))
    await stream.write(pb.ConsumeRequest(credit=pb.ConsumeCredit(replace=True)))
    while (response := await stream.read()).WhichOneof("response") != "credited":
        assert len(response.delivery.records) == 2
    await stub.Produce(pb.ProduceRequest(topic="t", partition=0, records=records))
    await stream.write(pb.ConsumeRequest(credit=pb.ConsumeCredit(replace=True)))
    assert (await stream.read()).WhichOneof("response") == "credited"
    await stream.done_writing()
    assert await stream.read() is grpc.aio.EOF


async def test_a_stream_takes_the_place_of_an_older_one_whose_death_takes_nothing_from_it(
    stub: BrokerServiceAsyncStub,
) -> None:
    await stub.CreateTopic(pb.CreateTopicRequest(name="t", config=pb.TopicConfig(partitions=1)))
    await stub.Produce(pb.ProduceRequest(topic="t", partition=0, records=[entry(b"a"), entry(b"b")]))
    receive = pb.ReceiveRequest(topic="t", group="g", consumer="c", mode=pb.GROUP_MODE_ORDERED, max_records=1)
    start = pb.ConsumeRequest(start=pb.ConsumeStart(receive=receive, credit_records=1))
    older: Any = stub.Consume()
    await older.write(start)
    assert (await older.read()).delivery.base_offset == 0
    newer: Any = stub.Consume()
    await newer.write(start)
    again = (await newer.read()).delivery
    assert (again.base_offset, again.attempt) == (0, 2)
    with pytest.raises(grpc.aio.AioRpcError, match="took the place of this one"):
        await older.read()
    await newer.write(pb.ConsumeRequest(ack=pb.AckRequest(leases=[pb.LeaseRange(lease_id=again.lease_id)])))
    assert (await newer.read()).acked.acked == 1
    newer.cancel()


async def test_a_stream_may_end_and_keep_its_leases(stub: BrokerServiceAsyncStub) -> None:
    await stub.CreateTopic(pb.CreateTopicRequest(name="t", config=pb.TopicConfig(partitions=1)))
    await stub.Produce(pb.ProduceRequest(topic="t", partition=0, records=[entry(b"a")]))
    stream: Any = stub.Consume()
    receive = pb.ReceiveRequest(topic="t", group="g", consumer="c", visibility_timeout_ms=600_000)
    await stream.write(pb.ConsumeRequest(start=pb.ConsumeStart(receive=receive, credit_records=1)))
    assert (await stream.read()).delivery.attempt == 1
    await stream.write(pb.ConsumeRequest(end=pb.ConsumeEnd(keep_leases=True)))
    assert await stream.read() is grpc.aio.EOF
    group = await stub.DescribeGroup(pb.DescribeGroupRequest(topic="t", group="g"))
    assert group.partitions[0].in_flight == 1


async def test_a_produce_stream_keeps_the_order_of_each_partition(stub: BrokerServiceAsyncStub) -> None:
    config = pb.TopicConfig(partitions=3, durability=pb.DURABILITY_FSYNC)
    await stub.CreateTopic(pb.CreateTopicRequest(name="t", config=config))
    stream: Any = stub.ProduceStream()

    async def send() -> None:
        for number in range(60):
            produce = pb.ProduceRequest(
                topic="t", partition=number % 3, producer="p", sequence=number + 1, records=[entry(b"%d" % number)]
            )
            await stream.write(pb.ProduceStreamRequest(produce=produce))
        await stream.done_writing()

    sending = asyncio.create_task(send())
    appended = [answer.produced.appended[0] async for answer in stream]
    await sending
    assert [(part.partition, part.base_offset, part.duplicate) for part in appended] == [
        (number % 3, number // 3, False) for number in range(60)
    ]


async def test_a_consume_stream_must_begin_with_a_start(stub: BrokerServiceAsyncStub) -> None:
    stream = stub.Consume()
    await stream.write(pb.ConsumeRequest(credit=pb.ConsumeCredit(records=2)))
    with pytest.raises(grpc.aio.AioRpcError, match="start"):
        await stream.read()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_ends_waits_and_keeps_what_was_stored(tmp_path: Path, number: int) -> None:
    with BrokerProcess(tmp_path, "--topics", "t:1") as broker:
        with tb.connect(broker.url) as client, client.producer("t") as producer:
            producer.send(b"1")
        with grpc.insecure_channel(broker.grpc) as channel:
            request = pb.ReceiveRequest(topic="t", group="g", consumer="c", wait_ms=60_000)
            BrokerServiceStub(channel).Receive(request)
            waiting = BrokerServiceStub(channel).Receive.future(request)
            assert broker.stop(number, timeout=5) == 0
            error = waiting.exception()
            assert isinstance(error, grpc.RpcError)
            assert error.code() == grpc.StatusCode.UNAVAILABLE
    with BrokerProcess(tmp_path) as broker, tb.connect(broker.url) as client:
        assert client.read("t", 0).values == [b"1"]


def test_a_stop_ends_a_produce_stream_that_has_nothing_to_say(tmp_path: Path) -> None:
    with BrokerProcess(tmp_path, "--topics", "t:1") as broker, grpc.insecure_channel(broker.grpc) as channel:
        requests: SimpleQueue[bytes | None] = SimpleQueue()
        known: Any = channel.stream_stream(f"/{SERVICE}/ProduceStream")
        stream = known(iter(requests.get, None))
        produce = pb.ProduceRequest(topic="t", partition=0, records=[pb.Record(value=b"1")])
        requests.put(pb.ProduceStreamRequest(produce=produce).SerializeToString())
        assert pb.ProduceStreamResponse.FromString(next(stream)).produced.appended[0].count == 1
        assert broker.stop(timeout=5) == 0
        assert list(stream) == []
        assert stream.code() is grpc.StatusCode.OK, "it was cut off when the time for the drain was over"
        requests.put(None)


def test_a_busy_port_is_said(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for arguments in (("--port", port, "--grpc-port", 0), ("--port", 0, "--grpc-port", port)):
            with Service("broker", "--data", tmp_path, *arguments) as second:
                assert second.wait() == 1
                assert f"port {port} on 127.0.0.1 is in use" in second.output
                assert "Traceback" not in second.output


def test_a_folder_in_use_is_said(broker: BrokerProcess, tmp_path: Path) -> None:
    with Service("broker", "--data", tmp_path / "data", "--port", 0, "--grpc-port", 0) as second:
        assert second.wait() == 1
        assert "data.in_use" in second.output
        assert "Traceback" not in second.output


def test_log_lines_can_be_json(tmp_path: Path) -> None:
    with Service("broker", "--data", tmp_path, "--port", 0, "--grpc-port", 0, "--log-format", "json") as broker:
        broker.wait_for(r'"service": "broker".*"message": "Starting broker", "grpc": "127\.0\.0\.1:\d+"')
        assert broker.stop() == 0


def _stub(channel: grpc.aio.Channel) -> BrokerServiceAsyncStub:
    return BrokerServiceStub(channel)


async def _call(call: Awaitable[T]) -> T:
    return await call
