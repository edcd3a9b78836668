"""Records go in, and come out as they were, where they belong, in order."""

import gc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

import telemetry_broker as tb
from tests.integration.contract.engines import TIMEOUT


def send(broker: tb.Broker, topic: str, *values: bytes, partition: int | None = None) -> None:
    with broker.producer(topic) as producer:
        for value in values:
            producer.send(value, partition=partition)


def receive_all(broker: tb.Broker, topic: str, group: str = "g") -> list[bytes]:
    """Receives and acks until there is nothing more."""
    values: list[bytes] = []
    with broker.consumer(topic, group) as consumer:
        while batch := consumer.receive():
            values += batch.values
            batch.ack()
    return values


def test_what_was_sent_is_received_with_key_headers_and_times(broker: tb.Broker) -> None:
    broker.create_topic("t", partitions=1)
    with broker.producer("t") as producer:
        producer.send(b"one", key=b"k", timestamp_ns=1_700_000_000_000_000_001, headers={"unit": b"W", "empty": b""})
        producer.send(bytearray(b""))
        producer.send(memoryview(b"three"), key=b"")
    with broker.consumer("t", "g") as consumer:
        batch = consumer.receive(wait=TIMEOUT)
        assert batch
        assert (batch.topic, batch.partition, batch.base_offset, batch.offsets) == ("t", 0, 0, range(3))
        assert batch.values == [b"one", b"", b"three"]
        assert batch.keys == [b"k", None, b""]
        assert batch.headers == [{"unit": b"W", "empty": b""}, {}, {}]
        assert batch.timestamps_ns == [1_700_000_000_000_000_001, 0, 0]
        assert len(batch.append_times_ns) == 3
        assert all(time_ns > 0 for time_ns in batch.append_times_ns)
        assert batch.attempt == 1
        assert len(batch.log_id) == 16
        assert batch.end == tb.Offset(batch.log_id, 3)
        assert bytes(batch.records).count(b"\x7a") >= 3
        assert batch.ack() == 3


def test_views_are_the_delivered_bytes_themselves_and_outlive_their_batch(broker: tb.Broker) -> None:
    broker.create_topic("t", partitions=1)
    values = [b"one", b"", bytes(100_000)]
    with broker.producer("t") as producer:
        for value, key in zip(values, [b"k", None, b""], strict=True):
            producer.send(value, key=key)
    with broker.consumer("t", "g") as consumer:
        batch = consumer.receive(wait=TIMEOUT)
        views, keys = batch.value_views, batch.key_views
        assert all(view.readonly and view.obj is batch.records.obj for view in views)
        batch.ack()
    broker.delete_topic("t")
    del batch
    gc.collect()
    assert [bytes(view) for view in views] == values
    assert [None if key is None else bytes(key) for key in keys] == [b"k", None, b""]


def test_receive_gives_an_empty_batch_when_there_is_nothing(broker: tb.Broker) -> None:
    broker.create_topic("t")
    with broker.consumer("t", "g") as consumer:
        batch = consumer.receive()
        assert not batch
        assert len(batch) == 0
        assert batch.values == batch.value_views == batch.key_views == []
        assert batch.ack() == 0
        assert batch.nack() == 0


def test_receive_never_gives_more_than_max_records(broker: tb.Broker) -> None:
    broker.create_topic("t", partitions=1)
    send(broker, "t", *(b"%d" % number for number in range(10)))
    with broker.consumer("t", "g") as consumer:
        first, second = consumer.receive(max_records=4), consumer.receive(max_records=4)
        assert (first.offsets, second.offsets) == (range(4), range(4, 8))


def test_receive_stays_below_max_bytes_but_gives_one_larger_record(broker: tb.Broker) -> None:
    broker.create_topic("t", partitions=1)
    send(broker, "t", b"x" * 5000, b"y" * 400, b"z" * 400, b"w" * 400)
    with broker.consumer("t", "g", max_bytes=1000) as consumer:
        assert [len(consumer.receive()) for _ in range(3)] == [1, 2, 1]


def test_iterating_ends_after_idle_timeout(broker: tb.Broker) -> None:
    broker.create_topic("t", partitions=2)
    send(broker, "t", *(b"%d" % number for number in range(1000)))
    values: list[bytes] = []
    with broker.consumer("t", "g", max_records=100, idle_timeout=0.1) as consumer:
        for batch in consumer:
            values += batch.values
            batch.ack()
    assert sorted(values) == sorted(b"%d" % number for number in range(1000))


