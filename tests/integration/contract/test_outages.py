"""A server that dies: what was sent is stored once, who waits goes on waiting, and what cannot be known is said."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import telemetry_broker as tb
from tests.integration.contract.engines import TIMEOUT, BrokerProcess


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def server(folder: Path) -> Iterator[list[BrokerProcess]]:
    """A list with the running server, last."""
    servers = [BrokerProcess(folder)]
    yield servers
    servers[-1].end(kill=True)


def restart(servers: list[BrokerProcess], folder: Path) -> None:
    servers[-1].end(kill=True)
    servers.append(BrokerProcess(folder, servers[-1].port))


def test_records_sent_while_the_server_is_away_are_stored_once_and_in_order(
    server: list[BrokerProcess], folder: Path
) -> None:
    with tb.connect(server[0].url) as broker:
        broker.create_topic("t", partitions=2)
        with broker.producer("t", linger=0.001, batch_bytes=500) as producer:
            for number in range(6000):
                if number in (2000, 4000):
                    restart(server, folder)
                producer.send(b"%d" % number, partition=number % 2)
        for partition in range(2):
            values = broker.read("t", partition, max_records=65_536).values
            assert [int(value) for value in values] == list(range(partition, 6000, 2))


def test_an_iterating_consumer_survives_a_restart(server: list[BrokerProcess], folder: Path) -> None:
    with tb.connect(server[0].url) as broker:
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
        restart(server, folder)
        with broker.producer("t") as producer:
            producer.send(b"first")
            producer.send(b"last")
        thread.join(TIMEOUT)
        assert values == [b"first", b"last"]
        consumer.close()


def test_without_a_server_calls_fail_at_once_and_name_the_address(server: list[BrokerProcess]) -> None:
    with tb.connect(server[0].url) as broker:
        broker.create_topic("t")
        producer = broker.producer("t", delivery_timeout=0.5)
        server[0].end(kill=True)
        with pytest.raises(tb.UnavailableError, match=server[0].url) as caught:
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


def test_a_wrong_port_is_said(tmp_path: Path) -> None:
    with tb.connect(f"grpc+unix://{tmp_path}/nobody.sock") as broker, pytest.raises(tb.UnavailableError):
        broker.topics()
