"""Brokers that die, hang, are cut off, restarted, added and removed under load: nothing is lost, service goes on."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import telemetry_broker as tb
from telemetry_broker.v1 import broker_pb2 as pb
from tests.faults.brokers import PATIENCE, Brokers, Load
from tests.integration.service_processes import eventually
from tests.integration.slow_disk import SlowDisk, compiled

pytestmark = [
    pytest.mark.timeout(240),
    # Minutes under load; `make soak` sets it.
    pytest.mark.skipif("BROKERS_UNDER_LOAD" not in os.environ, reason="takes minutes: set BROKERS_UNDER_LOAD=1"),
]


@pytest.fixture(params=["straight", "by proxy"])
def brokers(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Brokers]:
    with Brokers(tmp_path, 3, by_proxy=request.param == "by proxy") as brokers:
        yield brokers


@pytest.fixture
def proxied(tmp_path: Path) -> Iterator[Brokers]:
    with Brokers(tmp_path, 3, by_proxy=True) as brokers:
        yield brokers


def connected(brokers: Brokers, topic: str = "t", durability: tb.Durability = "os") -> tb.Broker:
    """A connection, with a topic at all brokers."""
    broker = tb.connect(brokers.url)
    broker.create_topic(topic, partitions=6, durability=durability)
    return broker


def holder(broker: tb.Broker, topic: str, partition: int) -> str:
    """The broker that takes a partition's records."""
    return next(state.broker for state in broker.describe_topic(topic).partitions if state.partition == partition)


@pytest.mark.parametrize("fault", ["killed", "stopped", "cut off"])
def test_a_broker_that_is_gone_holds_nobody_up_and_loses_nothing(brokers: Brokers, fault: str) -> None:
    with connected(brokers) as broker:
        with Load(broker, "t").running() as load:
            load.goes_on()
            process = brokers.processes["b1"]
            match fault:
                case "killed":
                    process.kill()
                case "stopped":
                    process.freeze()
                case _:
                    brokers.links["b1"].cut()
            load.goes_on()
            match fault:
                case "killed":
                    brokers.restart("b1")
                case "stopped":
                    process.process.send_signal(signal.SIGCONT)
                case _:
                    brokers.links["b1"].mend()
            load.goes_on()
        load.check()


@pytest.mark.parametrize("by_proxy", [False, True], ids=["straight", "by proxy"])
def test_a_slow_disk_holds_up_what_waits_for_it_alone(tmp_path: Path, by_proxy: bool) -> None:
    disk = SlowDisk(compiled(tmp_path), tmp_path / "switch")
    with (
        Brokers(tmp_path, 3, by_proxy=by_proxy, disks={"b1": disk}) as brokers,
        connected(brokers, durability="fsync") as broker,
    ):
        with Load(broker, "t").running() as load:
            load.goes_on()
            disk.sync_takes(0.3)
            load.goes_on()
            load.goes_on()
            disk.is_fast()
            load.goes_on()
        load.check()


def test_all_are_restarted_one_after_the_other(brokers: Brokers) -> None:
    with connected(brokers) as broker:
        with Load(broker, "t").running() as load:
            for name in list(brokers.processes):
                load.goes_on()
                brokers.processes[name].stop()
                load.goes_on()
                brokers.restart(name)
            load.goes_on()
        load.check()


def test_brokers_are_added_drained_and_removed_while_records_come(proxied: Brokers) -> None:
    assert proxied.cluster is not None
    with connected(proxied) as broker:
        with Load(broker, "t").running() as load:
            load.goes_on()
            for name in ("b3", "b4"):
                proxied.add(name)
            proxied.cluster.set_members(proxied.members)
            load.goes_on()
            took = {state.broker for state in broker.describe_topic("t").partitions}
            assert took & {"b3", "b4"}, "new brokers take their share"
            for name in ("b0", "b1"):
                left = 1
                while left:
                    request = pb.DrainBrokerRequest(draining=True, broker=name)
                    answer = broker._transport.call("DrainBroker", request.SerializeToString())
                    left = pb.DrainBrokerResponse.FromString(answer).remaining
                    load.goes_on(50)
                members = [member for member in proxied.members if member[0] != name]
                proxied.cluster.set_members(members)
                proxied.remove(name)
            load.goes_on()
            assert {state.broker for state in broker.describe_topic("t").partitions} <= {"b2", "b3", "b4"}
        lost = {b"%d" % number for number in range(load.sent)} - set(load.received)
        assert not lost
        assert not load.errors


