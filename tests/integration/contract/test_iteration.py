"""Iterating a consumer: what comes ahead is bounded, and stops coming when the iteration stops."""

import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

import telemetry_broker as tb
from tests.integration.contract.engines import TIMEOUT, BrokerProcess, Engine
from tests.integration.contract.portal import Connect

RECORDS = 2000


@pytest.fixture
def topic(broker: tb.Broker) -> str:
    """A topic of one partition with the values 0 to 1999."""
    broker.create_topic("t", partitions=1)
    fill(broker, range(RECORDS))
    return "t"


def fill(broker: tb.Broker, numbers: range) -> None:
    with broker.producer("t") as producer:
        producer.send_many([b"%d" % number for number in numbers])


def numbers(batches: Iterable[tb.Batch]) -> list[int]:
    """Acks the batches and returns their values."""
    found: list[int] = []
    for batch in batches:
        found += map(int, batch.values)
        batch.ack()
    return found


def drain(consumer: tb.Consumer) -> list[int]:
    """All that the consumer can get without waiting."""
    return numbers(_received(consumer))


def _received(consumer: tb.Consumer) -> Iterator[tb.Batch]:
    while batch := consumer.receive():
        yield batch


def test_after_a_break_the_next_receives_get_everything_else_once(broker: tb.Broker, topic: str) -> None:
    with broker.consumer(topic, "g", max_records=50) as consumer:
        seen: list[int] = []
        for batch in consumer:
            seen += map(int, batch.values)
            batch.ack()
            if len(seen) >= 500:
                break
        seen += drain(consumer)
        assert sorted(seen) == list(range(RECORDS))
        assert broker.describe_group(topic, "g").partitions[0].in_flight == 0


def test_after_a_break_a_second_iteration_goes_on(broker: tb.Broker, topic: str) -> None:
    with broker.consumer(topic, "g", max_records=50, idle_timeout=0.05) as consumer:
        seen: list[int] = []
        for _ in range(5):
            for batch in consumer:
                seen += map(int, batch.values)
                batch.ack()
                break
        seen += numbers(consumer)
        assert sorted(seen) == list(range(RECORDS))


def divide_by_zero(consumer: tb.Consumer) -> None:
    for batch in consumer:
        _ = batch.ack() / 0


def test_what_comes_after_a_break_goes_to_who_asks(broker: tb.Broker) -> None:
    broker.create_topic("t", partitions=1)
    fill(broker, range(10))
    with broker.consumer("t", "g") as first, broker.consumer("t", "g") as second:
        for batch in first:
            batch.ack()
            break
        assert not first.receive()
        fill(broker, range(10, 20))
        assert numbers([second.receive(wait=TIMEOUT)]) == list(range(10, 20))


def test_an_exception_ends_an_iteration_like_a_break(broker: tb.Broker) -> None:
    broker.create_topic("t", partitions=1)
    fill(broker, range(10))
    with broker.consumer("t", "g") as first, broker.consumer("t", "g") as second:
        with pytest.raises(ZeroDivisionError):
            divide_by_zero(first)
        assert not first.receive()
        fill(broker, range(10, 20))
        assert numbers([second.receive(wait=TIMEOUT)]) == list(range(10, 20))


def test_what_is_open_survives_the_end_of_its_iteration(broker: tb.Broker, topic: str) -> None:
    with broker.consumer(topic, "g") as consumer:
        kept = next(iter(consumer))
        seen = drain(consumer)
        assert set(seen).isdisjoint(map(int, kept.values))
        assert kept.attempt == 1
        assert kept.ack() == len(kept)


def test_an_idle_iteration_leaves_nothing_leased(broker: tb.Broker, topic: str) -> None:
    with broker.consumer(topic, "g", idle_timeout=0.05) as consumer:
        assert sorted(numbers(consumer)) == list(range(RECORDS))
        fill(broker, range(RECORDS, RECORDS + 10))
        assert broker.describe_group(topic, "g").partitions[0].in_flight == 0
        with broker.consumer(topic, "g") as second:
            assert drain(second) == list(range(RECORDS, RECORDS + 10))


def test_an_iteration_that_never_waits_takes_what_is_there(broker: tb.Broker, topic: str) -> None:
    with broker.consumer(topic, "g", max_records=300, idle_timeout=0) as consumer:
        assert sorted(numbers(consumer)) == list(range(RECORDS))


def test_a_slow_handler_takes_nothing_ahead(broker: tb.Broker, topic: str) -> None:
    with (
        broker.consumer(topic, "g", max_records=10, visibility_timeout=0.001) as slow,
        broker.consumer(topic, "g", max_records=RECORDS) as second,
    ):
        # A tenth of a lease of a millisecond: no handler is as fast as that.
        batches = iter(slow)
        first = next(batches)
        seen = set(map(int, first.values))
        while len(seen) < RECORDS:
            batch = second.receive(wait=TIMEOUT)
            assert batch, f"{RECORDS - len(seen)} records were withheld"
            seen |= set(map(int, batch.values))
            batch.ack()


