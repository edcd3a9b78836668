"""A collector in a thread, and what it is given."""

import threading
from pathlib import Path
from typing import Self

import telemetry_broker as tb
from telemetry_services.collector import Bounds, Collector
from telemetry_services.collector.dead_letters import DeadLetters
from telemetry_services.store import ColumnStore, LineStore
from tests.integration.service_processes import PATIENCE


def point(second: int, gpu: int = 0, metric: str = "util") -> bytes:
    return b"gpu,uuid=GPU-%d,hostname=h %s=%d %d" % (gpu, metric.encode(), second, second * 1_000_000_000)


class Running:
    """A collector in a thread, until the end of the block."""

    def __init__(self, broker: tb.Broker, store: ColumnStore | LineStore, tmp_path: Path, *, age: float = 0.05) -> None:
        self._commits = threading.Condition()
        self.stop = threading.Event()
        self.collector = Collector(
            broker,
            store,
            topic="telemetry",
            group="g",
            dead_letters=DeadLetters(tmp_path),
            bounds=Bounds(age=age),
            on_commit=lambda _: self._notify(),
        )
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            self.collector.run(self.stop)
        except Exception as error:  # noqa: BLE001 (the test raises it)
            self.error = error
            self._notify()

    def _notify(self) -> None:
        with self._commits:
            self._commits.notify_all()

    def stored(self, records: int) -> None:
        """Waits until so many records are stored and acked."""
        with self._commits:
            done = self._commits.wait_for(
                lambda: self.error or self.collector.status.records_stored >= records, PATIENCE
            )
        assert self.error is None, self.error
        assert done, self.collector.status

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()


def produce(broker: tb.Broker, *values: bytes, partition: int = 0) -> None:
    with broker.producer("telemetry") as producer:
        for value in values:
            producer.send(value, partition=partition)


def lag(broker: tb.Broker) -> int:
    return broker.describe_group("telemetry", "g").lag
