"""Streams a dump: block by block, one batch to every partition, each under the block's end position as its sequence.

The topic is the only state. The producer's name comes from the dump (`#n` behind it for the n-th repetition), and what
the topic has of that name says where to go on. So a start after kill -9 stores each row exactly once, and one after a
finished run adds nothing.
"""

import logging
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from telemetry_broker import Broker, Producer, _core
from telemetry_broker.errors import ConflictError
from telemetry_services.errors import SourceError
from telemetry_services.observability import metrics
from telemetry_services.streamer.progress import Progress
from telemetry_services.text import counted

log = logging.getLogger(__name__)

BLOCK_BYTES: Final = 4 << 20
LOOP_INTERVAL_NS: Final = 1_000_000_000
"""From the last time of one repetition to the first time of the next one."""

_MAX_ROWS: Final = 65_536
_BLOCKS_PER_SECOND: Final = 10  # at a given rate: how finely it is spread
_LOG_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Options:
    """What to stream and how.

    Attributes:
        rate: rows a second; 0: as fast as it goes.
        delay: seconds to pause after each row; only without a rate.
        loop: again and again, timestamps shifted by the dump's span and one interval.
        again: under a new name, so that what is stored is stored once more.
        partitions: of the topic, when it has to be made.
        rejects_dir: folder for the file of rows that cannot be used.
        metrics: names that the store has already; another spelling of one is refused.
    """

    path: Path
    topic: str
    rejects_dir: Path
    partitions: int = 4
    rate: float = 0
    delay: float = 0
    loop: bool = False
    again: bool = False
    metrics: Sequence[str] = ()
    service: str = "streamer"


class CsvStreamer:
    """One dump into one topic.

    Args:
        on_progress: called with the counts after each block, in the streamer's thread.
    """

    def __init__(
        self, broker: Broker, options: Options, on_progress: Callable[[Progress], None] = lambda _: None
    ) -> None:
        self._broker = broker
        self._options = options
        self._on_progress = on_progress
        self.progress = Progress()
        self._rejects_path = options.rejects_dir / f"{options.path.stem}.csv"
        self._suffix = f"@{uuid.uuid4().hex[:12]}" if options.again else ""
        self._logged = Progress()
        self._logged_at = 0.0

    def run(self, stop: threading.Event) -> Progress:
        """Streams the dump, and again if it is to loop, until the end or until `stop` is set.

        It may be called again after an error: it goes on where the topic stands.

        Raises:
            BrokerError: the dump cannot be read (`csv.*`), has no good row (`source.no_rows`), or the broker failed.
        """
        self.progress = Progress()
        partitions = make_topic(self._broker, self._options.topic, self._options.partitions)
        self._options.rejects_dir.mkdir(parents=True, exist_ok=True)
        self.progress.size = self._options.path.stat().st_size if self._options.path.exists() else 0
        name = self._open_reader(partitions).producer_name + self._suffix
        shift_ns = 0
        while not stop.is_set():
            pass_name = f"{name}#{self.progress.passes}" if self.progress.passes else name
            self._stream_pass(pass_name, partitions, shift_ns * self.progress.passes, stop)
            if stop.is_set():
                break
            self.progress.passes += 1
            if not self._options.loop:
                break
            shift_ns = shift_ns or self._loop_shift(partitions)
        self._log(last=True)
        return self.progress

    def _stream_pass(self, name: str, partitions: int, shift_ns: int, stop: threading.Event) -> None:
        with self._broker.producer(self._options.topic, name=name) as producer:
            resume = [producer.sequences.get(partition, 0) for partition in range(partitions)]
            reader = self._open_reader(partitions, resume=resume, shift_ns=shift_ns)
            pace = _Pace(self._options.rate, self._options.delay)
            self.progress.position = min(resume)
            self.progress.from_start &= not min(resume)
            self._on_progress(self.progress)
            while not stop.is_set():
                block = reader.next_block(pace.rows)
                if block is None:
                    break
                self._send(producer, block)
                pace.wait(block.rows, stop)
        if self.progress.rejected:
            self.progress.rejects_path = self._rejects_path
        if not stop.is_set() and not self.progress.passes:
            self._require_a_good_row(partitions)

    def _send(self, producer: Producer, block: _core.CsvBlock) -> None:
        producer.append_many(list(enumerate(block.batches)), sequence=block.end)
        self.progress.position = block.end
        self.progress.add(block)
        service = self._options.service
        metrics.MESSAGES_PRODUCED.labels(service, self._options.topic).inc(block.points)
        metrics.DATA_POINTS.labels(service, "sent").inc(block.samples)
        metrics.DATA_POINTS.labels(service, "duplicate").inc(block.duplicates)
        metrics.DATA_POINTS.labels(service, "missing").inc(block.missing)
        for reason, count in block.rejected.items():
            metrics.REJECTS.labels(service, reason).inc(count)
            metrics.DATA_POINTS.labels(service, "rejected").inc(count)
        self._log()
        self._on_progress(self.progress)

    def _open_reader(self, partitions: int, *, resume: Sequence[int] = (), shift_ns: int = 0) -> _core.CsvReader:
        return _core.CsvReader(
            str(self._options.path),
            partitions=partitions,
            resume=resume,
            block_bytes=BLOCK_BYTES,
            rejects_path=str(self._rejects_path) if resume else None,
            time_shift_ns=shift_ns,
            metrics=self._options.metrics,
        )

    def _loop_shift(self, partitions: int) -> int:
        counts = count_dump(self._options.path, partitions)
        return (counts.last_ns or 0) - (counts.first_ns or 0) + LOOP_INTERVAL_NS

    def _require_a_good_row(self, partitions: int) -> None:
        progress = self.progress
        if progress.samples:
            return
        if not progress.from_start:  # what an earlier run read counts too
            progress = count_dump(self._options.path, partitions, self._options.metrics, only_until_a_sample=True)
            if progress.samples:
                return
            if progress.rejected and self._rejects_path.exists():
                progress.rejects_path = self._rejects_path
        reason = progress.describe_rejects() or f"{counted(progress.rows, 'row')}, none with a value"
        raise SourceError(
            f"{self._options.path}: no row can be stored: {reason}; give a dump of dcgm-exporter",
            code="source.no_rows",
        )

    def _log(self, *, last: bool = False) -> None:
        """Says what was published, once a second and at the end."""
        now = time.monotonic()
        if self.progress.rows == self._logged.rows or (not last and now - self._logged_at < _LOG_SECONDS):
            return
        before, after = self._logged, self.progress
        log.info(
            "Published message",
            extra={
                "topic": self._options.topic,
                "records": after.points - before.points,
                "samples": after.samples - before.samples,
                "rows": after.rows - before.rows,
                "rejected": after.rejected.total() - before.rejected.total(),
                "position": after.position,
            },
        )
        self._logged = Progress(
            points=after.points, samples=after.samples, rows=after.rows, rejected=after.rejected.copy()
        )
        self._logged_at = now


