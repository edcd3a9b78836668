"""Answers stay under 2 MiB unless the request asks for more: clients in Go and Java refuse what is over 4 MiB."""

from __future__ import annotations

from collections.abc import Iterator
from queue import SimpleQueue

import grpc
import pytest

import telemetry_broker as tb
from telemetry_broker import calls, steps
from telemetry_broker.v1 import broker_pb2 as pb
from telemetry_broker.v1.broker_pb2_grpc import BrokerServiceStub
from tests.integration.service_processes import BrokerProcess

PROMISED = 2 << 20
CONFIG = pb.TopicConfig(partitions=1, durability=pb.DURABILITY_OS, full_policy=pb.FULL_POLICY_REJECT)
LARGEST = (1 << 20) - 64  # a record's value may be a little smaller than the record


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    """Partitions of topic `large` with 6 records each, from 300 KB to the largest there may be."""
    with BrokerProcess(tmp_path_factory.mktemp("data"), "--topics", "large:8") as process:
        with tb.connect(process.url) as client, client.producer("large") as producer:
            for partition in range(8):
                for size in (300_000, LARGEST, 700_000, LARGEST, 300_000, LARGEST):
                    producer.send(bytes(size), partition=partition)
        yield process


@pytest.fixture
def stub(broker: BrokerProcess) -> Iterator[BrokerServiceStub]:
    """A client that takes nothing over what is promised."""
    options = [("grpc.max_receive_message_length", PROMISED)]
    with grpc.insecure_channel(broker.grpc, options=options) as channel:
        yield BrokerServiceStub(channel)


@pytest.mark.parametrize("deliveries", [1, 2, 64])
@pytest.mark.parametrize("records", [0, 65_536])
def test_receive(stub: BrokerServiceStub, deliveries: int, records: int) -> None:
    group = f"{deliveries}-{records}"
    request = pb.ReceiveRequest(
        topic="large", group=group, consumer="c", max_deliveries=deliveries, max_records=records
    )
    taken = 0
    while answer := stub.Receive(request).deliveries:
        taken += sum(len(delivery.records) for delivery in answer)
    assert taken == 48


def test_receive_gives_more_to_those_who_ask(broker: BrokerProcess) -> None:
    with grpc.insecure_channel(broker.grpc, options=[("grpc.max_receive_message_length", 16 << 20)]) as channel:
        request = pb.ReceiveRequest(topic="large", group="more", consumer="c", max_deliveries=64, max_bytes=8 << 20)
        answer = BrokerServiceStub(channel).Receive(request)
        assert 4 << 20 < answer.ByteSize() < 16 << 20


def test_read(stub: BrokerServiceStub) -> None:
    request = pb.ReadRequest(topic="large", partition=1, max_records=65_536)
    getattr(request, "from").edge = pb.EDGE_START
    taken = 0
    while (answer := stub.Read(request)).deliveries:
        taken += sum(len(delivery.records) for delivery in answer.deliveries)
        getattr(request, "from").offset = answer.next_offset
    assert taken == 6


def test_consume(stub: BrokerServiceStub) -> None:
    start = pb.ConsumeStart(
        receive=pb.ReceiveRequest(topic="large", group="stream", consumer="c", max_records=65_536),
        credit_records=1_000_000,
    )
    requests: SimpleQueue[pb.ConsumeRequest | None] = SimpleQueue()
    requests.put(pb.ConsumeRequest(start=start))
    answers = stub.Consume(iter(requests.get, None))
    taken = 0
    while taken < 48:
        taken += len(next(answers).delivery.records)
    requests.put(None)
    assert list(answers) == []


