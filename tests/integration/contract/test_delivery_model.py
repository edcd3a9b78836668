"""At-least-once against a plain model: nothing acked returns, nothing is lost, nothing is leased twice at once."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)

import telemetry_broker as tb
from telemetry_broker.testing import ManualClock
from tests.integration.contract.portal import Connect, Portal

LEASE = 30.0


class DeliveryMachine(RuleBasedStateMachine):
    """A broker in memory against two dicts, under a clock that only the test moves."""

    batches = Bundle("batches")

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock()
        self.unacked: set[bytes] = set()
        self.attempts: dict[bytes, int] = {}
        self.leased_until: dict[bytes, float] = {}
        self.holder: dict[bytes, tb.Batch] = {}
        self.sent = 0
        self.restarted = False
        self.open()

    def url(self) -> str:
        return "mem://"

    def connect(self) -> Connect:
        return tb.connect

    def open(self) -> None:
        self.broker = self.connect()(self.url(), clock=self.clock)
        self.consumer = self.broker.consumer("t", "g", visibility_timeout=LEASE)
        self.holder.clear()
        self.leased_until.clear()  # leases do not outlive the broker: every unacked record is ready again

    @initialize(partitions=st.integers(1, 3))
    def create(self, partitions: int) -> None:
        self.broker.create_topic("t", partitions=partitions, max_attempts=0)

    @rule(count=st.integers(1, 5), key=st.sampled_from([None, b"a", b"b", b"c"]))
    def send(self, count: int, key: bytes | None) -> None:
        with self.broker.producer("t", linger=60) as producer:  # one batch, however slow this is
            for _ in range(count):
                value = b"%d" % self.sent
                self.sent += 1
                producer.send(value, key=key)
                self.unacked.add(value)

    @rule(target=batches, most=st.integers(1, 4))
    def receive(self, most: int) -> object:
        batch = self.consumer.receive(max_records=most)
        for value in batch.values:
            assert value in self.unacked, f"{value!r} was acked and came again"
            assert self.leased_until.get(value, 0.0) <= self.clock.now(), f"{value!r} leased twice at once"
            assert 1 <= batch.attempt <= self.attempts.get(value, 0) + 1
            assert batch.attempt > self.attempts.get(value, 0) or self.restarted, "a restart may forget attempts"
            self.attempts[value] = batch.attempt
            self.leased_until[value] = self.clock.now() + LEASE
            self.holder[value] = batch
        if not batch:
            now = self.clock.now()
            ready = [value for value in self.unacked if self.leased_until.get(value, 0.0) <= now]
            assert not ready, f"{ready} are ready and did not come"
            return multiple()
        return batch

    def held(self, batch: tb.Batch, offsets: list[int]) -> tuple[set[bytes], bool]:
        """The values at these offsets that still are the batch's, and whether some are not."""
        values = [batch.values[offset - batch.base_offset] for offset in offsets]
        held = {value for value in values if self.holder.get(value) is batch}
        return held, len(held) < len(values)

    @rule(batch=consumes(batches), data=st.data())
    def ack(self, batch: tb.Batch, data: st.DataObject) -> None:
        if batch._leases is not self.consumer._leases:
            return  # of the broker before
        offsets = data.draw(st.lists(st.sampled_from(batch.offsets), min_size=1, unique=True))
        held, some_stale = self.held(batch, offsets)
        try:
            batch.ack(offsets)
        except tb.StaleLeaseError:
            assert some_stale
        else:
            assert not some_stale
        self.unacked -= held

    @rule(batch=consumes(batches), delay=st.sampled_from([0.0, 10.0]))
    def nack(self, batch: tb.Batch, delay: float) -> None:
        if batch._leases is not self.consumer._leases:
            return  # of the broker before
        held, _ = self.held(batch, list(batch.offsets))
        with contextlib.suppress(tb.StaleLeaseError):
            batch.nack(delay)
        for value in held & self.unacked:
            self.leased_until[value] = self.clock.now() + delay
            del self.holder[value]

    @rule(seconds=st.sampled_from([1.0, 10.0, LEASE]))
    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @precondition(lambda self: self.url() != "mem://")
    @rule(flush=st.booleans())
    def restart(self, flush: bool) -> None:
        self.consumer.close(give_back=False)
        self.broker.close(flush=flush)  # without the flush: what kill -9 leaves behind
        self.restarted = True
        self.open()

    @invariant()
    def lag_is_what_is_not_acked(self) -> None:
        if self.broker.groups("t"):
            assert self.broker.describe_group("t", "g").lag == len(self.unacked)

    def teardown(self) -> None:
        self.clock.advance(LEASE)
        left: list[bytes] = []
        while batch := self.consumer.receive():
            left += batch.values
            batch.ack()
        assert sorted(left) == sorted(self.unacked)
        self.broker.close()


class FolderMachine(DeliveryMachine):
    """The same over a folder, and through restarts."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        super().__init__()

    def url(self) -> str:
        return f"file://{self.folder}"

    def teardown(self) -> None:
        try:
            super().teardown()
        finally:
            shutil.rmtree(self.folder)


class AsyncMachine(DeliveryMachine):
    """The same over the asynchronous face."""

    def __init__(self) -> None:
        self.portal = Portal()
        super().__init__()

    def connect(self) -> Connect:
        return self.portal.connect

    def teardown(self) -> None:
        try:
            super().teardown()
        finally:
            self.portal.stop()


TestDeliveryInMemory = DeliveryMachine.TestCase
TestDeliveryInAFolder = FolderMachine.TestCase
TestDeliveryToAsyncio = AsyncMachine.TestCase
# Topics and restarts of this one wait for the disk.
TestDeliveryInAFolder.settings = settings(max_examples=max(5, settings().max_examples // 10))
