"""kill -9 of collector, broker, or both, again and again under load: each record is in the store once.

KILLS says how often each store goes through it: 3 times by default, 100 in `make soak`.
"""

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import pytest
from deltalake import DeltaTable

import telemetry_broker as tb
from tests.influxdb3 import StandIn
from tests.integration.service_processes import BrokerProcess, Service

KILLS = int(os.environ.get("KILLS", "3"))
PARTITIONS = 2
GROUP = "telemetry_group"
LEASES = {"VISIBILITY_TIMEOUT": "1s"}
"""What a killed collector had taken is free again when its leases end, not before."""
PATIENCE = 60.0


class Sending:
    """Distinct points, each with its number, into a topic until the end of the block; brokers may die meanwhile."""

    def __init__(self, url: str) -> None:
        self.sent = 0
        self.error: BaseException | None = None
        self._url = url
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            with tb.connect(self._url) as broker, broker.producer("telemetry") as producer:
                while not self._stop.wait(0.001):
                    for _ in range(5):
                        line = b"gpu,uuid=GPU-%d number=%d %d" % (self.sent % 7, self.sent, self.sent)
                        producer.send(line, partition=self.sent % PARTITIONS)
                        self.sent += 1
        except Exception as error:  # noqa: BLE001 (the test raises it)
            self.error = error

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        assert self.error is None, self.error


@pytest.fixture(params=["delta", "influxdb"])
def stored(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, Callable[[], list[int]]]]:
    """The URL of a store, and what gives the numbers in it, sorted."""
    if request.param == "delta":
        folder = tmp_path / "store"

        def rows() -> list[int]:
            numbers = DeltaTable(str(folder)).to_pyarrow_table(columns=["number"])["number"].to_pylist()
            return sorted(int(number) for number in numbers)

        yield f"delta://{folder}", rows
        return
    with StandIn() as server:

        def points() -> list[int]:
            return sorted(int(float(fields["number"])) for fields in server.points("telemetry").values())

        yield f"influxdb://{server.address}/telemetry", points


@pytest.mark.timeout(120 + 30 * KILLS)
def test_records_are_stored_once_through_kills(stored: tuple[str, Callable[[], list[int]]], tmp_path: Path) -> None:
    store, numbers = stored
    chance = random.Random(int(os.environ.get("KILL_SEED", "5")))
    with ExitStack() as processes:
        broker = processes.enter_context(
            BrokerProcess(tmp_path / "broker", "--topics", f"telemetry:{PARTITIONS}", environment=LEASES)
        )
        port = int(broker.grpc.rpartition(":")[2])
        environment = {"BROKER_URL": broker.url, "STORE": store, "COLLECT_MAX_AGE": "50ms"}
        command = ("collector", "--port", 0, "--grpc-port", 0, "--data", tmp_path / "c")
        collector = processes.enter_context(Service(*command, environment=environment))
        with Sending(broker.url) as sending:
            for number in range(KILLS):
                collector.wait_for("Processed message", PATIENCE)
                victims = ("collector", "broker", "both")[number % 3]
                threading.Event().wait(chance.random() / 5)  # any moment is as good as another
                if victims != "broker":
                    collector.kill()
                if victims != "collector":
                    broker.kill()
                    broker = processes.enter_context(
                        BrokerProcess(tmp_path / "broker", grpc_port=port, environment=LEASES)
                    )
                if victims != "broker":
                    collector = processes.enter_context(Service(*command, environment=environment))
                else:
                    collector.wait_for("Processed message", PATIENCE)
        with tb.connect(broker.url) as client:
            deadline = time.monotonic() + PATIENCE
            while client.describe_group("telemetry", GROUP).lag:
                assert time.monotonic() < deadline, collector.output[-2000:]
                assert collector.process.poll() is None, collector.output[-2000:]
        assert collector.stop() == 0
    assert numbers() == list(range(sending.sent))


@pytest.mark.timeout(120)
def test_a_collector_that_sleeps_past_its_leases_and_wakes_up_doubles_and_loses_nothing(
    stored: tuple[str, Callable[[], list[int]]], tmp_path: Path
) -> None:
    store, numbers = stored
    with ExitStack() as processes:
        broker = processes.enter_context(
            BrokerProcess(tmp_path / "broker", "--topics", f"telemetry:{PARTITIONS}", environment=LEASES)
        )
        environment = {"BROKER_URL": broker.url, "STORE": store, "COLLECT_MAX_AGE": "50ms"}
        command = ("collector", "--port", 0, "--grpc-port", 0, "--data", tmp_path / "c")
        sleeper = processes.enter_context(Service(*command, environment=environment))
        with Sending(broker.url) as sending:
            sleeper.wait_for("Processed message", PATIENCE)
            sleeper.freeze()
            other = processes.enter_context(Service(*command, environment=environment))
            other.wait_for("Processed message", PATIENCE)
            sleeper.process.send_signal(signal.SIGCONT)
            before = sleeper.output.count("Processed message")
            sleeper.wait_until(lambda output: output.count("Processed message") > before, PATIENCE)
        with tb.connect(broker.url) as client:
            deadline = time.monotonic() + PATIENCE
            while client.describe_group("telemetry", GROUP).lag:
                assert time.monotonic() < deadline, sleeper.output[-2000:] + other.output[-2000:]
        assert (sleeper.stop(), other.stop()) == (0, 0)
    assert numbers() == list(range(sending.sent))
