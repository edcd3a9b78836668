"""What a thousand consumers that wait cost a `telemetry broker`: each with a connection of its own, on one topic."""

import asyncio
import resource
from collections.abc import Iterator

from benchmarks.broker import started_broker
from benchmarks.processes import cpu_seconds, resident_bytes
from benchmarks.results import Result
from benchmarks.workload import Workload
from telemetry_broker import aio

CONSUMERS = 1000
SETTLE_SECONDS = 5.0


def measure_consumers(workload: Workload, seconds: float) -> Iterator[Result]:
    """Its CPU time over so many seconds, and its resident memory."""
    allow_files(CONSUMERS * 4)
    with workload.scratch() as folder, started_broker(folder) as (url, pid):
        spent, resident = asyncio.run(watch(url, pid, seconds))
    what = f"telemetry broker, {CONSUMERS:,} consumers of one group wait, a connection each"
    yield Result("consumers: idle CPU", spent / seconds * 100, "% of a core", what, target=3, lower_is_better=True)
    yield Result("consumers: memory", resident / 1e6, "MB", what, target=300, lower_is_better=True)


async def watch(url: str, pid: int, seconds: float) -> tuple[float, int]:
    """CPU seconds and resident bytes of the broker while they wait; then each gets a record, so that all are there."""
    brokers = [await aio.connect(url) for _ in range(CONSUMERS)]
    await brokers[0].create_topic("crowd", partitions=4, durability="os")
    consumers = [broker.consumer("crowd", group="bench", max_records=1) for broker in brokers]
    waiting = [asyncio.create_task(consumer.receive(wait=None)) for consumer in consumers]
    await asyncio.sleep(SETTLE_SECONDS)
    before = cpu_seconds(pid)
    await asyncio.sleep(seconds)
    spent, resident = cpu_seconds(pid) - before, resident_bytes(pid)
    async with brokers[0].producer("crowd") as producer:
        await producer.send_many([b"for one of them"] * CONSUMERS)
    async with asyncio.timeout(60):
        await asyncio.gather(*waiting)
    for broker in brokers:
        await broker.close()
    return spent, resident


def allow_files(count: int) -> None:
    """Raises the soft bound on open files, which the broker inherits, as far as the hard one lets it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(count, hard)), hard))
