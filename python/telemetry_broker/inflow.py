"""What came for a consumer and what may still come: the decisions of both faces, with no I/O, no thread and no lock."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable
from typing import Protocol

from telemetry_broker import _core
from telemetry_broker.errors import BrokerError, UnavailableError
from telemetry_broker.leases import Lease
from telemetry_broker.pace import FEW_DELIVERIES, Pace
from telemetry_broker.receiving import Demand
from telemetry_broker.stream_messages import ANSWERS, error_of
from telemetry_broker.transport import Done, Streamed
from telemetry_broker.v1 import broker_pb2 as pb

Taken = tuple[_core.Delivery, Lease]


class Send(Protocol):
    """``Stream.send``."""

    def __call__(self, message: bytes, waiting: deque[Done] | None = None, who: Done | None = None) -> None:
        """Puts a message on its way, in order, and neither waits nor raises."""


class Inflow:
    """The books of one consumer's Consume stream. Who calls sees to it that one thread at a time does.

    Credit counts deliveries, and the broker has as much as somebody waits for or the pace allows: none while nobody
    iterates. A credit that is taken back is answered, so that it is known when nothing more is on its way.

    Attributes:
        ready: what came and nobody has, oldest first.
        asking: iterations under way.
    """

    def __init__(self, demand: Demand, add: Callable[[_core.Delivery], Lease]) -> None:
        """``add`` takes note of a delivery's lease."""
        self.ready: deque[Taken] = deque()
        self.asking = 0
        self._demand = demand
        self._add = add
        self._pace = Pace(demand.max_bytes)
        self._send: Send | None = None  # None: there is no stream
        self._ahead = 0  # deliveries to have ahead of the handler
        self._most_ahead = 0  # and to leave there: no credit is taken back because one delivery was small
        self._waiting = 0  # callers without a delivery
        self._credit = 0  # deliveries that may come
        self._unsettled = 0  # credits taken back, and not answered yet
        self._asked: deque[Done] = deque()

    # The stream.

    def begin(self, send: Send) -> None:
        """A new stream: sends its start."""
        self._credit = max(1, self._target())  # 0 is no credit to begin with
        self._send = send
        send(self._demand.encode_start(self._credit))

    def came(self, message: Streamed) -> None:
        """Takes a message of the broker's; raises what it says of a failure."""
        if isinstance(message, _core.Delivery):
            self.ready.append((message, self._add(message)))
            if not self._unsettled:  # else it was sent on the credit that was taken back
                self._credit -= 1
            return
        response = pb.ConsumeResponse.FromString(message)
        match response.WhichOneof("response"):
            case "credited":
                self._unsettled -= 1
                self._balance()
            case "goodbye":
                raise UnavailableError("the broker is stopping", code="broker.draining", retry_after=1.0)
            case str(kind) if kind in ANSWERS:
                answer = error_of(response.error) if kind == "error" else getattr(response, kind).SerializeToString()
                if not self._asked:
                    raise answer if isinstance(answer, BrokerError) else BrokerError(f"{kind} that nobody asked for")
                self._asked.popleft()(answer)

    def ask(self, message: bytes, settle: Done) -> bool:
        """Sends an ack, nack or extend over the stream, if there is one; ``settle`` gets its answer."""
        if self._send is None:
            return False
        self._send(message, self._asked, settle)
        return True

    def ended(self) -> list[Lease]:
        """The stream is no more. Returns the leases of what came and nobody has: the broker gives it out again.

        Who asked over the stream gets no answer from here.
        """
        self._asked.clear()
        self._send = None
        self._credit = self._unsettled = 0
        dropped = [lease for _, lease in self.ready]
        self.ready.clear()
        return dropped

    @property
    def needed(self) -> bool:
        """Whether there is to be a stream: somebody waits, or is fast enough to get something ahead."""
        return self._waiting > 0 or self._ahead > 0

    @property
    def settled(self) -> bool:
        """Whether nothing is on its way that was sent on a credit taken back."""
        return self._unsettled == 0

    # Those who ask.

    def enter(self) -> None:
        """An iteration begins."""
        self.asking += 1

    def leave(self) -> None:
        """It ends: without any, nothing more is to come."""
        self.asking -= 1
        if not self.asking:
            self.rest()

    def rest(self) -> None:
        """Nothing is to come ahead until the next delivery is handed out."""
        self._ahead = self._most_ahead = 0
        self._balance()

    def wait(self, *, over: bool = False) -> None:
        """Somebody waits for a delivery, or does so no more."""
        self._waiting += -1 if over else 1
        if not (over and self.ready):  # whoever takes what is ready says what may come behind it
            self._balance()

    def pop(self, max_records: int) -> Taken | None:
        """What came of at most so many records."""
        return pop(self.ready, max_records)

    def handed_out(self, taken: Taken, called_at: float) -> None:
        """A handler begins with a delivery; it had asked at ``called_at``."""
        delivery, lease = taken
        large = len(delivery) >= self._demand.max_records or delivery.nbytes >= self._demand.max_bytes // 4
        self._most_ahead = self._pace.handed_out(called_at, lease.timeout)
        self._ahead = self._most_ahead if large else min(FEW_DELIVERIES, self._most_ahead)
        self._balance()

    def _target(self) -> int:
        return max(0, max(self._waiting, self._ahead) - len(self.ready))

    def _balance(self) -> None:
        """Gives credit that is missing, in a few messages, and takes back what is too much.

        All of it is taken back first: only once that is settled it is known what came meanwhile, and what is missing.
        """
        if self._send is None or self._unsettled:
            return
        target, ready = self._target(), len(self.ready)
        if self._credit > max(0, max(self._waiting, self._most_ahead) - ready):
            self._unsettled += 1
            self._send(_credit(0, replace=True))
            self._credit = 0
        elif self._credit < max(self._waiting - ready, target - self._ahead // 2):
            self._send(_credit(target - self._credit))
            self._credit = target


def pop(ready: deque[Taken], max_records: int, *, in_order: bool = False) -> Taken | None:
    """Takes out the oldest of at most so many records; ``in_order``: the oldest of all, or none."""
    while ready and ready[0][1].ended:
        ready.popleft()  # by a seek
    for place, (delivery, lease) in enumerate(ready):
        if len(delivery) <= max_records and not lease.ended:
            taken = ready[place]
            del ready[place]
            return taken
        if in_order:
            break
    return None


@functools.cache  # a handful of numbers, and one of them is sent for each small delivery
def _credit(deliveries: int, *, replace: bool = False) -> bytes:
    credit = pb.ConsumeCredit(deliveries=deliveries, replace=replace)
    return pb.ConsumeRequest(credit=credit).SerializeToString()


def encode_end(*, keep_leases: bool) -> bytes:
    """The last message of a stream."""
    return pb.ConsumeRequest(end=pb.ConsumeEnd(keep_leases=keep_leases)).SerializeToString()
