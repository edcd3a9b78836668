"""How long a partition is without service when its broker, one of three, is killed or hangs."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Self

import telemetry_broker as tb
from benchmarks.broker import started_broker
from benchmarks.results import Result
from benchmarks.workload import PAYLOAD_BYTES, Workload

BROKERS = 3
PARTITIONS = 6
SEND_SECONDS = 0.002
LOOK_SECONDS = 0.001
WARM_SECONDS = 1.0
WATCHED_SECONDS = 6.0
FAULTS = {"kill -9": (signal.SIGKILL, 1.0), "SIGSTOP": (signal.SIGSTOP, 3.0)}
"""The signal, and how many seconds a partition may be without service."""


class Service:
    """A producer and a consumer of one partition, and the longest times that either had nothing."""

    def __init__(self, broker: tb.Broker, partition: int) -> None:
        self.errors = 0
        self.stored_gap = self.received_gap = 0.0
        self._stop = threading.Event()
        self._broker = broker
        self._partition = partition
        self._threads = [threading.Thread(target=work) for work in (self._produce, self._consume)]

    def watch(self, seconds: float) -> None:
        """Forgets what was, and waits for so long."""
        self.stored_gap = self.received_gap = 0.0
        time.sleep(seconds)

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _failed(self, _: tb.BrokerError) -> None:
        self.errors += 1

    def _produce(self) -> None:
        producer = self._broker.producer("t", linger=0, on_error=self._failed)
        stored, since, due = 0, time.monotonic(), time.monotonic()
        while not self._stop.is_set():
            if time.monotonic() >= due:
                producer.send(bytes(PAYLOAD_BYTES), partition=self._partition)
                due += SEND_SECONDS
            now = time.monotonic()
            if producer.stored_records > stored:
                stored, since = producer.stored_records, now
            self.stored_gap = max(self.stored_gap, now - since)
            time.sleep(LOOK_SECONDS)
        producer.close(flush=False)  # a broker that is gone answers nothing

    def _consume(self) -> None:
        since = time.monotonic()
        while not self._stop.is_set():
            with self._broker.consumer("t", "g", partitions=[self._partition], idle_timeout=0.5) as consumer:
                for batch in consumer:
                    now = time.monotonic()
                    self.received_gap, since = max(self.received_gap, now - since), now
                    with contextlib.suppress(tb.StaleLeaseError):  # of the broker that is gone: they come again
                        batch.ack()
                    if self._stop.is_set():
                        return


def measure_failover(workload: Workload) -> Iterator[Result]:
    """Unnamed producers and a shared group, by the client's own routing; the longest of all rounds."""
    for fault, (number, most_seconds) in FAULTS.items():
        rounds = [fail_over(workload, number) for _ in range(workload.rounds)]
        client = f"send with linger 0 each {SEND_SECONDS * 1000:.0f} ms to its partition; longest of {len(rounds)}"
        yield Result(
            name=f"{fault} of one of {BROKERS} brokers: until records are stored again",
            value=max(stored for stored, _, _ in rounds),
            unit="s",
            client=client,
            payload_bytes=PAYLOAD_BYTES,
            durability="os",
            target=most_seconds,
            lower_is_better=True,
        )
        yield Result(
            name=f"{fault} of one of {BROKERS} brokers: until records are received again",
            value=max(received for _, received, _ in rounds),
            unit="s",
            client="iterate over that partition, ack each batch",
            payload_bytes=PAYLOAD_BYTES,
            durability="os",
        )
        yield Result(
            name=f"{fault} of one of {BROKERS} brokers: errors that the producer was told",
            value=sum(errors for _, _, errors in rounds),
            unit="errors",
            client="on_error",
            target=0,
            lower_is_better=True,
        )


def fail_over(workload: Workload, number: signal.Signals) -> tuple[float, float, int]:
    """Seconds until records are stored, and received, and how many errors the producer was told."""
    with workload.scratch() as folder, contextlib.ExitStack() as stack:
        brokers = {}
        for name in (f"b{index}" for index in range(BROKERS)):
            own = folder / name
            own.mkdir()
            url, pid = stack.enter_context(started_broker(own))
            brokers[name] = url.removeprefix("grpc://"), pid
        members = ",".join(f"{name}={address}" for name, (address, _) in brokers.items())
        broker = stack.enter_context(tb.connect(f"grpc://{members}"))
        broker.create_topic("t", partitions=PARTITIONS, durability="os")
        victim = next(state.broker for state in broker.describe_topic("t").partitions if state.partition == 0)
        with Service(broker, 0) as service:
            service.watch(WARM_SECONDS)
            os.kill(brokers[victim][1], number)
            service.watch(WATCHED_SECONDS)
            result = service.stored_gap, service.received_gap, service.errors
            if number == signal.SIGSTOP:
                os.kill(brokers[victim][1], signal.SIGCONT)
    return result
