"""A dump that goes on as a live fleet: scraped again and again, with the time of now."""

import threading
import time
from pathlib import Path
from typing import Final

from telemetry_broker import Broker, _core
from telemetry_services.observability import metrics

_SERVICE: Final = "streamer"
SCRAPE_ROWS: Final = 10_000
"""Most rows of one scrape: a longer dump is gone through scrape by scrape, and then from its beginning."""


class LiveFleet:
    """Sends one scrape a second, by an unnamed producer: its points are new ones, never repeated after a restart."""

    def __init__(self, broker: Broker, path: Path, topic: str, *, interval: float = 1.0) -> None:
        self._broker = broker
        self._path = path
        self._topic = topic
        self._interval = interval

    def run(self, stop: threading.Event) -> None:
        """Scrapes until `stop` is set."""
        partitions = len(self._broker.describe_topic(self._topic).partitions)
        with self._broker.producer(self._topic) as producer:
            sequence = position = 0
            due = time.monotonic()
            while not stop.wait(max(0.0, due - time.monotonic())):
                due += self._interval
                reader = _core.CsvReader(
                    str(self._path), partitions=partitions, resume=[position] * partitions, time_ns=time.time_ns()
                )
                block = reader.next_block(SCRAPE_ROWS)
                if block is None:
                    if position == 0:
                        return
                    position = 0
                    continue
                position, sequence = block.end, sequence + 1
                producer.append_many(list(enumerate(block.batches)), sequence=sequence)
                metrics.MESSAGES_PRODUCED.labels(_SERVICE, self._topic).inc(block.points)
                metrics.DATA_POINTS.labels(_SERVICE, "sent").inc(block.samples)
