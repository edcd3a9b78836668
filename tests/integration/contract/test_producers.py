"""A batch is stored once, however often it is sent."""

import threading
from typing import Any

import pytest

import telemetry_broker as tb
from telemetry_broker.v1 import broker_pb2 as pb
from tests.integration.contract.engines import TIMEOUT, Engine


def encode(*values: bytes) -> bytes:
    return pb.RecordBatch(records=[pb.Record(value=value) for value in values]).SerializeToString()


def test_a_named_producer_hears_how_far_its_batches_are_stored(broker: tb.Broker) -> None:
    broker.create_topic("t", partitions=2)
    with broker.producer("t", name="csv") as producer:
        assert producer.sequences == {0: 0, 1: 0}
        producer.append_many([(0, encode(b"a", b"b")), (1, encode())], sequence=4096)
        producer.append(encode(b"c"), partition=0, sequence=9000)
    with broker.producer("t", name="csv") as producer:
        assert producer.sequences == {0: 9000, 1: 4096}
    with broker.producer("t", name="another") as producer:
        assert producer.sequences == {0: 0, 1: 0}


def test_a_sequence_that_is_stored_comes_back_as_a_duplicate(broker: tb.Broker) -> None:
    broker.create_topic("t", partitions=2)
    log_id = broker.describe_topic("t").partitions[1].log_id
    with broker.producer("t", name="csv") as producer:
        assert producer.append(encode(b"a", b"b"), partition=1, sequence=10) == tb.Appended(1, log_id, 0, 2, False)
        assert producer.append(encode(b"a", b"b"), partition=1, sequence=10) == tb.Appended(1, log_id, 0, 0, True)
        assert producer.append(encode(b"x"), partition=1, sequence=9).duplicate
        assert not producer.append(encode(b"x"), partition=0, sequence=9).duplicate
        assert producer.append(encode(b"c"), partition=1, sequence=11) == tb.Appended(1, log_id, 2, 1, False)
    assert broker.read("t", 1).values == [b"a", b"b", b"c"]


def test_append_many_answers_in_the_order_of_its_batches(broker: tb.Broker) -> None:
    broker.create_topic("t", partitions=3)
    with broker.producer("t", name="csv") as producer:
        appended = producer.append_many([(2, encode(b"c")), (0, encode(b"a", b"b")), (1, encode())], sequence=1)
        assert [(each.partition, each.count) for each in appended] == [(2, 1), (0, 2), (1, 0)]
        with pytest.raises(tb.InvalidArgumentError, match="partition 1 is given twice"):
            producer.append_many([(1, b""), (1, b"")], sequence=2)


def test_append_many_reports_what_failed_and_can_be_repeated(broker: tb.Broker) -> None:
    broker.create_topic("t", partitions=2)
    with broker.producer("t", name="csv") as producer:
        with pytest.raises(tb.InvalidArgumentError) as caught:
            producer.append_many([(0, encode(b"a")), (1, b"\x7a\x05no")], sequence=5)
        assert caught.value.code == "invalid.batch"
        first, second = producer.append_many([(0, encode(b"a")), (1, encode(b"b"))], sequence=5)
        assert (first.duplicate, second.duplicate) == (True, False)


def test_records_of_a_delivery_can_be_appended_as_they_are(broker: tb.Broker) -> None:
    broker.create_topic("t", partitions=1)
    broker.create_topic("copy", partitions=1)
    with broker.producer("t") as producer:
        producer.send(b"a", key=b"k", headers={"h": b"1"})
        producer.send(b"b")
    with broker.producer("copy", name="mirror") as mirror:
        page = broker.read("t", 0)
        for records in page:
            mirror.append(records.records, partition=0, sequence=records.end.offset)
    copy = broker.read("copy", 0).ranges[0]
    assert (copy.values, copy.keys, copy.headers) == ([b"a", b"b"], [b"k", None], [{"h": b"1"}, {}])


def test_a_producer_that_appends_refuses_to_send(broker: tb.Broker) -> None:
    broker.create_topic("t", partitions=1)
    with broker.producer("t", name="csv") as producer:
        producer.append(encode(b"a"), partition=0, sequence=1)
        with pytest.raises(tb.InvalidArgumentError, match=r"append\(\) was called"):
            producer.send(b"b")


def test_a_named_producer_goes_on_where_it_was(broker: tb.Broker) -> None:
    broker.create_topic("t", partitions=1)
    for value in (b"a", b"b"):
        with broker.producer("t", name="n") as producer:
            producer.send(value)
    assert broker.read("t", 0).values == [b"a", b"b"]


