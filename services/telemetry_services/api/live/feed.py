"""What comes into the topic, read once for the whole process, without a group and without a lease.

A task a partition waits for records, decodes them in a thread, takes them into the fleet, and hands the rows to
whoever listens. Reading makes no group, so a broker with viewers keeps nothing for them; when this process cannot keep
up, the feed jumps to the end of the partition, and the listeners are told how many records were passed over.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, Protocol

from telemetry_broker import END, AtTime, Offset, Position, aio
from telemetry_broker.batch import Page
from telemetry_broker.errors import BrokerError, NotFoundError
from telemetry_services.api.live.fleet import Fleet
from telemetry_services.api.live.samples import Rows, decode
from telemetry_services.store import Store, StoreError

log = logging.getLogger(__name__)

MAX_BEHIND_SECONDS: Final = 10.0
"""Records that came longer ago are passed over."""
START_BEHIND_SECONDS: Final = 5.0
"""The feed begins with what came in this time: the store has what came before."""

_MAX_RECORDS: Final = 65_536
_MAX_BYTES: Final = 4 << 20
_WAIT_SECONDS: Final = 10.0
_RETRY_SECONDS: Final = 1.0
_LOOK_SECONDS: Final = 10.0
_STORE_SECONDS: Final = 60.0
"""Between two looks at the store: of GPUs whose records a collector that lags stores late, the feed knows nothing."""

Positions = Mapping[int, Offset]
"""Where each partition is read on from."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of one page of one partition.

    Attributes:
        gpus: the number of each row's GPU in the fleet; -1: none.
        passed_over: records before these that were not read.
    """

    partition: int
    rows: Rows
    gpus: list[int]
    next: Offset
    passed_over: int = 0


class Listener(Protocol):
    """Gets each batch, on the event loop."""

    def __call__(self, batch: Batch) -> None: ...


Connect = Callable[[], contextlib.AbstractAsyncContextManager[aio.Broker]]


class Feed:
    """The reader of one topic. Used on one event loop.

    Args:
        connect: opens the broker, and again after it was lost.
    """

    def __init__(self, connect: Connect, topic: str, fleet: Fleet, store: Store) -> None:
        self._connect = connect
        self._topic = topic
        self._fleet = fleet
        self._store = store
        self._positions: dict[int, Offset] = {}
        self._listeners: list[Listener] = []
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="feed")
        self._task: asyncio.Task[None] | None = None
        self._broker: aio.Broker | None = None
        self.trouble = ""
        """Why nothing comes in; empty: it does, or nothing is sent."""

    @property
    def positions(self) -> Positions:
        """Where each partition will be read on from; everything before has been given to the listeners."""
        return self._positions

    def listen(self, listener: Listener) -> None:
        """Has a listener called with each batch from here on."""
        self._listeners.append(listener)

    def start(self) -> None:
        """Reads from here on."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Reads no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        self._worker.shutdown(wait=False, cancel_futures=True)

    async def read(self, partition: int, start: Position, max_records: int = _MAX_RECORDS) -> Page:
        """A page of a partition, for whoever wants to see what the feed has passed; raises BrokerError."""
        if self._broker is None:
            raise NotFoundError(f"the topic {self._topic!r} cannot be read yet: {self.trouble or 'connecting'}")
        return await self._broker.read(self._topic, partition, start, max_records, _MAX_BYTES)

    async def decode(self, page: Page) -> tuple[Rows, list[int]]:
        """The rows of a page and their GPUs; nothing is taken in."""
        loop = asyncio.get_running_loop()
        rows = await loop.run_in_executor(self._worker, decode, page.ranges, time.time_ns())
        return rows, self._fleet.find(rows)

    async def _run(self) -> None:
        await asyncio.to_thread(self._take_in_store)
        looking = asyncio.create_task(self._look_at_store())
        try:
            while True:
                try:
                    async with self._connect() as broker:
                        self._broker = broker
                        await self._follow_all(broker)
                except BrokerError as error:
                    self._tell(f"the topic {self._topic!r} cannot be read: {error}")
                finally:
                    self._broker = None
                await asyncio.sleep(_RETRY_SECONDS)
        finally:
            looking.cancel()

    async def _look_at_store(self) -> None:
        while True:
            await asyncio.sleep(_STORE_SECONDS)
            await asyncio.to_thread(self._take_in_store)

    def _take_in_store(self) -> None:
        try:
            self._fleet.put_latest(self._store.latest())
        except StoreError as error:
            log.warning("the fleet lacks what the store has: %s", error)

    async def _follow_all(self, broker: aio.Broker) -> None:
        """Follows every partition, those that come to be later included, until one of them cannot be read."""
        async with _cancelled_at_end() as following:
            while True:
                for partition in (await broker.describe_topic(self._topic)).partitions:
                    if partition.partition not in following:
                        task = asyncio.create_task(self._follow(broker, partition.partition))
                        following[partition.partition] = task
                self._tell("")
                done, _ = await asyncio.wait(
                    following.values(), timeout=_LOOK_SECONDS, return_when=asyncio.FIRST_COMPLETED
                )
                for task in done:
                    task.result()

    async def _follow(self, broker: aio.Broker, partition: int) -> None:
        loop = asyncio.get_running_loop()
        start: Position = self._positions.get(partition) or AtTime(
            time.time_ns() - round(START_BEHIND_SECONDS * 1_000_000_000)
        )
        passed_over = 0
        while True:
            try:
                page = await broker.read(self._topic, partition, start, _MAX_RECORDS, _MAX_BYTES, wait=_WAIT_SECONDS)
            except NotFoundError as error:
                if error.code != "position.log_id":
                    raise
                start = END  # the partition was made anew
                continue
            if page and _age_seconds(page) > MAX_BEHIND_SECONDS:
                end = (await broker.read(self._topic, partition, END)).next
                passed_over += max(0, end.offset - page.ranges[0].base_offset)
                start = self._positions[partition] = end
                continue
            if page:
                rows, gpus = await loop.run_in_executor(self._worker, self._take_in, page)
                self._positions[partition] = page.next
                batch = Batch(partition, rows, gpus, page.next, passed_over)
                passed_over = 0
                for listener in self._listeners:
                    listener(batch)
            else:
                self._positions[partition] = page.next
            start = page.next

    def _take_in(self, page: Page) -> tuple[Rows, list[int]]:
        rows = decode(page.ranges, time.time_ns())
        return rows, self._fleet.take_in(rows)

    def _tell(self, trouble: str) -> None:
        if trouble and not self.trouble:
            log.warning("Live values stop: %s", trouble)
        elif self.trouble and not trouble:
            log.info("Live values go on")
        self.trouble = trouble


def _age_seconds(page: Page) -> float:
    return (time.time_ns() - page.ranges[-1].append_times_ns[-1]) / 1_000_000_000


@contextlib.asynccontextmanager
async def _cancelled_at_end() -> AsyncIterator[dict[int, asyncio.Task[None]]]:
    tasks: dict[int, asyncio.Task[None]] = {}
    try:
        yield tasks
    finally:
        for task in tasks.values():
            task.cancel()
        if tasks:
            await asyncio.wait(tasks.values())
