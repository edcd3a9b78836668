"""What is leased is withheld; what is acked is done; what is not comes back. Groups do not see each other."""

import threading

import pytest

import telemetry_broker as tb
from tests.integration.contract.engines import TIMEOUT, Engine


@pytest.fixture(autouse=True)
def ten_records(broker: tb.Broker) -> None:
    """A topic of one partition with the values 0 to 9."""
    broker.create_topic("t", partitions=1)
    with broker.producer("t") as producer:
        producer.send_many([b"%d" % number for number in range(10)])


def test_leased_records_are_not_given_to_others_and_acked_ones_never_again(broker: tb.Broker) -> None:
    with broker.consumer("t", "g") as first, broker.consumer("t", "g") as second:
        batch = first.receive(max_records=6)
        assert second.receive().values == [b"6", b"7", b"8", b"9"]
        assert batch.ack() == 6
        assert batch.ack() == 0  # repeating it is fine
    state = broker.describe_group("t", "g")
    assert state.partitions[0].acked_end_offset == 6
    assert state.lag == 4


def test_groups_do_not_see_each_others_acks(broker: tb.Broker) -> None:
    for group in ("a", "b"):
        with broker.consumer("t", group) as consumer:
            batch = consumer.receive()
            assert len(batch) == 10
            batch.ack()
    assert [group.name for group in broker.groups("t")] == ["a", "b"]


def test_nacked_records_come_again_at_once_with_a_higher_attempt(broker: tb.Broker) -> None:
    with broker.consumer("t", "g") as consumer:
        batch = consumer.receive()
        assert batch.nack(offsets=[2, 3]) == 2
        again = consumer.receive()
        assert (again.offsets, again.attempt, again.values) == (range(2, 4), 2, [b"2", b"3"])
        assert batch.ack(offsets=[0, 1, *range(4, 10)]) == 8
        assert again.ack() == 2
        assert not consumer.receive()


def test_without_offsets_the_rest_is_meant_and_what_was_given_back_stays_so(broker: tb.Broker) -> None:
    with broker.consumer("t", "g") as consumer:
        batch = consumer.receive()
        assert batch.nack(delay=600, offsets=[2, 3]) == 2
        assert batch.nack(offsets=[9]) == 1
        assert consumer.ack([batch]) == 7
        assert (batch.ack(), batch.nack()) == (0, 0)
        assert consumer.receive().offsets == range(9, 10)
        assert not consumer.receive()
        assert batch.ack(offsets=[2, 3]) == 2  # unless it is meant by name


def test_a_nack_with_a_delay_withholds_the_records_for_so_long(engine: Engine, broker: tb.Broker) -> None:
    with broker.consumer("t", "g") as consumer:
        consumer.receive().nack(delay=engine.lease)
        if engine.clock is not None:
            assert not consumer.receive()
        engine.end_leases()
        assert len(consumer.receive(wait=TIMEOUT)) == 10


def test_what_is_not_acked_within_the_visibility_timeout_comes_again(engine: Engine, broker: tb.Broker) -> None:
    with broker.consumer("t", "g", visibility_timeout=engine.lease) as consumer:
        batch = consumer.receive()
        assert batch.visibility_timeout == engine.lease
        batch.ack(offsets=range(5))
        if engine.clock is not None:
            engine.clock.advance(engine.lease - 0.001)
            assert not consumer.receive()
            engine.clock.advance(0.001)
        again = consumer.receive(wait=TIMEOUT)
        assert (again.offsets, again.attempt) == (range(5, 10), 2)
        again.ack()


def test_a_waiting_consumer_wakes_when_a_lease_ends(engine: Engine, broker: tb.Broker) -> None:
    with (
        broker.consumer("t", "g", visibility_timeout=engine.lease) as holder,
        broker.consumer("t", "g") as waiting,
    ):
        assert len(holder.receive()) == 10
        received: list[tb.Batch] = []
        thread = threading.Thread(target=lambda: received.append(waiting.receive(wait=TIMEOUT)))
        thread.start()
        engine.end_leases()
        thread.join(TIMEOUT)
        assert len(received[0]) == 10


def test_extend_starts_the_timeout_anew(engine: Engine, broker: tb.Broker) -> None:
    if engine.clock is None:
        pytest.skip("needs a clock that the test moves: a wait that must not end in time proves nothing")
    with broker.consumer("t", "g", visibility_timeout=10) as consumer:
        batch = consumer.receive()
        engine.clock.advance(9)
        batch.extend()
        engine.clock.advance(9)
        assert not consumer.receive()
        batch.extend(100)
        assert batch.visibility_timeout == 100
        engine.clock.advance(99)
        assert not consumer.receive()
        engine.clock.advance(1)
        assert consumer.receive().attempt == 2


