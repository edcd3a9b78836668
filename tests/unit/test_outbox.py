"""What leaves a producer and when: batches of one partition follow each other, small ones gather behind an answer."""

from __future__ import annotations

import threading

import pytest

from telemetry_broker import _core
from telemetry_broker.errors import BrokerError, InvalidArgumentError, UnavailableError
from telemetry_broker.outbox import Outbox, SentBatch
from telemetry_broker.stream_messages import in_stream
from telemetry_broker.v1 import broker_pb2 as pb


def make(partitions: int = 3, linger: float = 60.0) -> tuple[Outbox, _core.ProducerBuffer]:
    buffer = _core.ProducerBuffer("t", "p", [0] * partitions, 1 << 20, 1000, linger)
    return Outbox("t", "p", buffer, delivery_timeout=60.0, on_error=None), buffer


def taken(outbox: Outbox, partition: int) -> SentBatch:
    batch = outbox.take(partition)
    assert batch is not None
    return batch


def stored(outbox: Outbox, batch: SentBatch) -> list[SentBatch]:
    """The broker has stored it; what follows."""
    answer = pb.ProduceResponse(appended=[pb.Appended(partition=batch.partition, count=batch.count)])
    outcome = outbox.answered(batch, answer.SerializeToString())
    assert outcome is not None
    outbox.settle(batch, outcome)
    return outbox.following(batch)


def test_small_batches_wait_for_what_is_on_its_way_and_leave_together() -> None:
    outbox, buffer = make()
    buffer.send(b"a", partition=0)
    assert not outbox.gather(), "nothing is on its way"
    first = taken(outbox, 0)
    buffer.send(b"b", partition=1)
    buffer.send(b"c", partition=2)
    assert outbox.gather()
    assert sorted(batch.partition for batch in stored(outbox, first)) == [1, 2]
    assert buffer.waiting() == []
    assert not outbox.following(first), "each is taken once"


def test_small_batches_do_not_wait_for_one_that_is_to_be_tried_again() -> None:
    outbox, buffer = make()
    buffer.send(b"a", partition=0)
    first = taken(outbox, 0)
    buffer.send(b"b", partition=1)
    assert outbox.gather()
    assert outbox.answered(first, UnavailableError("away", retry_after=1.0)) is None
    assert [batch.partition for batch in outbox.following(first)] == [1]


def test_a_partition_that_waits_for_its_own_batch_follows_with_it() -> None:
    outbox, buffer = make()
    buffer.send(b"a", partition=0)
    first = taken(outbox, 0)
    buffer.send(b"b", partition=0)
    buffer.send(b"c", partition=1)
    outbox.follow(0, stall=True)
    assert [batch.partition for batch in stored(outbox, first)] == [0], "nobody asked for the other one"
    assert not outbox.stalled


def test_what_is_due_again_and_when_the_next_one_is() -> None:
    outbox, buffer = make()
    for partition in (0, 1):
        buffer.send(b"a", partition=partition)
    first, second = taken(outbox, 0), taken(outbox, 1)
    first.retry_at, second.retry_at = 10.0, 12.0
    assert outbox.due(9.0) == ([], 1.0)
    assert outbox.due(10.5) == ([first], 1.5)
    assert outbox.due(10.5) == ([], 1.5)
    assert outbox.due(12.0) == ([second], None)


def test_a_batch_is_the_same_request_for_a_call_and_for_a_stream() -> None:
    outbox, buffer = make()
    buffer.send(b"value", key=b"key", partition=2, timestamp_ns=7, headers={"h": b"1"})
    buffer.send(b"x" * 300, partition=2)
    batch = taken(outbox, 2)
    request = pb.ProduceRequest.FromString(bytes(batch.request))
    assert (request.topic, request.partition, request.producer, request.sequence) == ("t", 2, "p", 1)
    assert [record.value for record in request.records] == [b"value", b"x" * 300]
    assert isinstance(batch.request, _core.EncodedBatch)
    for message in (batch.request.in_stream(), in_stream(bytes(batch.request))):
        assert isinstance(message, bytes)
        assert pb.ProduceStreamRequest.FromString(message).produce == request
    assert bytes(batch.request) == request.SerializeToString()


def test_a_batch_that_this_process_appended_is_gone_and_one_that_it_refused_is_not() -> None:
    outbox, buffer = make(partitions=1)
    buffer.send(b"value")
    batch = taken(outbox, 0)
    before = bytes(batch.request)
    core = _core.Broker(None)
    with pytest.raises(BrokerError, match="no topic"):
        core.call("Produce", batch.request)
    with pytest.raises(InvalidArgumentError, match="EncodedBatch is a request to Produce"):
        core.call("Ack", batch.request)
    assert bytes(batch.request) == before
    core.call("CreateTopic", pb.CreateTopicRequest(name="t").SerializeToString())
    answer = pb.ProduceResponse.FromString(core.call("Produce", batch.request))
    assert answer.appended[0].count == 1
    with pytest.raises(InvalidArgumentError, match="it was appended"):
        bytes(batch.request)
    core.close()


def test_a_batch_is_due_once_and_whoever_sleeps_is_woken() -> None:
    _, buffer = make(linger=0.001)
    buffer.send(b"a", partition=1)
    assert buffer.due() == [1]
    assert buffer.due(0.0) == [], "given out before, and still not taken"
    assert buffer.waiting() == [1]
    buffer.take(1)
    sleeper = threading.Thread(target=buffer.due)
    sleeper.start()
    buffer.wake()
    sleeper.join(10)
    assert not sleeper.is_alive()
    found: list[list[int]] = []
    sleeper = threading.Thread(target=lambda: found.append(buffer.due()))
    sleeper.start()
    buffer.send(b"b", partition=2)
    sleeper.join(10)
    assert found == [[2]]
