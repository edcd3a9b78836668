"""The parts of `telemetry up` and how they hang together: one core, one store, a thread each for the workers."""

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import telemetry_broker as tb
from telemetry_broker import _core
from telemetry_broker.aio import embedded as aio_embedded
from telemetry_broker.aio.opening import Opening
from telemetry_broker.embedded import EmbeddedTransport
from telemetry_broker.errors import BrokerError, NotFoundError
from telemetry_services.collector import Collector, Status
from telemetry_services.collector.process import make_collector
from telemetry_services.config import UpSettings
from telemetry_services.serving.retries import TRANSIENT
from telemetry_services.store import ColumnStore, LineStore
from telemetry_services.streamer import CsvStreamer, Options, Progress
from telemetry_services.streamer.csv_streamer import count_dump, make_topic
from telemetry_services.streamer.live_fleet import LiveFleet

log = logging.getLogger(__name__)

_CHECK_SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True)
class Stored:
    """How much of a dump the store holds, and whatever else it holds of the dump's time range.

    Attributes:
        samples: that the store has within the dump's times, of other dumps too.
        expected: samples of the dump.
        added: samples that this run stored.
        seconds: from the start of streaming until all was stored.
    """

    samples: int
    expected: int
    added: int
    gpus: int
    hosts: int
    seconds: float

    def __str__(self) -> str:
        rate = self.added / max(self.seconds, 0.001)
        gpus = f"{self.gpus} {'GPU' if self.gpus == 1 else 'GPUs'}"
        hosts = f"{self.hosts} {'host' if self.hosts == 1 else 'hosts'}"
        return (
            f"stored {self.samples} samples of {self.expected} from {gpus} on {hosts} "
            f"in {self.seconds:.1f} s ({rate:,.0f} samples/s)"
        )


def embedded(core: _core.Broker, data_dir: Path) -> tb.Broker:
    """The library's broker over a core that others use too: closing it leaves the core open."""

    def leave_open(flush: bool = True) -> None:
        """Closing is for whoever opened it."""

    return tb.Broker(EmbeddedTransport(f"file://{data_dir.absolute()}", core, leave_open))


def embedded_aio(core: _core.Broker, data_dir: Path) -> Opening[tb.aio.Broker]:
    """The same for the running event loop."""
    url = f"file://{data_dir.absolute()}"

    async def open_it() -> tb.aio.Broker:
        return tb.aio.Broker(aio_embedded.EmbeddedTransport(url, core, lambda _: None))

    return Opening(open_it)


class Pipeline:
    """Streamer and collector over one broker. The worker threads end when `stop` is set."""

    def __init__(
        self, broker: tb.Broker, store: ColumnStore | LineStore, settings: UpSettings, csv: Path | None
    ) -> None:
        self._broker = broker
        self._store = store
        self._settings = settings
        self._csv = csv
        self._loop = asyncio.get_running_loop()
        self._committed = asyncio.Event()
        self._workers = ThreadPoolExecutor(2, thread_name_prefix="pipeline")
        self._working: list[asyncio.Future[Any]] = []
        self._partitions = settings.partitions_per_topic
        self._metrics: Sequence[str] = ()
        self.stop = threading.Event()
        self.progress = Progress()
        self.collector: Collector = make_collector(broker, store, settings, self._note_commit)

    def prepare(self) -> None:
        """Makes the topic, so that others find it from the start, and learns what the store has."""
        self._partitions = make_topic(self._broker, self._settings.msg_queue_topic, self._settings.partitions_per_topic)
        self._metrics = self._store.metrics()

    def collect(self) -> "asyncio.Future[None]":
        """Collects in its thread."""
        return self._in_thread(self.collector.run, self.stop)

    def stream(self, on_progress: Callable[[Progress], None]) -> "asyncio.Future[Progress]":
        """Streams the dump in its thread; `on_progress` is called there."""

        def note(progress: Progress) -> None:
            self.progress = progress
            on_progress(progress)

        settings = self._settings
        options = Options(
            path=self._require_csv(),
            topic=settings.msg_queue_topic,
            rejects_dir=settings.rejects_dir,
            partitions=self._partitions,
            metrics=self._metrics,
            rate=settings.csv_rate,
            delay=settings.csv_delay_ms / 1000,
            loop=settings.csv_loop,
            again=settings.csv_again,
        )
        return self._in_thread(CsvStreamer(self._broker, options, note).run, self.stop)

    def go_live(self) -> "asyncio.Future[None]":
        """Lets the dump go on as a live fleet."""
        fleet = LiveFleet(self._broker, self._require_csv(), self._settings.msg_queue_topic, metrics=self._metrics)
        return self._in_thread(fleet.run, self.stop)

    async def all_stored(self) -> None:
        """Returns once every record of the topic is in the store, or in the dead-letter topic, and acked.

        A group's lag says so only after the collector has moved the group to the store's position.
        """
        while not await asyncio.to_thread(self._is_all_stored):
            self._committed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CHECK_SECONDS):
                    await self._committed.wait()

    def _is_all_stored(self) -> bool:
        return self.collector.status.adopted and self.lag() == 0

    def dead_letters(self) -> int:
        """Records in the dead-letter topic, those of earlier runs too."""
        try:
            partitions = self._broker.describe_topic(f"{self._settings.msg_queue_topic}.dlq").partitions
        except NotFoundError:
            return 0
        return sum(partition.end_offset - partition.start_offset for partition in partitions)

    def lag(self) -> int | None:
        """Records that are not stored and acked yet; None: not known, as a broker is away or there is no group yet."""
        settings = self._settings
        try:
            group = self._broker.describe_group(settings.msg_queue_topic, settings.msg_queue_group)
        except (NotFoundError, *TRANSIENT):
            return None
        return None if group.missing_brokers else group.lag

    def count_stored(self, streamed: Progress, began: float) -> Stored:
        """Asks the store how much of the dump it holds, over the dump's own times."""
        complete = streamed.rows and not streamed.resumed and streamed.from_start
        whole = streamed if complete else count_dump(self._require_csv(), metrics=self._metrics)
        seconds = time.monotonic() - began
        if whole.first_ns is None or whole.last_ns is None:
            return Stored(0, whole.samples, 0, 0, 0, seconds)
        found = self._store.summary(whole.first_ns, whole.last_ns + 1)
        return Stored(
            found.samples, whole.samples, self.collector.status.samples_stored, found.gpus, found.hosts, seconds
        )

    async def end(self) -> None:
        """Stops the threads; the collector commits and acks what it holds."""
        working = [work for work in self._working if not work.done()]
        self.stop.set()
        await asyncio.to_thread(self._workers.shutdown)
        for error in await asyncio.gather(*working, return_exceptions=True):
            if isinstance(error, BrokerError):
                log.warning("stopped while records were on their way; what is not acked comes again: %s", error)
            elif isinstance(error, Exception):
                raise error

    def _note_commit(self, _: Status) -> None:
        self._loop.call_soon_threadsafe(self._committed.set)

    def _in_thread(self, work: Callable[..., Any], *arguments: Any) -> "asyncio.Future[Any]":
        working = self._loop.run_in_executor(self._workers, work, *arguments)
        self._working.append(working)
        return working

    def _require_csv(self) -> Path:
        if self._csv is None:
            raise AssertionError("nothing is streamed without a dump")
        return self._csv
