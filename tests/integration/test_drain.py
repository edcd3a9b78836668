"""`telemetry broker drain`: a broker runs empty while it is watched."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest

import telemetry_broker as tb
from tests.integration.cli_runs import LIBRARY, SERVICES, Cli
from tests.integration.service_processes import BrokerProcess, ProxyProcess, listed

COMMANDS = pytest.mark.parametrize(
    "command", [(LIBRARY, ("drain",)), (SERVICES, ("broker", "drain"))], ids=["library", "services"]
)


def fill(client: tb.Broker, count: int) -> None:
    client.create_topic("t", partitions=2)
    client.create_group("t", "g")
    with client.producer("t") as producer:
        for number in range(count):
            producer.send(b"%d" % number, partition=number % 2)


def take(client: tb.Broker, count: int) -> None:
    taken = 0
    with client.consumer("t", group="g") as consumer:
        while taken < count:
            batch = consumer.receive(max_records=count - taken, wait=20)
            taken += len(batch)
            batch.ack()


@COMMANDS
def test_it_ends_when_every_group_has_acked_all(tmp_path: Path, command: tuple[list[str], tuple[str, ...]]) -> None:
    program, words = command
    with BrokerProcess(tmp_path) as broker, tb.connect(broker.url) as client:
        fill(client, 10)
        with Cli(broker.url, program).begin(*words, "--wait") as draining:
            assert draining.process.stderr is not None
            assert draining.process.stderr.readline() == "msg-queue-0: 10 records to be acked, of t by g\n"
            refused = httpx.post(f"http://{broker.http}/produce?topic=t", content="new")
            assert (refused.status_code, refused.headers["telemetry-code"]) == (503, "broker.draining")
            take(client, 10)
            output, _ = draining.process.communicate(timeout=30)
            assert (draining.process.returncode, output) == (
                0,
                "msg-queue-0 takes no new records\nit is empty\n",
            )
        assert client.describe().draining
        assert Cli(broker.url, program).ok(*words, "--undo") == "msg-queue-0 takes records\n"
        assert not client.describe().draining
        with client.producer("t") as producer:
            producer.send(b"new")


def test_what_nobody_takes_is_told_and_not_waited_for(tmp_path: Path) -> None:
    with BrokerProcess(tmp_path) as broker, tb.connect(broker.url) as client:
        fill(client, 2)
        client.create_topic("unread", partitions=1)
        with client.producer("unread") as producer:
            producer.send(b"1")
        with client.consumer("t", group="g") as consumer:
            for _ in range(2):
                batch = consumer.receive(max_records=1, wait=20)
                batch.nack(dead_letter=True, reason="no good")
        done = Cli(broker.url)("drain", "--wait", "--json")
        assert done.returncode == 1
        assert json.loads(done.stdout)["left"] == [
            {"topic": "t.dlq", "group": "redrive", "records": 2, "in_flight": 0},
            {"topic": "unread", "group": None, "records": 1, "in_flight": 0},
        ]


def test_behind_a_proxy_one_broker_is_named(tmp_path: Path) -> None:
    with (
        BrokerProcess(tmp_path / "0") as one,
        BrokerProcess(tmp_path / "1") as two,
        ProxyProcess("--brokers", listed(one, two)) as proxy,
        tb.connect(proxy.url) as client,
    ):
        fill(client, 10)
        run = Cli(proxy.url)
        refused = run("drain")
        assert refused.returncode == 2
        assert "say which one, of b-0, b-1" in refused.stderr
        assert run("drain", "b-9").returncode == 2
        shown = json.loads(run.ok("drain", "b-1", "--json"))
        assert (shown["broker"], shown["draining"]) == ("b-1", True)
        with tb.connect(two.url) as direct, tb.connect(one.url) as other:
            assert direct.describe().draining
            assert not other.describe().draining
            left = direct.describe_group("t", "g").lag
            assert [each["records"] for each in shown["left"]] == ([left] if left else [])
        take(client, 10)
        assert "it is empty" in run.ok("drain", "b-1", "--wait")
        with client.producer("t") as producer:  # goes to the other one
            for partition in range(2):
                producer.send(b"new", partition=partition)
        assert run.ok("drain", "b-1", "--undo", "--url", proxy.url) == "b-1 takes records\n"


def test_what_makes_no_sense_is_refused(tmp_path: Path) -> None:
    both = Cli("grpc://127.0.0.1:1")("drain", "--wait", "--undo")
    assert (both.returncode, both.stdout) == (2, "")
    assert "leave one of them out" in both.stderr
    with tb.connect(f"file://{tmp_path}"):
        pass
    folder = Cli(f"file://{tmp_path}")("drain")
    assert (folder.returncode, folder.stdout) == (2, "")
    assert "no broker has the folder open" in folder.stderr
