"""A dump that goes on as a live fleet: scraped again and again, with the time of now."""

import logging
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from telemetry_broker import Broker, _core
from telemetry_broker.errors import SourceError
from telemetry_services.observability import metrics

log = logging.getLogger(__name__)

_SERVICE: Final = "streamer"
SCRAPE_ROWS: Final = 10_000
"""Most rows of one scrape: a longer dump is gone through scrape by scrape, and then from its beginning."""


class LiveFleet:
    """Sends one scrape a second, by an unnamed producer: its points are new ones, never repeated after a restart.

    A dump that cannot be read any more is said once; scraping goes on as soon as it can be.

    Args:
        metrics: names that the store has already; another spelling of one is refused.
        interval: seconds from one scrape to the next.
    """

    def __init__(
        self, broker: Broker, path: Path, topic: str, *, metrics: Sequence[str] = (), interval: float = 1.0
    ) -> None:
        self._broker = broker
        self._path = path
        self._topic = topic
        self._names = metrics
        self._interval = interval
        self._position = 0
        self._readable = True

    def run(self, stop: threading.Event) -> None:
        """Scrapes until `stop` is set."""
        partitions = self._broker.describe_topic(self._topic).topic.config.partitions
        with self._broker.producer(self._topic) as producer:
            sequence = 0
            due = time.monotonic()
            while not stop.wait(max(0.0, due - time.monotonic())):
                due += self._interval
                block = self._scrape(partitions)
                if block is None:
                    continue
                sequence += 1
                producer.append_many(list(enumerate(block.batches)), sequence=sequence)
                metrics.MESSAGES_PRODUCED.labels(_SERVICE, self._topic).inc(block.points)
                metrics.DATA_POINTS.labels(_SERVICE, "sent").inc(block.samples)

    def _scrape(self, partitions: int) -> _core.CsvBlock | None:
        """The next rows, from the beginning again after the last ones; None while the dump cannot be read."""
        try:
            block = self._next_block(partitions)
            if block is None and self._position:
                self._position = 0
                block = self._next_block(partitions)
        except SourceError as error:
            self._position = 0
            if self._readable:
                log.warning("the live fleet waits until its dump can be read again: %s", error)
            self._readable = False
            return None
        if not self._readable:
            log.warning("the dump can be read again, the live fleet goes on", extra={"csv": str(self._path)})
        self._readable = True
        if block is not None:
            self._position = block.end
        return block

    def _next_block(self, partitions: int) -> _core.CsvBlock | None:
        resume = [self._position] * partitions
        reader = _core.CsvReader(
            str(self._path), partitions=partitions, resume=resume, time_ns=time.time_ns(), metrics=self._names
        )
        return reader.next_block(SCRAPE_ROWS)