def test_a_broker_comes_back_without_its_volume(proxied: Brokers) -> None:
    assert proxied.cluster is not None
    with connected(proxied) as broker:
        name = holder(broker, "t", 0)
        with broker.producer("t", name="csv") as producer:
            producer.append(b"\x7a\x03\x0a\x01a", partition=0, sequence=10)
        with broker.consumer("t", "g") as consumer:
            batch = consumer.receive(wait=PATIENCE)
            batch.ack()
        proxied.processes[name].kill()
        shutil.rmtree(proxied.folder / name)
        proxied.restart(name)
        with broker.producer("t", name="csv") as producer:
            assert producer.sequences[0] == 0, "what was lost is sent again by who has it"
            assert not producer.append(b"\x7a\x03\x0a\x01b", partition=0, sequence=11).duplicate
        with broker.consumer("t", "g") as consumer:
            batch = consumer.receive(wait=PATIENCE)
            assert (batch.values, batch.base_offset) == ([b"b"], 0)
            batch.ack()
        told = [
            text
            for level, text in proxied.cluster.take_events()
            if level == "warning" and "another data folder" in text
        ]
        assert len(told) == 1
        assert name in told[0]


def test_a_named_producer_waits_for_the_broker_that_may_have_its_batch(brokers: Brokers) -> None:
    with connected(brokers) as broker:
        name = holder(broker, "t", 0)
        with broker.producer("t", name="csv", delivery_timeout=PATIENCE) as producer:
            producer.append(b"\x7a\x03\x0a\x01a", partition=0, sequence=1)
            brokers.processes[name].freeze()
            outcomes: list[tb.Appended] = []
            sending = threading.Thread(
                target=lambda: outcomes.append(producer.append(b"\x7a\x03\x0a\x01b", partition=0, sequence=2))
            )
            sending.start()
            sending.join(6.0)
            assert sending.is_alive(), "it waits, for the broker may have it"
            brokers.processes[name].process.send_signal(signal.SIGCONT)
            sending.join(PATIENCE)
            assert [each.partition for each in outcomes] == [0]
        states = [state for state in broker.describe_topic("t").partitions if state.partition == 0]
        assert [(state.broker, state.end_offset) for state in states] == [(name, 2)], "nobody else has a part of it"


def test_what_concerns_all_is_refused_while_one_is_away_and_what_looks_says_who(proxied: Brokers) -> None:
    with connected(proxied) as broker:
        with broker.producer("t") as producer:
            producer.send_many([b"x"] * 60, [b"%d" % number for number in range(60)])
        broker.create_group("t", "g")
        proxied.processes["b1"].kill()
        for refused in (
            lambda: broker.purge_topic("t"),
            lambda: broker.delete_topic("t"),
            lambda: broker.seek("t", "g", tb.END),
        ):
            with pytest.raises(tb.UnavailableError, match="b1"):
                refused()
        assert broker.describe_topic("t").missing_brokers == ("b1",)
        assert broker.describe_group("t", "g").missing_brokers == ("b1",)
        assert [member.name for member in broker.describe().members if not member.healthy] == ["b1"]
        broker.create_topic("made-meanwhile", partitions=6)
        broker.configure_topic("t", partitions=8)
        proxied.restart("b1")
        assert broker.purge_topic("t") == 60
        expected = {"t": (8, 2), "made-meanwhile": (6, 1)}
        with tb.connect(proxied.processes["b1"].url) as alone:
            eventually(lambda: versions(alone) == expected)  # it is told of what it had missed


def versions(broker: tb.Broker) -> dict[str, tuple[int, int]]:
    """Of each topic: how many partitions, and how often that was changed."""
    return {topic.name: (topic.config.partitions, topic.config_version) for topic in broker.topics()}
