"""A client drives a real broker process against a plain model, through kills and restarts of that process.

Nothing that was answered is lost, nothing acked comes again, and a named producer's batch is there once however often
it was sent. MACHINE_SECONDS lengthens the search.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

import telemetry_broker as tb
from tests.integration.service_processes import BrokerProcess

PARTITIONS = 2
SECONDS = float(os.environ.get("MACHINE_SECONDS", "30"))
PATIENCE = 20.0


class BrokerLives(RuleBasedStateMachine):
    """One topic, one group, one named producer; the process dies and comes back on the same port."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.process = BrokerProcess(self.folder)
        self.port = int(self.process.grpc.rpartition(":")[2])
        self.stored: dict[bytes, int] = {}  # value -> its partition
        self.acked: set[bytes] = set()
        self.open_batches: list[tb.Batch] = []
        self.sequences = dict.fromkeys(range(PARTITIONS), 0)
        self.sent = 0
        self.consumers = 0

    @initialize(durability=st.sampled_from(["os", "fsync"]))
    def connect(self, durability: tb.Durability) -> None:
        self.client = tb.connect(self.process.url)
        self.client.create_topic("t", partitions=PARTITIONS, durability=durability, max_attempts=0)
        self.subscribe()

    def subscribe(self) -> None:
        self.consumers += 1
        self.consumer = self.client.consumer("t", "g", name=f"c{self.consumers}", visibility_timeout=600)

    def values(self, count: int) -> list[bytes]:
        made = [b"%d" % number for number in range(self.sent, self.sent + count)]
        self.sent += count
        return made

    @rule(count=st.integers(1, 5), partition=st.integers(0, PARTITIONS - 1))
    def send(self, count: int, partition: int) -> None:
        values = self.values(count)
        with self.client.producer("t", linger=60) as producer:  # one batch, however slow this is
            for value in values:
                producer.send(value, partition=partition)
        self.stored |= dict.fromkeys(values, partition)

    @rule(
        count=st.integers(1, 5), partition=st.integers(0, PARTITIONS - 1), times=st.integers(1, 3), dies=st.booleans()
    )
    def send_named(self, count: int, partition: int, times: int, dies: bool) -> None:
        """One batch under one sequence, sent again by producers that do not know of each other."""
        values = self.values(count)
        self.sequences[partition] += 10
        encoded = b"".join(b"\x7a%c\x0a%c%b" % (len(value) + 2, len(value), value) for value in values)
        for attempt in range(times):
            with self.client.producer("t", name="named") as producer:
                assert producer.sequences == {
                    number: sequence - (10 if number == partition and attempt == 0 else 0)
                    for number, sequence in self.sequences.items()
                }
                appended = producer.append(encoded, partition=partition, sequence=self.sequences[partition])
                assert appended.duplicate == (attempt > 0)
            if dies and attempt == 0:
                self.restart(kill=True)
        self.stored |= dict.fromkeys(values, partition)

    @rule(most=st.integers(1, 6))
    def receive(self, most: int) -> None:
        batch = self.consumer.receive(max_records=most, wait=0)
        for value in batch.values:
            assert value in self.stored, f"{value!r} came from nowhere"
            assert self.stored[value] == batch.partition
            assert value not in self.acked, f"{value!r} was acked and came again"
            held = [batch.values for batch in self.open_batches]
            assert not any(value in values for values in held), f"{value!r} is leased twice at once"
        if batch:
            self.open_batches.append(batch)

    @rule(data=st.data())
    def ack(self, data: st.DataObject) -> None:
        if self.open_batches:
            batch = self.open_batches.pop(data.draw(st.integers(0, len(self.open_batches) - 1)))
            batch.ack()
            self.acked.update(batch.values)

    @rule(data=st.data())
    def nack(self, data: st.DataObject) -> None:
        if self.open_batches:
            self.open_batches.pop(data.draw(st.integers(0, len(self.open_batches) - 1))).nack()

    @rule(kill=st.booleans())
    def restart(self, kill: bool) -> None:
        self.process.kill() if kill else self.process.stop()
        with self.process:
            pass
        self.process = BrokerProcess(self.folder, grpc_port=self.port)
        # Leases end with the broker; their batches are some other consumer's now.
        self.open_batches.clear()
        self.consumer.close(give_back=False)
        self.subscribe()

    @invariant()
    def the_log_holds_what_was_stored_once(self) -> None:
        if not hasattr(self, "client"):
            return
        lag = self.client.describe_group("t", "g").lag if self.client.groups("t") else len(self.stored)
        assert lag == len(self.stored) - len(self.acked)

    def teardown(self) -> None:
        try:
            if hasattr(self, "client"):
                self.check_at_the_end()
        finally:
            self.process.kill()
            with self.process:
                pass
            shutil.rmtree(self.folder)

    def check_at_the_end(self) -> None:
        for partition in range(PARTITIONS):
            read: list[bytes] = []
            at: tb.Position = tb.START
            while page := self.client.read("t", partition, at, max_records=1000):
                read += page.values
                at = page.next
            expected = [value for value, where in self.stored.items() if where == partition]
            assert read == expected, "the log is what was answered, in that order, each once"
        for batch in self.open_batches:
            batch.nack()
        left: list[bytes] = []
        deadline = time.monotonic() + PATIENCE
        while len(left) < len(self.stored) - len(self.acked):
            assert time.monotonic() < deadline, "some records do not come"
            batch = self.consumer.receive(wait=1)
            left += batch.values
            if batch:
                batch.ack()
        assert sorted(left) == sorted(set(self.stored) - self.acked)
        assert not self.consumer.receive(wait=0)
        self.consumer.close()
        self.client.close()


TestBrokerLives = BrokerLives.TestCase
# A life takes some seconds, most of them for starting processes.
TestBrokerLives.settings = settings(
    max_examples=max(3, round(SECONDS / 8)),
    stateful_step_count=15,
    suppress_health_check=list(HealthCheck),
    deadline=None,
)
TestBrokerLives = pytest.mark.timeout(max(120, 4 * SECONDS))(TestBrokerLives)
