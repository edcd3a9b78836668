"""A batch that is being worked on stays its worker's for as long as that takes; a worker that is gone keeps nothing."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import telemetry_broker as tb
from tests.integration.contract.engines import TIMEOUT, BrokerProcess
from tests.integration.contract.portal import Connect

LEASE = 0.3
SEVERAL_LEASES = 0.7


@pytest.fixture(params=["mem", "file", "grpc"])
def broker(request: pytest.FixtureRequest, tmp_path: Path, connect: Connect) -> Iterator[tb.Broker]:
    """Each broker behind each face, on real time, with a topic of one partition and the values 0 to 9."""
    match request.param:
        case "mem":
            url = "mem://"
        case "file":
            url = f"file://{tmp_path}/data"
        case _:
            url = request.getfixturevalue("shared_server").url
    with connect(url) as broker:
        broker.create_topic("t", partitions=1)
        with broker.producer("t") as producer:
            producer.send_many([b"%d" % number for number in range(10)])
        yield broker
        for topic in broker.topics():
            broker.delete_topic(topic.name)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_an_iterated_batch_is_kept_while_it_is_worked_on(broker: tb.Broker) -> None:
    with broker.consumer("t", "g", visibility_timeout=LEASE) as consumer, broker.consumer("t", "g") as other:
        for batch in consumer:
            assert not other.receive(wait=SEVERAL_LEASES)
            assert batch.ack() == 10
            break
        assert not other.receive()


def test_many_batches_are_kept_until_each_is_acked(broker: tb.Broker) -> None:
    with (
        broker.consumer("t", "g", visibility_timeout=LEASE, max_records=1) as consumer,
        broker.consumer("t", "g") as other,
    ):
        iterator = iter(consumer)
        batches = [next(iterator) for _ in range(10)]
        assert not other.receive(wait=SEVERAL_LEASES)
        assert consumer.ack(batches) == 10
    assert broker.describe_group("t", "g").lag == 0


def test_what_is_left_of_a_batch_is_kept_too(broker: tb.Broker) -> None:
    with broker.consumer("t", "g", visibility_timeout=LEASE) as consumer, broker.consumer("t", "g") as other:
        batch = next(iter(consumer))
        batch.ack(offsets=range(5))
        assert not other.receive(wait=SEVERAL_LEASES)
        assert batch.ack() == 5


def test_an_ordered_partition_is_kept_while_its_batch_is_worked_on(broker: tb.Broker) -> None:
    with (
        broker.consumer("t", "o", mode="ordered", visibility_timeout=LEASE) as consumer,
        broker.consumer("t", "o", mode="ordered") as other,
    ):
        batch = next(iter(consumer))
        assert not other.receive(wait=SEVERAL_LEASES)
        assert batch.ack() == 10


def test_a_nacked_batch_is_not_kept(broker: tb.Broker) -> None:
    with broker.consumer("t", "g", visibility_timeout=LEASE) as consumer, broker.consumer("t", "g") as other:
        batch = next(iter(consumer))
        batch.nack()
        again = other.receive()
        assert (again.attempt, len(again)) == (2, 10)
        assert batch.ack() == 0


def test_the_extension_can_be_switched_off(broker: tb.Broker) -> None:
    with (
        broker.consumer("t", "g", visibility_timeout=LEASE, max_lease_extension=0) as consumer,
        broker.consumer("t", "g") as other,
    ):
        batch = next(iter(consumer))
        assert other.receive(wait=TIMEOUT).attempt == 2
        with pytest.raises(tb.StaleLeaseError):
            batch.ack()


def test_the_extension_has_an_end(broker: tb.Broker) -> None:
    with (
        broker.consumer("t", "g", visibility_timeout=LEASE, max_lease_extension=3 * LEASE) as consumer,
        broker.consumer("t", "g") as other,
    ):
        batch = next(iter(consumer))
        begun = time.monotonic()
        assert other.receive(wait=TIMEOUT).attempt == 2
        assert time.monotonic() - begun > 2.5 * LEASE
        with pytest.raises(tb.StaleLeaseError):
            batch.ack()


def test_a_received_batch_is_kept_only_where_that_is_asked_for(broker: tb.Broker) -> None:
    with (
        broker.consumer("t", "g", visibility_timeout=LEASE, max_records=5) as plain,
        broker.consumer("t", "g", visibility_timeout=LEASE, max_records=5, max_lease_extension=60) as asking,
        broker.consumer("t", "g") as other,
    ):
        kept, left = asking.receive(), plain.receive()
        assert other.receive(wait=TIMEOUT).offsets == left.offsets
        assert not other.receive(wait=SEVERAL_LEASES)
        assert kept.ack() == 5


def test_a_batch_that_nobody_has_any_more_is_not_kept(broker: tb.Broker) -> None:
    with broker.consumer("t", "g", visibility_timeout=LEASE) as consumer, broker.consumer("t", "g") as other:
        iterator = iter(consumer)
        batch = next(iterator)
        assert batch
        del batch
        gc.collect()
        assert other.receive(wait=TIMEOUT).attempt == 2


def test_a_lease_lost_to_a_seek_is_seen_at_ack_and_iterating_goes_on(broker: tb.Broker) -> None:
    with broker.consumer("t", "g", visibility_timeout=LEASE, idle_timeout=TIMEOUT) as consumer:
        iterator = iter(consumer)
        batch = next(iterator)
        broker.seek("t", "g", 5)
        time.sleep(LEASE)  # it is not extended any more, which nobody is told yet
        with pytest.raises(tb.StaleLeaseError):
            batch.ack()
        assert next(iterator).offsets == range(5, 10)


@pytest.mark.parametrize("seconds", [-1, float("nan"), 43_201])
def test_an_extension_that_is_no_time_is_refused(broker: tb.Broker, seconds: float) -> None:
    with pytest.raises(tb.InvalidArgumentError, match="max_lease_extension"):
        broker.consumer("t", "g", max_lease_extension=seconds)


def test_a_thread_that_ended_keeps_nothing() -> None:
    with tb.connect("mem://") as broker:
        broker.create_topic("t", partitions=1)
        with broker.producer("t") as producer:
            producer.send(b"a")
        consumer = broker.consumer("t", "g", visibility_timeout=LEASE)
        seen: list[tb.Batch] = []
        thread = threading.Thread(target=lambda: seen.append(next(iter(consumer))))
        thread.start()
        thread.join(TIMEOUT)
        with broker.consumer("t", "g") as other:
            assert other.receive(wait=TIMEOUT).attempt == 2
        with pytest.raises(tb.StaleLeaseError):
            seen[0].ack()


def test_one_thread_extends_all_and_ends_with_its_work() -> None:
    def threads() -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread.name == "leases of me"]

    with tb.connect("mem://") as broker:
        broker.create_topic("t", partitions=1)
        with broker.producer("t") as producer:
            producer.send_many([b"a"] * 10)
        with broker.consumer("t", "g", visibility_timeout=LEASE, max_records=1, name="me") as consumer:
            iterator = iter(consumer)
            batches = [next(iterator) for _ in range(10)]
            assert len(threads()) == 1
            consumer.ack(batches)
            wait_until(lambda: not threads())
            with broker.producer("t") as producer:
                producer.send(b"b")
            batch = next(iterator)
            assert len(threads()) == 1
            batch.ack()


def test_a_killed_program_keeps_nothing_beyond_its_visibility_timeout(shared_server: BrokerProcess) -> None:
    program = (
        "import sys, time, telemetry_broker as tb\n"
        "broker = tb.connect(sys.argv[1])\n"
        f"for batch in broker.consumer('t', 'g', visibility_timeout={LEASE}):\n"
        "    print('got', flush=True)\n"
        "    time.sleep(60)\n"
    )
    with tb.connect(shared_server.url) as broker:
        broker.create_topic("t", partitions=1)
        with broker.producer("t") as producer, broker.consumer("t", "g") as other:
            producer.send(b"a")
            producer.flush()
            process = subprocess.Popen([sys.executable, "-c", program, shared_server.url], stdout=subprocess.PIPE)
            assert process.stdout is not None
            assert process.stdout.readline() == b"got\n"
            assert not other.receive(wait=SEVERAL_LEASES)
            process.kill()
            killed = time.monotonic()
            assert other.receive(wait=TIMEOUT).attempt == 2
            assert time.monotonic() - killed < LEASE + 1
            process.wait()
            process.stdout.close()
        broker.delete_topic("t")