class _Pace:
    """Spreads rows over time: by a rate, or by a pause after each one."""

    def __init__(self, rate: float, delay: float) -> None:
        self._row_seconds = 1 / rate if rate else delay
        self._next = time.monotonic()
        self.rows = (
            max(1, min(_MAX_ROWS, round(1 / self._row_seconds / _BLOCKS_PER_SECOND)))
            if self._row_seconds
            else _MAX_ROWS
        )

    def wait(self, rows: int, stop: threading.Event) -> None:
        """Waits until the next rows may follow, or `stop` is set."""
        if self._row_seconds:
            self._next += rows * self._row_seconds
            stop.wait(max(0.0, self._next - time.monotonic()))


def make_topic(broker: Broker, topic: str, partitions: int) -> int:
    """Makes the topic if there is none, and gives the number of its partitions.

    One that is there keeps what it has; a count that differs is logged.
    """
    try:
        broker.create_topic(topic, partitions=partitions)
    except ConflictError:
        log.debug("the topic is there already", extra={"topic": topic})
    there = broker.describe_topic(topic).topic.config.partitions
    if there != partitions:
        log.warning(
            "the topic %s has %d partitions and keeps them: PARTITIONS_PER_TOPIC=%d counts for new topics only",
            topic,
            there,
            partitions,
        )
    return there


def count_dump(
    path: Path, partitions: int = 1, metrics: Sequence[str] = (), *, only_until_a_sample: bool = False
) -> Progress:
    """What a whole dump holds; nothing is sent and no reject is kept.

    Args:
        metrics: names that the store has already, as when it was streamed.
        only_until_a_sample: end with the block that has the first one.
    """
    counts = Progress(size=path.stat().st_size)
    reader = _core.CsvReader(str(path), partitions=partitions, block_bytes=BLOCK_BYTES, metrics=metrics)
    while (block := reader.next_block(_MAX_ROWS)) is not None:
        counts.add(block)
        counts.position = block.end
        if only_until_a_sample and counts.samples:
            break
    return counts