def test_extend_of_a_lease_whose_records_were_given_away_is_refused(engine: Engine, broker: tb.Broker) -> None:
    with broker.consumer("t", "g", visibility_timeout=engine.lease) as consumer:
        batch = consumer.receive()
        engine.end_leases()
        assert consumer.receive(wait=TIMEOUT).attempt == 2
        with pytest.raises(tb.StaleLeaseError):
            batch.extend()


def test_a_late_ack_counts_while_nobody_else_has_the_records(engine: Engine, broker: tb.Broker) -> None:
    if engine.clock is None:
        pytest.skip("needs a clock that the test moves")
    with broker.consumer("t", "g", visibility_timeout=engine.lease) as consumer:
        batch = consumer.receive()
        engine.end_leases()
        assert batch.ack() == 10
        assert not consumer.receive()


def test_a_late_ack_is_refused_for_what_others_were_given_and_done_for_the_rest(
    engine: Engine, broker: tb.Broker
) -> None:
    with broker.consumer("t", "g", visibility_timeout=engine.lease) as consumer:
        batch = consumer.receive()
        engine.end_leases()
        again = consumer.receive(max_records=4, wait=TIMEOUT)
        assert again.offsets == range(4)
        with pytest.raises(tb.StaleLeaseError, match="t/0 offsets 0 to 3") as caught:
            batch.ack()
        assert caught.value.code == "lease.stale"
        assert again.ack() == 4
        assert broker.describe_group("t", "g").lag == 0


def test_ack_of_an_offset_outside_the_batch_is_refused(broker: tb.Broker) -> None:
    with broker.consumer("t", "g") as consumer:
        batch = consumer.receive(max_records=4)
        with pytest.raises(tb.InvalidArgumentError, match="offset 4 is not in this batch, which holds 0 to 3"):
            batch.ack(offsets=[4])


def test_several_batches_are_acked_at_once(broker: tb.Broker) -> None:
    with broker.consumer("t", "g", max_records=3) as consumer:
        batches = [consumer.receive() for _ in range(4)]
        assert consumer.ack(batches) == 10
    assert broker.describe_group("t", "g").lag == 0


def test_leaving_the_consumer_gives_back_what_is_open(broker: tb.Broker) -> None:
    with broker.consumer("t", "g") as consumer:
        consumer.receive(max_records=5).ack(offsets=[0, 1])
        consumer.receive()
    with broker.consumer("t", "g") as consumer:
        values: list[bytes] = []
        while batch := consumer.receive():
            values += batch.values
            batch.ack()
    assert sorted(values) == [b"2", b"3", b"4", b"5", b"6", b"7", b"8", b"9"]


def test_leaving_a_consumer_by_an_exception_gives_back_too(broker: tb.Broker) -> None:
    def fail() -> None:
        with broker.consumer("t", "g", visibility_timeout=600) as consumer:
            for _ in consumer:
                raise KeyError

    with pytest.raises(KeyError):
        fail()
    with broker.consumer("t", "g") as consumer:
        assert (len(consumer.receive()), consumer.closed) == (10, False)


def test_records_taken_ahead_are_given_back_too(broker: tb.Broker) -> None:
    broker.create_topic("u", partitions=2)
    with broker.producer("u") as producer:
        producer.send_many([b"%d" % number for number in range(5000)], [b"%d" % number for number in range(5000)])
    acked: list[bytes] = []
    with broker.consumer("u", "g", max_records=50) as consumer:
        for batch in consumer:
            if len(acked) >= 1000:
                break
            acked += batch.values
            batch.ack()
    left: list[bytes] = []
    with broker.consumer("u", "g") as consumer:
        while batch := consumer.receive():
            left += batch.values
            batch.ack()
    assert sorted(map(int, acked + left)) == list(range(5000))


def test_closing_a_consumer_ends_its_wait(broker: tb.Broker) -> None:
    consumer = broker.consumer("t", "g", mode="shared")
    consumer.receive().ack()
    seen: list[tb.Batch] = []
    started = threading.Event()

    def iterate() -> None:
        started.set()
        seen.extend(consumer)

    thread = threading.Thread(target=iterate)
    thread.start()
    started.wait(TIMEOUT)
    consumer.close()
    thread.join(TIMEOUT)
    assert not thread.is_alive()
    assert seen == []
    with pytest.raises(tb.ClosedError):
        consumer.receive()


