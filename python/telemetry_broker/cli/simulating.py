"""Where the records of a simulated fleet go, and when."""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import BinaryIO, Final, Protocol

from telemetry_broker import _core
from telemetry_broker.broker import Broker
from telemetry_broker.cli.connecting import broker_url, opened
from telemetry_broker.errors import InvalidArgumentError, NotFoundError
from telemetry_broker.producer import Producer

STDOUT: Final = "-"
_SECOND_NS: Final = 1_000_000_000


class Sink(Protocol):
    """Where blocks go."""

    @property
    def place(self) -> str:
        """Its name, for people."""

    def make(self, fleet: _core.SimulatedFleet, most: int) -> _core.FleetBlock | None:
        """The next block of the fleet, in the form that goes here; None when it is over."""

    def put(self, block: _core.FleetBlock) -> None:
        """Stores a block."""


class _Topic:
    """A topic, through an unnamed producer: whatever is simulated is new."""

    def __init__(self, broker: Broker, topic: str, url: str, partitions: int) -> None:
        self.place = f"into {topic} of {url}"
        self._producer = _producer(broker, topic, partitions)
        self._partitions = len(self._producer.sequences)
        self._sequence = 0

    def make(self, fleet: _core.SimulatedFleet, most: int) -> _core.FleetBlock | None:
        return fleet.next_records(self._partitions, most)

    def put(self, block: _core.FleetBlock) -> None:
        self._sequence += 1
        batches = [(partition, records) for partition, records in enumerate(block.data) if records]
        self._producer.append_many(batches, self._sequence)

    def close(self) -> None:
        self._producer.close()


def _producer(broker: Broker, topic: str, partitions: int) -> Producer:
    """Of the topic, which is made if need be. One that is there stays as it is: it may belong to others."""
    try:
        return broker.producer(topic)
    except NotFoundError:
        broker.create_topic(topic, partitions=partitions)
        return broker.producer(topic)


class _Csv:
    """A new file with a header and rows."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self.place = f"into {name}"
        self._file = file
        self._file.write(_core.CSV_HEADER)

    def make(self, fleet: _core.SimulatedFleet, most: int) -> _core.FleetBlock | None:
        return fleet.next_rows(most)

    def put(self, block: _core.FleetBlock) -> None:
        self._file.writelines(block.data)
        self._file.flush()


@contextmanager
def opened_sink(parsed: argparse.Namespace) -> Iterator[Sink]:
    """What the options of ``simulate`` say: a topic, a file, or standard output.

    Raises:
        InvalidArgumentError: the file is there already.
    """
    if parsed.csv is None:
        with (
            opened(parsed) as broker,
            closing(_Topic(broker, parsed.topic, broker_url(parsed), parsed.partitions)) as topic,
        ):
            yield topic
    elif parsed.csv == STDOUT:
        yield _Csv(sys.stdout.buffer, "standard output")
    else:
        with _new_file(Path(parsed.csv)) as file:
            yield _Csv(file, parsed.csv)


def _new_file(path: Path) -> BinaryIO:
    try:
        return path.open("xb")
    except FileExistsError as error:
        raise InvalidArgumentError(f"{path} is there already: remove it, or give another name") from error


class Pace:
    """When blocks are due: by the times of their scrapes, and by the most records a second."""

    def __init__(self, start_ns: int, speed: float, rate: int | None) -> None:
        self._start_ns = start_ns
        self._speed = speed
        self._rate = rate
        self._began = self._free = time.monotonic()
        self.behind = 0.0
        """Seconds by which the last block was late for its scrape."""

    def wait(self, block: _core.FleetBlock, stop: threading.Event) -> None:
        """Waits until the block is due, or ``stop`` is set."""
        due = self._began
        if self._speed:
            due += (block.time_ns - self._start_ns) / _SECOND_NS / self._speed
        at = max(due, self._free)
        if self._rate:
            self._free = max(at, time.monotonic()) + block.points / self._rate
        stop.wait(min(max(0.0, at - time.monotonic()), threading.TIMEOUT_MAX))
        self.behind = max(0.0, time.monotonic() - due) if self._speed else 0.0
