"""A server that dies: what was sent is stored once, who waits goes on waiting, and what cannot be known is said."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import telemetry_broker as tb
from tests.integration.contract.engines import TIMEOUT, BrokerProcess
from tests.integration.contract.portal import Connect


@pytest.fixture
def server(tmp_path: Path) -> Iterator[BrokerProcess]:
    """A server of the test's own."""
    server = BrokerProcess(tmp_path / "data")
    yield server
    server.end(kill=True)


def test_records_sent_while_the_server_is_away_are_stored_once_and_in_order(
    server: BrokerProcess, connect: Connect
) -> None:
    with connect(server.url) as broker:
        broker.create_topic("t", partitions=2)
        with broker.producer("t", linger=0.001, batch_bytes=500) as producer:
            for number in range(6000):
                if number in (2000, 4000):
                    server.restart(kill=True)
                producer.send(b"%d" % number, partition=number % 2)
        for partition in range(2):
            values = broker.read("t", partition, max_records=65_536).values
            assert [int(value) for value in values] == list(range(partition, 6000, 2))


def test_an_iterating_consumer_survives_a_restart(server: BrokerProcess, connect: Connect) -> None:
    with connect(server.url) as broker:
        broker.create_topic("t", partitions=1)
        consumer = broker.consumer("t", "g")
        values: list[bytes] = []

        def work() -> None:
            for batch in consumer:
                values.extend(batch.values)
                batch.ack()
                if values[-1] == b"last":
                    return

        thread = threading.Thread(target=work)
        thread.start()
        server.restart(kill=True)
        with connect(server.url) as other, other.producer("t") as producer:
            producer.send(b"first")
            producer.send(b"last")
        thread.join(TIMEOUT)
        assert values == [b"first", b"last"]
        consumer.close()


def test_who_iterates_again_after_a_failure_sits_out_an_outage_for_as_long_again(
    server: BrokerProcess, connect: Connect
) -> None:
    with connect(server.url) as broker:
        broker.create_topic("t", partitions=1)
        consumer = broker.consumer("t", "g", reconnect_timeout=4)
        server.end(kill=True)
        with pytest.raises(tb.UnavailableError):
            next(iter(consumer))
        values: list[bytes] = []
        thread = threading.Thread(target=lambda: values.extend(next(iter(consumer)).values))
        thread.start()
        server.restart()
        with connect(server.url) as other, other.producer("t") as producer:
            producer.send(b"a")
        thread.join(TIMEOUT)
        assert values == [b"a"]
        consumer.close()


def test_without_a_server_calls_fail_at_once_and_name_the_address(server: BrokerProcess, connect: Connect) -> None:
    with connect(server.url) as broker:
        broker.create_topic("t")
        producer = broker.producer("t", delivery_timeout=0.5)
        server.end(kill=True)
        with pytest.raises(tb.UnavailableError, match=server.url) as caught:
            broker.topics()
        assert caught.value.code == "broker.unavailable"
        assert caught.value.retry_after is not None
        with pytest.raises(tb.UnavailableError):
            broker.consumer("t", "g").receive()
        with pytest.raises(tb.UnavailableError):
            broker.consumer("t", "g", reconnect_timeout=0.2).receive(wait=None)
        producer.send(b"a")
        with pytest.raises(tb.BrokerError, match="a batch of 1 records was"):
            producer.flush()
        assert producer.failed_records == 1


def test_a_producer_pushes_back_while_the_server_is_away_and_goes_on_when_it_returns(
    server: BrokerProcess, connect: Connect
) -> None:
    with connect(server.url) as broker:
        broker.create_topic("t", partitions=1)
        with broker.producer("t", batch_bytes=10_000, max_block=0.2) as producer:
            server.end(kill=True)
            accepted = 0

            def send_on() -> None:
                nonlocal accepted
                while True:
                    producer.send(b"x" * 1000)
                    accepted += 1

            with pytest.raises(tb.TimedOutError, match="no room for another record, which was not added"):
                send_on()
            with pytest.raises(tb.TimedOutError, match="not everything is stored"):
                producer.flush(timeout=0.1)
            server.restart()
            producer.flush()
            assert producer.failed_records == 0
        assert broker.describe_topic("t").partitions[0].end_offset == accepted


def test_a_socket_that_is_not_there_is_unavailable(tmp_path: Path, connect: Connect) -> None:
    with connect(f"grpc+unix://{tmp_path}/nobody.sock") as broker, pytest.raises(tb.UnavailableError):
        broker.topics()