def test_without_a_partition_a_record_goes_where_its_key_says(broker: tb.Broker) -> None:
    broker.create_topic("t", partitions=4)
    keys = [f"GPU-{number}".encode() for number in range(100)]
    with broker.producer("t") as producer:
        for round_ in range(3):
            for gpu in keys:
                producer.send(b"%d" % round_, key=gpu)
    for partition in range(4):
        page = broker.read("t", partition, max_records=1000)
        rounds: dict[bytes, list[bytes]] = {}
        for records in page:
            for key, value in zip(records.keys, records.values, strict=True):
                assert key is not None
                assert tb.partition_for_key(key, 4) == partition
                rounds.setdefault(key, []).append(value)
        assert all(values == [b"0", b"1", b"2"] for values in rounds.values())


def test_records_without_a_key_go_round_all_partitions(broker: tb.Broker) -> None:
    broker.create_topic("t", partitions=3)
    with broker.producer("t") as producer:
        for number in range(6):
            producer.send(b"%d" % number)
            producer.flush()
    ends = [state.end_offset for state in broker.describe_topic("t").partitions]
    assert sum(ends) == 6
    assert all(ends)


def test_send_many_is_send_for_each(broker: tb.Broker) -> None:
    broker.create_topic("t", partitions=4)
    values = [b"%d" % number for number in range(20_000)]
    with broker.producer("t", batch_bytes=10_000) as producer:
        producer.send_many(values, [b"k%d" % (number % 7) for number in range(20_000)])
        producer.send_many([])
    received: dict[bytes, list[int]] = {}
    with broker.consumer("t", "g") as consumer:
        while batch := consumer.receive():
            for key, value in zip(batch.keys, batch.values, strict=True):
                assert key is not None
                received.setdefault(key, []).append(int(value))
            batch.ack()
    assert sorted(number for numbers in received.values() for number in numbers) == list(range(20_000))
    assert all(numbers == sorted(numbers) for numbers in received.values())


@pytest.mark.parametrize("keyed", [False, True])
def test_send_many_gives_its_headers_to_each_record(broker: tb.Broker, keyed: bool) -> None:
    broker.create_topic("t", partitions=4)
    values = [b"%d" % number for number in range(5000)]
    keys = [b"k%d" % (number % 7) for number in range(5000)] if keyed else None
    with broker.producer("t", batch_bytes=10_000) as producer:
        producer.send_many(values, keys, headers={"unit": b"W"})
        producer.send_many([], headers={"unit": b"W"})
        with pytest.raises(tb.InvalidArgumentError, match="header name"):
            producer.send_many([b"refused"], headers={"": b""})
    received: list[bytes] = []
    with broker.consumer("t", "g") as consumer:
        while batch := consumer.receive():
            assert batch.headers == [{"unit": b"W"}] * len(batch)
            assert all((key is not None) == keyed for key in batch.keys)
            received += batch.values
            batch.ack()
    assert sorted(received) == sorted(values)


def test_send_many_with_headers_sends_what_is_more_than_a_batch_can_hold(broker: tb.Broker) -> None:
    broker.create_topic("t", partitions=1)
    values = [bytes([number]) * 600_000 for number in range(20)]
    with broker.producer("t") as producer:
        producer.send_many(values, headers={"unit": b"W"})
    assert receive_all(broker, "t") == values


def test_send_many_wants_a_key_for_each_value(broker: tb.Broker) -> None:
    broker.create_topic("t")
    with broker.producer("t") as producer, pytest.raises(tb.InvalidArgumentError, match="2 values and 1 keys"):
        producer.send_many([b"a", b"b"], [b"k"])


def test_order_within_a_partition_is_the_order_of_sending_over_many_batches(broker: tb.Broker) -> None:
    broker.create_topic("t", partitions=1)
    with broker.producer("t", batch_bytes=1000) as producer:
        for number in range(5000):
            producer.send(b"%05d" % number)
    values = receive_all(broker, "t")
    assert values == [b"%05d" % number for number in range(5000)]


def test_a_record_of_nearly_a_mebibyte_goes_through_and_a_larger_one_is_refused(broker: tb.Broker) -> None:
    broker.create_topic("t", partitions=1)
    largest = b"x" * (1024 * 1024 - 64)
    with broker.producer("t") as producer:
        with pytest.raises(tb.InvalidArgumentError):
            producer.send(b"x" * (1024 * 1024 + 1))
        producer.send(largest)
    assert receive_all(broker, "t") == [largest]