def test_dead_letters_come_in_pages(stub: BrokerServiceStub) -> None:
    receive = pb.ReceiveRequest(topic="large", group="fails", consumer="c")
    leases = []
    while answer := stub.Receive(receive).deliveries:
        leases += [pb.LeaseRange(lease_id=delivery.lease_id) for delivery in answer]
    stub.Nack(pb.NackRequest(topic="large", group="fails", leases=leases, dead_letter=True, reason="r" * 4096))
    seen: list[tuple[int, int]] = []
    for max_records, max_bytes in ((0, 0), (5, 0), (0, 1), (10_000, 1 << 20)):
        request = pb.ListDeadLettersRequest(topic="large", max_records=max_records, max_bytes=max_bytes)
        seen = []
        pages = 0
        while True:
            page = stub.ListDeadLetters(request)
            assert page.total == 48
            pages += 1
            seen += [(delivery.partition, delivery.base_offset) for delivery in page.deliveries]
            if not page.HasField("next_partition"):
                break
            request.from_partition, request.from_offset = page.next_partition, page.next_offset
        assert len(seen) == len(set(seen)) == 48
        assert seen == sorted(seen)
        assert pages >= 10
    only = pb.ListDeadLettersRequest(topic="large", partition=3, from_offset=seen[19][1], max_bytes=8 << 20)
    with pytest.raises(grpc.RpcError, match="larger than max"):
        stub.ListDeadLetters(only)  # asked for more than this client takes


def test_topics_come_in_pages(broker: BrokerProcess, stub: BrokerServiceStub) -> None:
    for name in ("b", "c", "a.b", "a"):
        stub.CreateTopic(pb.CreateTopicRequest(name=name, config=pb.TopicConfig(partitions=1)))
    every = [topic.name for topic in stub.ListTopics(pb.ListTopicsRequest()).topics]
    assert every[:4] == ["a", "a.b", "b", "c"]
    paged: list[str] = []
    answer = pb.ListTopicsResponse(more=True)
    while answer.more:
        answer = stub.ListTopics(pb.ListTopicsRequest(after=paged[-1] if paged else "", max_topics=2))
        assert len(answer.topics) <= 2
        paged += [topic.name for topic in answer.topics]
    assert paged == every
    with tb.connect(broker.url) as client:
        assert [topic.name for topic in client.topics()] == every


def test_a_client_asks_for_pages_until_there_are_no_more() -> None:
    names = [f"t{number}" for number in range(7)]

    def answer(method: str, request: bytes) -> bytes:
        after = pb.ListTopicsRequest.FromString(request).after
        left = [name for name in names if name > after]
        topics = [pb.Topic(name=name, config=CONFIG) for name in left[:3]]
        return pb.ListTopicsResponse(topics=topics, more=len(left) > 3).SerializeToString()

    assert [topic.name for topic in steps.run(calls.topics(), answer)] == names


def test_the_largest_topic_fits(stub: BrokerServiceStub) -> None:
    """What has an entry for each partition, in a topic of few of them, counted up to the 4,096 that there may be."""
    name, holder, few = "t" * 200, "h" * 255, 32
    config = pb.TopicConfig(partitions=few, durability=pb.DURABILITY_MEMORY)
    stub.CreateTopic(pb.CreateTopicRequest(name=name, config=config))
    stub.CreateGroup(pb.CreateGroupRequest(topic=name, group="o", mode=pb.GROUP_MODE_ORDERED))
    for partition in range(few):
        stub.Produce(pb.ProduceRequest(topic=name, partition=partition, records=[pb.Record()]))
    stub.Receive(pb.ReceiveRequest(topic=name, group="o", consumer=holder, max_deliveries=few))
    for answer in (
        stub.DescribeTopic(pb.DescribeTopicRequest(name=name)),
        stub.DescribeGroup(pb.DescribeGroupRequest(topic=name, group="o")),
        stub.OpenProducer(pb.OpenProducerRequest(topic=name, producer=holder)),
        stub.SeekGroup(pb.SeekGroupRequest(topic=name, group="o", to=pb.Position(edge=pb.EDGE_END))),
    ):
        assert len(answer.partitions) == few
        assert answer.ByteSize() / few * 4096 < PROMISED
