"""What was promised outlives the broker: records, acks, groups, sequences. Memory has nothing to outlive."""

import pytest

import telemetry_broker as tb
from telemetry_broker.v1 import broker_pb2 as pb
from tests.integration.contract.engines import Engine

pytestmark = pytest.mark.parametrize("kill", [False, True], ids=["clean", "killed"])


@pytest.fixture
def engine(engine: Engine) -> Engine:
    if not engine.restarts:
        pytest.skip("a broker in memory ends with its process")
    engine.broker.create_topic("t", partitions=2)
    return engine


def test_acked_records_do_not_come_again_and_unacked_ones_do(engine: Engine, kill: bool) -> None:
    with engine.broker.producer("t") as producer:
        for number in range(10):
            producer.send(b"%d" % number, partition=0)
    consumer = engine.broker.consumer("t", "g")
    batch = consumer.receive()
    assert len(batch) == 10
    batch.ack(offsets=[0, 1, 2, 5])
    engine.restart(kill=kill)
    with engine.broker.consumer("t", "g") as consumer:
        values: list[bytes] = []
        while batch := consumer.receive():
            values += batch.values
            batch.ack()
    assert sorted(values) == [b"3", b"4", b"6", b"7", b"8", b"9"]


def test_topics_groups_and_positions_are_kept(engine: Engine, kill: bool) -> None:
    broker = engine.broker
    with broker.producer("t") as producer:
        producer.send(b"a", partition=0)
    broker.create_group("t", "o", mode="ordered", start=tb.END)
    topics, logs = broker.topics(), [state.log_id for state in broker.describe_topic("t").partitions]
    engine.restart(kill=kill)
    broker = engine.broker
    assert broker.topics() == topics
    assert [state.log_id for state in broker.describe_topic("t").partitions] == logs
    assert broker.groups("t") == [tb.Group("o", "ordered")]
    with broker.consumer("t", "o", mode="ordered") as consumer:
        assert not consumer.receive()
    assert broker.read("t", 0, tb.Offset(logs[0], 0)).values == [b"a"]


def test_a_named_producer_is_remembered(engine: Engine, kill: bool) -> None:
    with engine.broker.producer("t", name="csv") as producer:
        producer.append(b"", partition=0, sequence=10)
        producer.append(b"\x7a\x03\x0a\x01a", partition=1, sequence=20)
    engine.restart(kill=kill)
    with engine.broker.producer("t", name="csv") as producer:
        assert producer.sequences == {0: 10, 1: 20}
        assert producer.append(b"\x7a\x03\x0a\x01a", partition=1, sequence=20).duplicate


def test_offsets_go_on_without_repeating(engine: Engine, kill: bool) -> None:
    offsets: list[int] = []
    for _ in range(3):
        with engine.broker.producer("t") as producer:
            producer.send(b"x", partition=0)
        page = engine.broker.read("t", 0, tb.AtTime(0), max_records=100)
        offsets.append(page.offsets[-1])
        engine.restart(kill=kill)
    assert sorted(set(offsets)) == offsets


def test_an_ack_under_a_lease_of_before_is_taken(engine: Engine, kill: bool) -> None:
    with engine.broker.producer("t") as producer:
        producer.send(b"a", partition=0)
    consumer = engine.broker.consumer("t", "g")
    lease_id = consumer.receive().lease_id
    consumer.close(give_back=False)
    engine.restart(kill=kill)
    request = pb.AckRequest(topic="t", group="g", leases=[pb.LeaseRange(lease_id=lease_id)])
    answer = engine.broker._transport.call("Ack", request.SerializeToString())
    assert pb.AckResponse.FromString(answer).acked == 1
    with engine.broker.consumer("t", "g") as consumer:
        assert not consumer.receive()