def test_two_running_producers_of_one_name_are_told_so(broker: tb.Broker) -> None:
    broker.create_topic("t", partitions=1)
    first = broker.producer("t", name="n")
    second = broker.producer("t", name="n")
    first.send(b"a")
    first.flush()
    second.send(b"b")
    with pytest.raises(tb.ConflictError, match="another producer named 'n' is at work"):
        second.flush()
    assert second.failed_records == 1


def test_a_closed_producer_takes_nothing_more(broker: tb.Broker) -> None:
    broker.create_topic("t", partitions=1)
    producer = broker.producer("t")
    producer.send(b"a")
    producer.close()
    producer.close()
    with pytest.raises(tb.ClosedError):
        producer.send(b"b")
    with pytest.raises(tb.ClosedError):
        producer.send_many([b"b"])
    assert broker.read("t", 0).values == [b"a"]


def test_leaving_a_producer_by_an_exception_flushes_too(broker: tb.Broker) -> None:
    broker.create_topic("t", partitions=1)

    def fail() -> None:
        with broker.producer("t", linger=3600) as producer:
            producer.send(b"a")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert broker.read("t", 0).values == [b"a"]


def test_closing_the_broker_flushes_its_producers(engine: Engine) -> None:
    if not engine.restarts:
        pytest.skip("what a closed broker in memory stored cannot be looked at")
    engine.broker.create_topic("t", partitions=1)
    producer = engine.broker.producer("t", linger=3600)
    producer.send(b"a")
    engine.restart()
    assert engine.broker.read("t", 0).values == [b"a"]


def test_what_cannot_be_stored_is_raised_once_and_counted(broker: tb.Broker) -> None:
    broker.create_topic("t", partitions=1)
    producer = broker.producer("t", linger=3600)
    producer.send(b"a")
    broker.delete_topic("t")
    with pytest.raises(tb.NotFoundError, match="t/0: a batch of 1 records was not stored") as caught:
        producer.flush()
    assert caught.value.code == "topic.not_found"
    producer.flush()
    assert (producer.failed_records, producer.stored_records) == (1, 0)


def test_what_cannot_be_stored_is_given_to_on_error(broker: tb.Broker) -> None:
    broker.create_topic("t", partitions=1)
    errors: list[tb.BrokerError] = []
    with broker.producer("t", linger=3600, on_error=errors.append) as producer:
        producer.send(b"a")
        broker.delete_topic("t")
    assert [error.code for error in errors] == ["topic.not_found"]
    assert producer.failed_records == 1


def test_several_threads_share_one_producer(broker: tb.Broker) -> None:
    broker.create_topic("t", partitions=2)
    with broker.producer("t", batch_bytes=2000) as producer:

        def work(name: int) -> None:
            for number in range(2000):
                producer.send(b"%d" % number, key=b"%d" % name)
            producer.flush()

        threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(TIMEOUT)
    numbers: dict[bytes, list[int]] = {}
    for partition in range(2):
        for records in broker.read("t", partition, max_records=65_536):
            for key, value in zip(records.keys, records.values, strict=True):
                assert key is not None
                numbers.setdefault(key, []).append(int(value))
    assert numbers == {b"%d" % name: list(range(2000)) for name in range(4)}


@pytest.mark.parametrize(
    "wrong",
    [
        {"partition": -1},
        {"partition": 2},
        {"timestamp_ns": 1 << 63},
        {"headers": {"": b"x"}},
        {"headers": {f"h{number}": b"" for number in range(65)}},
    ],
)
def test_a_record_that_is_out_of_bounds_is_refused_and_the_others_are_stored(
    broker: tb.Broker, wrong: dict[str, Any]
) -> None:
    broker.create_topic("t", partitions=2)
    with broker.producer("t") as producer:
        producer.send(b"before", partition=0)
        with pytest.raises(tb.InvalidArgumentError):
            producer.send(b"wrong", **wrong)
        producer.send(b"after", partition=0)
    assert broker.read("t", 0).values == [b"before", b"after"]


def test_without_a_linger_every_record_leaves_by_itself(broker: tb.Broker) -> None:
    broker.create_topic("u", partitions=3)
    with broker.producer("u", linger=0) as producer, broker.consumer("u", "g") as consumer:
        for number in range(300):
            producer.send(b"%d" % number, partition=number % 3)
        producer.send_many([b"%d" % number for number in range(300, 400)])
        seen: list[int] = []
        while len(seen) < 400:
            batch = consumer.receive(wait=TIMEOUT)
            assert batch, f"{400 - len(seen)} records did not leave"
            seen += map(int, batch.values)
            batch.ack()
        assert sorted(seen) == list(range(400))
