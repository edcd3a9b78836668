"""What a broker must be able to do for the asynchronous face: the seam of ``telemetry_broker.transport``, awaited."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from telemetry_broker import _core
from telemetry_broker.errors import BrokerError
from telemetry_broker.steps import Steps, T
from telemetry_broker.transport import Done, Request, Streamed


class Receiver(Protocol):
    """One consumer's way to wait for records. Several tasks may wait at once."""

    async def receive(self, request: bytes, wait: float | None) -> list[_core.Delivery]:
        """Runs an encoded ReceiveRequest; waits up to ``wait`` seconds for a first record, None: as long as it takes.

        Returns an empty list when nothing came in time, or once the receiver is closed. Whether a cancelled one leaves
        no lease behind is said by ``Transport.prefetches``.
        """

    def close(self) -> None:
        """Ends every wait."""


class Stream(Protocol):
    """One Consume stream."""

    def send(self, message: bytes, waiting: deque[Done] | None = None, who: Done | None = None) -> None:
        """Puts an encoded ConsumeRequest on its way, and ``who`` into ``waiting``; neither waits nor raises."""

    async def end(self) -> None:
        """Waits for its end; raises a BrokerError, that of ``came`` too."""

    def cancel(self) -> None:
        """Ends the stream at once, if it has not ended."""


class Producing(Protocol):
    """One producer's way to the broker."""

    async def produce(self, request: Request, topic: str, timeout: float) -> bytes | BrokerError:  # noqa: ASYNC109
        """Runs a Produce and returns its encoded answer, or the error.

        Requests are stored in the order of these calls. An error after which the broker may still have done the work
        comes as ``UnansweredError``. Raises nothing else than CancelledError.
        """

    def close(self) -> None:
        """What is on its way is still answered; nothing more may be sent."""


class Caller(Protocol):
    """Who makes unary calls."""

    async def call(self, method: str, request: bytes, topic: str = "") -> bytes:
        """Runs one unary call of BrokerService and returns its encoded answer; raises a BrokerError."""


class Transport(Protocol):
    """A broker, wherever it is. Used on one event loop."""

    url: str
    """What ``connect`` was given."""

    async def call(self, method: str, request: bytes, topic: str = "") -> bytes:
        """Runs one unary call of BrokerService and returns its encoded answer; raises a BrokerError.

        ``topic`` is the request's, where it has one: a call that waits for that topic's disk is made in a thread.
        """

    def producing(self) -> Producing:
        """A way for the batches of one producer."""

    def receiver(self, topic: str) -> Receiver:
        """A way to wait for records of a topic."""

    @property
    def prefetches(self) -> bool:
        """Whether a receive is a round trip: then asking ahead pays, and a cancelled one may have leased records."""

    def consume(self, came: Callable[[Sequence[Streamed]], None]) -> Stream:
        """Begins a Consume stream; only where ``prefetches``. ``came`` gets the broker's messages, in later turns."""

    async def close(self, *, flush: bool = True) -> None:
        """Lets go of the broker; every later call raises ClosedError. Repeating it is fine."""


async def run(steps: Steps[T], caller: Caller) -> T:
    """Carries out the steps; what a call raises ends them."""
    try:
        method, request = next(steps)
        while True:
            answer = await caller.call(method, request.SerializeToString(), getattr(request, "topic", ""))
            method, request = steps.send(answer)
    except StopIteration as end:
        done: T = end.value
        return done
    finally:
        steps.close()