def test_several_threads_share_one_consumer_without_loss_or_repetition(broker: tb.Broker) -> None:
    values: list[bytes] = []
    lock = threading.Lock()
    consumer = broker.consumer("t", "g", max_records=7)

    def work() -> None:
        for batch in consumer:
            batch.ack()
            with lock:
                values.extend(batch.values)
                done = len(values) == 2010
            if done:
                consumer.close()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    with broker.producer("t", linger=0.001) as producer:
        for number in range(10, 2010):
            producer.send(b"%d" % number)
    for thread in threads:
        thread.join(TIMEOUT)
    assert sorted(map(int, values)) == list(range(2010))


def test_after_max_attempts_a_record_goes_to_the_dead_letter_topic(broker: tb.Broker) -> None:
    broker.create_topic("u", partitions=1, max_attempts=2)
    with broker.producer("u") as producer:
        producer.send(b"poison", key=b"k")
    with broker.consumer("u", "g") as consumer:
        consumer.receive().nack()
        consumer.receive().nack()
        assert not consumer.receive()
    with broker.consumer("u.dlq", "g") as consumer:
        batch = consumer.receive(wait=TIMEOUT)
        assert (batch.values, batch.keys) == ([b"poison"], [b"k"])


def test_a_record_can_be_sent_to_the_dead_letter_topic_with_a_reason(broker: tb.Broker) -> None:
    with broker.consumer("t", "g") as consumer:
        batch = consumer.receive()
        assert batch.nack(offsets=[4], dead_letter=True, reason="not a number") == 1
        batch.ack(offsets=[0, 1, 2, 3, 5, 6, 7, 8, 9])
        assert not consumer.receive()
    page = broker.read("t.dlq", 0)
    assert page.values == [b"4"]
    assert b"not a number" in bytes(page.ranges[0].records)


def test_seek_moves_a_group_and_ends_its_leases(broker: tb.Broker) -> None:
    with broker.consumer("t", "g") as consumer:
        batch = consumer.receive()
        batch.ack(offsets=range(5))
        moved = broker.seek("t", "g", 2)
        assert [state.acked_end_offset for state in moved] == [2]
        with pytest.raises(tb.StaleLeaseError):
            batch.ack()
        assert consumer.receive().offsets == range(2, 10)
        broker.seek("t", "g", tb.END)
        assert not consumer.receive()
        broker.seek("t", "g", tb.START, partitions=[0])
        assert consumer.receive().offsets == range(10)


def test_a_group_begins_where_it_was_made_to(broker: tb.Broker) -> None:
    assert broker.create_group("t", "late", start=tb.END) == tb.Group("late", "shared")
    broker.create_group("t", "middle", start=7)
    with broker.consumer("t", "late") as late, broker.consumer("t", "middle") as middle:
        assert not late.receive()
        assert middle.receive().offsets == range(7, 10)


def test_a_deleted_group_begins_anew(broker: tb.Broker) -> None:
    with broker.consumer("t", "g") as consumer:
        consumer.receive().ack()
    broker.delete_group("t", "g")
    assert broker.groups("t") == []
    with broker.consumer("t", "g") as consumer:
        assert len(consumer.receive()) == 10


def test_partitions_can_be_chosen(broker: tb.Broker) -> None:
    broker.create_topic("u", partitions=3)
    with broker.producer("u") as producer:
        for partition in range(3):
            producer.send(b"%d" % partition, partition=partition)
    with broker.consumer("u", "g", partitions=[1]) as consumer:
        assert consumer.receive().values == [b"1"]
        assert not consumer.receive()


# Ordered groups


def test_an_ordered_partition_has_one_holder_and_keeps_the_order(broker: tb.Broker) -> None:
    with (
        broker.consumer("t", "o", mode="ordered", max_records=4) as holder,
        broker.consumer("t", "o", mode="ordered") as other,
    ):
        first = holder.receive()
        assert first.offsets == range(4)
        assert not other.receive()
        assert broker.describe_group("t", "o").partitions[0].holder == holder.name
        second = holder.receive()
        assert second.offsets == range(4, 8)
        assert second.ack() == 8  # cumulative


def test_a_nack_in_an_ordered_group_rewinds(broker: tb.Broker) -> None:
    with broker.consumer("t", "o", mode="ordered") as consumer:
        batch = consumer.receive()
        batch.nack(offsets=[3])
        assert batch.ack() == 3  # the rest, which is what comes before
        assert consumer.receive().offsets == range(3, 10)