def test_closing_while_iterating_gives_back_what_came_ahead(broker: tb.Broker, topic: str) -> None:
    consumer = broker.consumer(topic, "g", max_records=20)
    seen: list[int] = []
    for batch in consumer:
        seen += map(int, batch.values)
        batch.ack()
        if len(seen) >= 500:
            consumer.close()
    with broker.consumer(topic, "g") as second:
        seen += drain(second)
    assert sorted(seen) == list(range(RECORDS))


def test_closing_without_giving_back_keeps_the_leases(broker: tb.Broker, topic: str) -> None:
    consumer = broker.consumer(topic, "g", max_records=RECORDS, visibility_timeout=600)
    assert len(next(iter(consumer))) == RECORDS
    consumer.close(give_back=False)
    assert broker.describe_group(topic, "g").partitions[0].in_flight == RECORDS


def test_an_error_ends_an_iteration(broker: tb.Broker) -> None:
    with broker.consumer("nowhere", "g") as consumer:
        for _ in range(2):
            with pytest.raises(tb.NotFoundError):
                next(iter(consumer))


def test_an_iteration_meets_the_groups_mode(broker: tb.Broker) -> None:
    broker.create_topic("t", partitions=1)
    broker.create_group("t", "o", mode="ordered")
    with broker.consumer("t", "o", mode="shared") as consumer, pytest.raises(tb.ConflictError):
        next(iter(consumer))


# A server that dies


@pytest.fixture
def server(tmp_path: Path) -> Iterator[BrokerProcess]:
    """A server of the test's own."""
    server = BrokerProcess(tmp_path / "data")
    yield server
    server.end(kill=True)


@pytest.mark.parametrize("kill", [False, True], ids=["drained", "killed"])
def test_an_iteration_goes_on_with_a_server_that_came_again(
    server: BrokerProcess, connect: Connect, kill: bool
) -> None:
    with connect(server.url) as broker:
        broker.create_topic("t", partitions=1)
        fill(broker, range(RECORDS))
        with broker.consumer("t", "g", max_records=50) as consumer:
            acked: list[int] = []
            restarted = False
            for batch in consumer:
                if len(acked) == 500 and not restarted:
                    restarted = True
                    server.restart(kill=kill)
                    continue  # comes again, as what came ahead does
                acked += map(int, batch.values)
                batch.ack()
                if len(acked) >= RECORDS:
                    break
            assert sorted(acked) == list(range(RECORDS))
        assert broker.describe_group("t", "g").lag == 0


def test_an_iteration_gives_up_after_its_time(server: BrokerProcess, connect: Connect) -> None:
    with connect(server.url) as broker:
        broker.create_topic("t", partitions=1)
        with broker.consumer("t", "g", reconnect_timeout=0.3) as consumer:
            failed: list[tb.BrokerError] = []

            def iterate() -> None:
                try:
                    next(iter(consumer))
                except tb.BrokerError as error:
                    failed.append(error)

            thread = threading.Thread(target=iterate)
            thread.start()
            server.end(kill=True)
            thread.join(TIMEOUT)
            assert [type(error) for error in failed] == [tb.UnavailableError]


def test_a_connection_that_breaks_gives_its_leases_back(server: BrokerProcess, connect: Connect) -> None:
    with connect(server.url) as other:
        other.create_topic("t", partitions=1)
        fill(other, range(RECORDS))
        lost = connect(server.url)
        consumer = lost.consumer("t", "g", max_records=100, visibility_timeout=600)
        batches = iter(consumer)
        assert len(next(batches)) == 100
        lost.close()  # without a word of the consumer
        with other.consumer("t", "g", max_records=RECORDS) as second:
            seen: list[int] = []
            while len(seen) < RECORDS:
                batch = second.receive(wait=TIMEOUT)
                assert batch, f"{RECORDS - len(seen)} records were not given back"
                seen += map(int, batch.values)
                batch.ack()
        assert sorted(seen) == list(range(RECORDS))


def test_engines_agree_on_order_in_an_ordered_iteration(engine: Engine) -> None:
    broker = engine.broker
    broker.create_topic("t", partitions=1)
    fill(broker, range(RECORDS))
    with broker.consumer("t", "o", mode="ordered", max_records=50, idle_timeout=0.05) as consumer:
        seen: list[int] = []
        nacked = False
        for batch in consumer:
            if batch.base_offset == 500 and not nacked:
                nacked = True
                batch.nack(offsets=[520])
                seen += range(500, 520)
                continue
            seen += map(int, batch.values)
            batch.ack()
    assert seen == list(range(RECORDS))
