"""What a broker costs while nothing happens: a `telemetry broker` process with a thousand partitions and one waiter."""

import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import telemetry_broker as tb
from benchmarks.broker import started_broker
from benchmarks.processes import cpu_seconds, resident_bytes
from benchmarks.results import Result
from benchmarks.workload import Workload

PARTITIONS = 1000
SETTLE_SECONDS = 6.0
"""Longer than the background sync waits after a write."""
WATCH_SECONDS = 5.0


def measure_idle(workload: Workload) -> Iterator[Result]:
    with workload.scratch() as folder, started_broker(folder) as (url, pid), tb.connect(url) as client:
        client.create_topic("idle", partitions=PARTITIONS, durability="os")
        with client.producer("idle") as producer:
            for partition in range(PARTITIONS):
                producer.send(b"one record, so that each partition has a segment", partition=partition)
        consumer = client.consumer("idle", group="bench", visibility_timeout=3600, max_records=PARTITIONS)
        taken = 0
        while taken < PARTITIONS:
            batch = consumer.receive(wait=10)
            taken += batch.ack()
        waiter = threading.Thread(target=wait_for_nothing, args=(consumer,), daemon=True)
        waiter.start()
        time.sleep(SETTLE_SECONDS)
        before = cpu_seconds(pid)
        time.sleep(WATCH_SECONDS)
        spent = cpu_seconds(pid) - before
        resident = resident_bytes(pid)
        consumer.close()
        waiter.join()
    what = f"telemetry broker, {PARTITIONS:,} partitions with a record each, one consumer that waits"
    yield Result("idle: CPU", spent / WATCH_SECONDS * 100, "% of a core", what, target=1, lower_is_better=True)
    yield Result("idle: memory", resident / 1e6, "MB", what, target=100, lower_is_better=True)


def wait_for_nothing(consumer: tb.Consumer) -> None:
    with suppress(tb.ClosedError):
        consumer.receive(wait=None)