def test_flush_returns_when_the_records_are_there(broker: tb.Broker) -> None:
    broker.create_topic("t", partitions=2)
    with broker.producer("t", linger=3600) as producer:
        producer.send(b"a", partition=0)
        producer.send(b"b", partition=1)
        producer.flush()
        assert [broker.read("t", partition).values for partition in range(2)] == [[b"a"], [b"b"]]


def test_records_leave_by_themselves_after_linger(broker: tb.Broker) -> None:
    broker.create_topic("t")
    with broker.producer("t", linger=0.001) as producer, broker.consumer("t", "g") as consumer:
        for number in range(3):
            producer.send(b"%d" % number)
            assert consumer.receive(wait=TIMEOUT).values == [b"%d" % number]


def test_reading_pages_through_a_partition_without_a_group(broker: tb.Broker) -> None:
    broker.create_topic("t", partitions=1)
    assert not broker.read("t", 0)
    send(broker, "t", *(b"%d" % number for number in range(10)))
    page = broker.read("t", 0, max_records=4)
    assert (page.values, page.offsets) == ([b"0", b"1", b"2", b"3"], [0, 1, 2, 3])
    page = broker.read("t", 0, page.next)
    assert page.offsets == [4, 5, 6, 7, 8, 9]
    end = broker.read("t", 0, page.next)
    assert not end
    assert end.next == page.next
    assert broker.read("t", 0, 7).offsets == [7, 8, 9]
    assert not broker.read("t", 0, tb.END)
    assert broker.groups("t") == []


def test_reading_begins_at_a_time(broker: tb.Broker) -> None:
    broker.create_topic("t", partitions=1)
    send(broker, "t", b"a", b"b")
    appended_ns = broker.read("t", 0).ranges[0].append_times_ns[0]
    assert broker.read("t", 0, tb.AtTime(appended_ns)).values == [b"a", b"b"]
    assert not broker.read("t", 0, tb.at_time(appended_ns / 1e9 + 60))


def test_a_position_of_another_log_is_refused(broker: tb.Broker) -> None:
    broker.create_topic("t", partitions=1)
    with pytest.raises(tb.NotFoundError) as caught:
        broker.read("t", 0, tb.Offset(bytes(16), 0))
    assert caught.value.code == "position.log_id"


def test_a_position_behind_the_end_is_refused_and_one_below_the_start_begins_there(broker: tb.Broker) -> None:
    broker.create_topic("t", partitions=1)
    send(broker, "t", b"a", b"b")
    broker.purge_topic("t")
    send(broker, "t", b"c")
    broker.create_group("t", "g")
    calls: list[Callable[[tb.Position], object]] = [
        lambda position: broker.read("t", 0, position),
        lambda position: broker.seek("t", "g", position),
        lambda position: broker.create_group("t", "new", start=position),
    ]
    log_id = broker.describe_topic("t").partitions[0].log_id
    for call in calls:
        for position in (4, tb.Offset(log_id, 4)):
            with pytest.raises(tb.InvalidArgumentError) as caught:
                call(position)
            assert str(caught.value) == (
                "position.out_of_range: t/0 goes from offset 2 to 3, it has no 4: give an offset up to 3, a time, "
                "or an edge (start, end)"
            )
    assert [group.name for group in broker.groups("t")] == ["g"]
    assert broker.read("t", 0, 0).values == [b"c"]
    assert broker.seek("t", "g", 0)[0].acked_end_offset == 2
    assert not broker.read("t", 0, 3)


def test_every_durability_stores_and_gives_records(broker: tb.Broker) -> None:
    for durability in ("memory", "os", "fsync"):
        topic = broker.create_topic(f"t-{durability}", partitions=1, durability=durability)
        assert topic.config.durability == durability
        send(broker, topic.name, b"a", b"b")
        assert receive_all(broker, topic.name) == [b"a", b"b"]


def test_a_read_waits_for_the_first_record_behind_its_start(broker: tb.Broker) -> None:
    broker.create_topic("t", partitions=1)
    send(broker, "t", b"before")
    assert not broker.read("t", 0, tb.END, wait=0.01)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(broker.read, "t", 0, tb.END, wait=20)
        while not waiting.done():  # the read may begin before or behind any of them
            send(broker, "t", b"after")
        assert waiting.result().values[0] == b"after"


def test_a_read_gives_at_once_what_is_there_however_long_it_may_wait(broker: tb.Broker) -> None:
    broker.create_topic("t", partitions=1)
    send(broker, "t", b"a")
    assert broker.read("t", 0, wait=20).values == [b"a"]
    with pytest.raises(tb.InvalidArgumentError, match=r"read's wait is 21 s; give 0 to 20 s"):
        broker.read("t", 0, wait=21)