def test_a_dead_letter_of_an_ordered_group_is_done_with_and_the_rest_is_acked(broker: tb.Broker) -> None:
    with broker.consumer("t", "o", mode="ordered") as consumer:
        batch = consumer.receive()
        batch.nack(offsets=[3], dead_letter=True, reason="not a number")
        batch.ack()
        assert broker.describe_group("t", "o").lag == 0
        assert not consumer.receive()
    assert broker.read("t.dlq", 0).values == [b"3"]


def test_an_ordered_hold_moves_when_its_holder_leaves(broker: tb.Broker) -> None:
    with broker.consumer("t", "o", mode="ordered", max_records=4) as leaving:
        leaving.receive().ack()
        leaving.receive()
    with broker.consumer("t", "o", mode="ordered") as next_:
        assert next_.receive(wait=TIMEOUT).base_offset == 4


def test_an_ordered_lease_that_ends_rewinds(engine: Engine, broker: tb.Broker) -> None:
    with broker.consumer("t", "o", mode="ordered", visibility_timeout=engine.lease) as gone:
        assert len(gone.receive()) == 10
        engine.end_leases()
        with broker.consumer("t", "o", mode="ordered") as other:
            assert other.receive(wait=TIMEOUT).offsets == range(10)


def test_a_group_keeps_its_mode(broker: tb.Broker) -> None:
    broker.create_group("t", "o", mode="ordered")
    with broker.consumer("t", "o", mode="shared") as consumer, pytest.raises(tb.ConflictError) as caught:
        consumer.receive()
    assert caught.value.code == "group.mode"
    with pytest.raises(tb.ConflictError) as caught:
        broker.create_group("t", "o", mode="shared")
    assert caught.value.code == "group.exists"


# Moving and looking


def test_a_consumer_moves_its_group_also_before_its_first_receive(broker: tb.Broker) -> None:
    with broker.consumer("t", "g") as consumer:
        assert [state.acked_end_offset for state in consumer.seek(7)] == [7]
        assert consumer.receive().offsets == range(7, 10)
        consumer.seek(tb.START)
        batch = consumer.receive()
        assert batch.offsets == range(10)
        consumer.seek(tb.END)
        assert not consumer.receive()
        with pytest.raises(tb.StaleLeaseError):
            batch.ack()
        consumer.seek(tb.AtTime(batch.append_times_ns[0]))
        assert consumer.receive().base_offset == 0


def test_a_consumer_moves_its_own_partitions(broker: tb.Broker) -> None:
    broker.create_topic("u", partitions=3)
    with broker.consumer("u", "g", partitions=[1, 2]) as consumer:
        assert [state.partition for state in consumer.seek(tb.START)] == [1, 2]
        assert [state.partition for state in consumer.seek(tb.START, partitions=[0])] == [0]


def test_what_was_taken_ahead_does_not_come_after_a_seek(broker: tb.Broker) -> None:
    broker.create_topic("u", partitions=1)
    with broker.producer("u") as producer:
        producer.send_many([b"%d" % number for number in range(3000)])
    with broker.consumer("u", "g", max_records=50, idle_timeout=0.2) as consumer:
        for batch in consumer:
            batch.ack()
            if batch.base_offset == 1000:
                break
        consumer.seek(2500)
        offsets: list[int] = []
        for batch in consumer:
            offsets += batch.offsets
            batch.ack()
    assert offsets == list(range(2500, 3000))


def test_peeking_leases_nothing_and_makes_no_group(broker: tb.Broker) -> None:
    with broker.consumer("t", "g") as consumer, broker.consumer("t", "g") as other:
        (records,) = consumer.peek(3)
        assert (records.values, records.offsets) == ([b"0", b"1", b"2"], range(3))
        assert broker.groups("t") == []
        batch = other.receive(max_records=4)
        assert batch.attempt == 1
        assert [list(records.offsets) for records in consumer.peek(5)] == [[0, 1, 2, 3, 4]]  # leased ones too
        batch.ack()
        assert [list(records.offsets) for records in consumer.peek(2)] == [[4, 5]]
        other.receive().ack()
        assert consumer.peek() == []


def test_peeking_goes_from_partition_to_partition(broker: tb.Broker) -> None:
    broker.create_topic("u", partitions=3)
    with broker.producer("u") as producer:
        for partition in range(3):
            producer.send(b"%d" % partition, partition=partition)
    with broker.consumer("u", "g") as consumer, broker.consumer("u", "g", partitions=[1]) as one:
        assert [records.values for records in consumer.peek(2)] == [[b"0"], [b"1"]]
        assert [records.values for records in one.peek()] == [[b"1"]]
        with pytest.raises(tb.InvalidArgumentError):
            consumer.peek(0)
