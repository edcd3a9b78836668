"""The credit of a Consume stream, against a broker that sends, answers and dies whenever it likes."""

from __future__ import annotations

import time
from collections import deque

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from telemetry_broker import _core
from telemetry_broker.inflow import Inflow, Taken
from telemetry_broker.leases import LeaseBook
from telemetry_broker.pace import MOST_DELIVERIES
from telemetry_broker.receiving import Demand
from telemetry_broker.v1 import broker_pb2 as pb


class CreditMachine(RuleBasedStateMachine):
    """What is on its way is in two queues; the broker's credit is worked out from the messages alone."""

    def __init__(self) -> None:
        super().__init__()
        demand = Demand(
            "t",
            "g",
            mode="shared",
            visibility_timeout=None,
            partitions=None,
            max_records=10,
            max_bytes=1 << 20,
            idle_timeout=None,
            reconnect_timeout=1.0,
            max_lease_extension=None,
            name=None,
        )
        self.inflow = Inflow(demand, LeaseBook("t", "g", ordered=False).add)
        self.to_broker: deque[bytes] = deque()
        self.to_client: deque[bytes] = deque()
        self.alive = False
        self.credit = self.waiting = self.iterations = self.offset = 0

    @precondition(lambda self: not self.alive and self.inflow.needed)
    @rule()
    def begin(self) -> None:
        self.alive = True
        self.credit = 0
        self.inflow.begin(lambda message, *_: self.to_broker.append(message))

    @precondition(lambda self: self.alive)
    @rule()
    def die(self) -> None:
        self.alive = False
        self.to_broker.clear()
        self.to_client.clear()
        self.inflow.ended()
        assert self.inflow.settled

    @precondition(lambda self: self.to_broker)
    @rule()
    def broker_reads(self) -> None:
        request = pb.ConsumeRequest.FromString(self.to_broker.popleft())
        if request.HasField("start"):
            assert request.start.credit_deliveries > 0
            self.credit = request.start.credit_deliveries
            return
        assert request.credit.replace or request.credit.deliveries > 0
        if request.credit.replace:
            self.credit = 0
            self.to_client.append(pb.ConsumeResponse(credited=pb.Credited()).SerializeToString())
        self.credit += request.credit.deliveries

    @precondition(lambda self: self.alive and self.credit > 0)
    @rule(records=st.integers(1, 10))
    def broker_sends(self, records: int) -> None:
        self.credit -= 1
        delivery = pb.Delivery(
            topic="t",
            base_offset=self.offset,
            lease_id=b"%d" % self.offset,
            visibility_timeout_ms=30_000,
            records=[pb.Record(value=b"x")] * records,
        )
        self.offset += records
        self.to_client.append(pb.ConsumeResponse(delivery=delivery).SerializeToString())

    @precondition(lambda self: self.to_client)
    @rule()
    def client_reads(self) -> None:
        message = self.to_client.popleft()
        deliveries = _core.Delivery.parse(message) if message.startswith(b"\x0a") else []
        self.inflow.came(deliveries[0] if deliveries else message)

    @rule()
    def enter(self) -> None:
        self.iterations += 1
        self.inflow.enter()

    @precondition(lambda self: self.iterations > self.waiting)
    @rule()
    def leave(self) -> None:
        self.iterations -= 1
        self.inflow.leave()

    @precondition(lambda self: self.iterations > self.waiting)
    @rule()
    def wait(self) -> None:
        self.waiting += 1
        self.inflow.wait()

    @precondition(lambda self: self.waiting)
    @rule(pace=st.sampled_from([0.0, 0.2, 5.0]))
    def take_or_give_up(self, pace: float) -> None:
        self.waiting -= 1
        self.inflow.wait(over=True)
        taken: Taken | None = self.inflow.pop(10)
        if taken is not None:
            self.inflow.handed_out(taken, time.monotonic() + pace)

    @precondition(lambda self: self.alive)
    @rule(sends=st.integers(0, 3))
    def arrive(self, sends: int) -> None:
        """All that is on its way, after a few more deliveries."""
        while self.to_broker:
            self.broker_reads()
        for _ in range(min(sends, self.credit)):
            self.broker_sends(10)
        while self.to_client:
            self.client_reads()

    @precondition(lambda self: self.alive and self.iterations > self.waiting)
    @rule()
    def handle_fast(self) -> None:
        """Two deliveries without a pause between them: from now on some are taken ahead."""
        for _ in range(2):
            self.wait()
            self.arrive(3)
            self.take_or_give_up(0.0)

    @invariant()
    def nothing_comes_beyond_what_is_wanted(self) -> None:
        if self.inflow.settled and not self.to_broker:
            in_flight = sum(message.startswith(b"\x0a") for message in self.to_client)
            assert in_flight + len(self.inflow.ready) + self.credit <= max(MOST_DELIVERIES, self.iterations)

    @invariant()
    def once_settled_who_does_not_ask_gets_nothing(self) -> None:
        if self.alive and not self.iterations and not self.to_broker and self.inflow.settled:
            assert self.credit == 0
            assert not self.to_client

    @invariant()
    def who_waits_gets_credit(self) -> None:
        if self.alive and not self.to_broker and not self.to_client:
            assert self.inflow.settled
            assert self.credit + len(self.inflow.ready) >= self.waiting


TestCredit = CreditMachine.TestCase
TestCredit.settings = settings(deadline=None, max_examples=200, stateful_step_count=40)
