"""Clients and brokers of other versions: fields that one side does not know, or does not send, yet."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent import futures
from queue import SimpleQueue
from typing import Any

import grpc
import pytest
from google.protobuf import unknown_fields

import telemetry_broker as tb
from telemetry_broker.v1 import broker_pb2 as pb
from telemetry_broker.v1.broker_pb2_grpc import BrokerServiceStub
from tests.integration.raw_http2 import SERVICE
from tests.integration.service_processes import BrokerProcess

# Field 1000: a varint, 8 bytes, a text, 4 bytes.
NEWER = b"\xc0\x3e\x01" + b"\xc1\x3e" + bytes(8) + b"\xc2\x3e\x05later" + b"\xc5\x3e" + bytes(4)


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    with BrokerProcess(tmp_path_factory.mktemp("data"), "--topics", "t:1") as process:
        yield process


@pytest.fixture
def channel(broker: BrokerProcess) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(broker.grpc) as channel:
        yield channel


def call(channel: grpc.Channel, method: str, request: bytes) -> bytes:
    made: Any = channel.unary_unary(f"/{SERVICE}/{method}")
    answer: bytes = made(request)
    return answer


def test_a_newer_client_is_served(channel: grpc.Channel) -> None:
    """Requests with fields of tomorrow, before and behind those of today, in the message and inside of a record."""
    record = pb.Record(value=b"1").SerializeToString() + NEWER
    entry = b"\x7a" + bytes([len(record)]) + record
    produce = NEWER + pb.ProduceRequest(topic="t", partition=0).SerializeToString() + entry + NEWER
    appended = pb.ProduceResponse.FromString(call(channel, "Produce", produce)).appended[0]
    assert appended.count == 1
    receive = pb.ReceiveRequest(topic="t", group="g", consumer="c").SerializeToString() + NEWER
    delivery = pb.ReceiveResponse.FromString(call(channel, "Receive", receive)).deliveries[0]
    (stored,) = delivery.records
    assert stored.value == b"1"
    # What a record has is kept, known or not: a newer consumer gets it.
    unknown: Any = unknown_fields.UnknownFieldSet(stored)
    assert {field.field_number for field in unknown} == {1000}
    ack = pb.AckRequest(topic="t", group="g", leases=[pb.LeaseRange(lease_id=delivery.lease_id)])
    assert pb.AckResponse.FromString(call(channel, "Ack", NEWER + ack.SerializeToString())).acked == 1
    for method, request in (
        ("CreateTopic", pb.CreateTopicRequest(name="newer", config=pb.TopicConfig(partitions=1))),
        ("ListTopics", pb.ListTopicsRequest()),
        ("DescribeTopic", pb.DescribeTopicRequest(name="newer")),
        ("DescribeGroup", pb.DescribeGroupRequest(topic="t", group="g")),
        ("OpenProducer", pb.OpenProducerRequest(topic="t", producer="p")),
        ("ListDeadLetters", pb.ListDeadLettersRequest(topic="t")),
        ("DescribeBroker", pb.DescribeBrokerRequest()),
    ):
        call(channel, method, request.SerializeToString() + NEWER)


def test_a_newer_client_is_served_on_streams(channel: grpc.Channel) -> None:
    produce = pb.ProduceRequest(topic="t", partition=0, records=[pb.Record(value=b"2")]).SerializeToString() + NEWER
    wrapped = NEWER + b"\x0a" + bytes([len(produce)]) + produce + NEWER
    stream: Any = channel.stream_stream(f"/{SERVICE}/ProduceStream")
    (answer,) = stream(iter([wrapped]))
    assert pb.ProduceStreamResponse.FromString(answer).produced.appended[0].count == 1
    receive = pb.ReceiveRequest(topic="t", group="stream", consumer="c")
    start = pb.ConsumeRequest(start=pb.ConsumeStart(receive=receive, credit_records=9)).SerializeToString()
    consume: Any = channel.stream_stream(f"/{SERVICE}/Consume")
    # The second message is of a kind that this broker does not know: the stream says so and goes on.
    answers = [pb.ConsumeResponse.FromString(each) for each in _until(consume, [start + NEWER, NEWER], 2)]
    kinds = {answer.WhichOneof("response") for answer in answers}
    assert kinds == {"delivery", "error"}
    assert {answer.error.code for answer in answers if answer.WhichOneof("response") == "error"} == {"invalid.argument"}


def _until(method: Any, requests: list[bytes], count: int) -> list[bytes]:
    queue: SimpleQueue[bytes | None] = SimpleQueue()
    for request in requests:
        queue.put(request)
    answers = method(iter(queue.get, None))
    taken = [next(answers) for _ in range(count)]
    queue.put(None)
    return taken


def test_an_older_client_gets_what_it_always_got(channel: grpc.Channel) -> None:
    """Requests with only the fields that had to be there on the first day."""
    stub = BrokerServiceStub(channel)
    stub.CreateTopic(pb.CreateTopicRequest(name="older"))
    stub.Produce(pb.ProduceRequest(topic="older", records=[pb.Record(value=b"1")]))
    delivery = stub.Receive(pb.ReceiveRequest(topic="older", group="g", consumer="c")).deliveries[0]
    leases = [pb.LeaseRange(lease_id=delivery.lease_id)]
    assert stub.Nack(pb.NackRequest(topic="older", group="g", leases=leases, dead_letter=True)).nacked == 1
    assert len(stub.ListDeadLetters(pb.ListDeadLettersRequest(topic="older")).deliveries) == 1
    assert "older" in [topic.name for topic in stub.ListTopics(pb.ListTopicsRequest()).topics]


def test_a_value_of_tomorrow_is_refused_with_what_is_known(channel: grpc.Channel) -> None:
    stub = BrokerServiceStub(channel)
    newer: Any = 9
    for request, words in (
        (pb.TopicConfig(durability=newer), "durability 9 is not known"),
        (pb.TopicConfig(full_policy=newer), "full_policy 9 is not known"),
    ):
        with pytest.raises(grpc.RpcError, match=words):
            stub.CreateTopic(pb.CreateTopicRequest(name="x", config=request))
    with pytest.raises(grpc.RpcError, match="group mode 9 is not known: 1 is shared, 2 ordered"):
        stub.Receive(pb.ReceiveRequest(topic="t", group="x", consumer="c", mode=newer))


class OtherBroker(grpc.GenericRpcHandler):
    """A broker of another version: what it answers to which method; the rest it does not know."""

    def __init__(self, answers: dict[str, bytes]) -> None:
        self.answers = answers

    def service(self, handler_call_details: Any) -> Any:
        answer = self.answers.get(handler_call_details.method.rpartition("/")[2])
        if answer is None:
            return None
        return grpc.unary_unary_rpc_method_handler(lambda _request, _context: answer)


@pytest.fixture
def other() -> Iterator[tuple[OtherBroker, str]]:
    handler = OtherBroker({})
    server = grpc.server(futures.ThreadPoolExecutor(2), handlers=[handler])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield handler, f"grpc://127.0.0.1:{port}"
    server.stop(0).wait()


TOPIC = pb.Topic(
    name="t",
    config=pb.TopicConfig(partitions=1, durability=pb.DURABILITY_OS, full_policy=pb.FULL_POLICY_REJECT),
    config_version=1,
)


def test_a_newer_broker_is_understood(other: tuple[OtherBroker, str]) -> None:
    broker, url = other
    broker.answers = {
        "ListTopics": pb.ListTopicsResponse(topics=[TOPIC]).SerializeToString() + NEWER,
        "DescribeTopic": pb.DescribeTopicResponse(
            topic=TOPIC, partitions=[pb.PartitionState(log_id=bytes(16))]
        ).SerializeToString()
        + NEWER,
        "Receive": pb.ReceiveResponse(
            deliveries=[
                pb.Delivery(topic="t", log_id=bytes(16), lease_id=b"l", attempt=1, records=[pb.Record(value=b"1")])
            ]
        ).SerializeToString()
        + NEWER,
        "Ack": pb.AckResponse(acked=1).SerializeToString() + NEWER,
        "Nack": b"",
    }
    with tb.connect(url) as client:
        assert [topic.name for topic in client.topics()] == ["t"]
        assert client.describe_topic("t").partitions[0].end_offset == 0
        consumer = client.consumer("t", "g")
        assert consumer.receive(wait=5).ack() == 1
        consumer.close(give_back=False)


def test_a_value_that_a_newer_broker_answers_is_named(other: tuple[OtherBroker, str]) -> None:
    broker, url = other
    topic = pb.Topic()
    topic.CopyFrom(TOPIC)
    newer: Any = 9
    topic.config.durability = newer
    broker.answers = {"ListTopics": pb.ListTopicsResponse(topics=[topic]).SerializeToString()}
    with tb.connect(url) as client, pytest.raises(tb.UnsupportedError, match=r"durability 9.*install a newer"):
        client.topics()


def test_a_call_that_an_older_broker_does_not_know_is_unsupported(other: tuple[OtherBroker, str]) -> None:
    _, url = other
    with tb.connect(url) as client, pytest.raises(tb.UnsupportedError, match="DescribeBroker"):
        client.describe()


def test_an_older_broker_without_pages_and_details_is_understood(other: tuple[OtherBroker, str]) -> None:
    broker, url = other
    broker.answers = {"ListTopics": b"".join([b"\x0a", bytes([TOPIC.ByteSize()]), TOPIC.SerializeToString()])}
    with tb.connect(url) as client:
        assert [topic.name for topic in client.topics()] == ["t"]
