"""What a broker must be able to do for the library: the one seam between this process's broker and a remote one.

Requests and answers are the encoded messages of ``telemetry_broker/v1/broker.proto``. There are two implementations:
``embedded`` drives the Rust core, ``remote`` the core's gRPC channel.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Final, Protocol

from telemetry_broker import _core
from telemetry_broker.errors import BrokerError, UnavailableError

MAX_WAIT_MS: Final = 60_000
"""The longest wait that one Receive may ask a server for."""


class UnansweredError(BrokerError):
    """A request may have reached the broker, but no answer came; ``cause`` says why. Never leaves the library."""

    def __init__(self, cause: BrokerError) -> None:
        super().__init__(cause.message, code=cause.code, retry_after=cause.retry_after, field=cause.field)
        self.cause = cause


def forked_error(what: str) -> UnavailableError:
    """What everything that was made before a fork answers in the child."""
    return UnavailableError(f"{what} was made before this process was forked: connect in the new process")


Request = bytes | _core.EncodedBatch
"""An encoded request."""

Streamed = bytes | _core.Delivery
"""A message of a Consume stream: a delivery, or any other one, encoded."""

Done = Callable[[bytes | BrokerError], None]


class Receiver(Protocol):
    """One consumer's way to wait for records. Several threads may wait at once."""

    def receive(self, request: bytes, wait: float | None) -> list[_core.Delivery]:
        """Runs an encoded ReceiveRequest; waits up to ``wait`` seconds for a first record, None: as long as it takes.

        Returns an empty list when nothing came in time, or once the receiver is closed.
        """

    def close(self) -> None:
        """Ends every wait."""


class Stream(Protocol):
    """One Consume stream; iterating gives the broker's messages until its end, or raises a BrokerError."""

    def send(self, message: bytes, waiting: deque[Done] | None = None, who: Done | None = None) -> None:
        """Puts an encoded ConsumeRequest on its way; neither waits nor raises. Thread-safe.

        ``who`` is put at the end of ``waiting`` in the same step, so that its order is that of the messages whatever
        interrupts the thread.
        """

    def __iter__(self) -> Iterator[Streamed]:
        """To be used once."""

    def cancel(self) -> None:
        """Ends the stream at once, if it has not ended. Thread-safe."""


class Producing(Protocol):
    """One producer's way to the broker. Thread-safe."""

    @property
    def is_timed(self) -> bool:
        """Whether an answer may come too late, or never, so that ``overdue`` has to be called."""

    def start(self, request: Request, timeout: float, done: Done) -> None:
        """Sends a ProduceRequest and hands its answer or its error to ``done``, once, in this thread or another.

        Requests are stored in the order of these calls. An error after which the broker may still have done the work
        comes as ``UnansweredError``. Never raises, but what interrupts the thread.
        """

    def ask(self, request: Request, timeout: float) -> bytes | BrokerError:
        """As ``start``, for who waits for the answer."""

    def overdue(self) -> float | None:
        """Gives up what was not answered in time; returns the seconds until it is to be called again, None: no need to.

        Whoever starts a request that times out sooner calls it then, too.
        """

    def close(self) -> None:
        """What is on its way is still answered; nothing more may be started."""


class Transport(Protocol):
    """A broker, wherever it is. Thread-safe."""

    url: str
    """What ``connect`` was given."""

    def call(self, method: str, request: bytes) -> bytes:
        """Runs one unary call of BrokerService and returns its encoded answer; raises a BrokerError."""

    def producing(self) -> Producing:
        """A way for the batches of one producer."""

    def receiver(self, topic: str) -> Receiver:
        """A way to wait for records of a topic."""

    @property
    def prefetches(self) -> bool:
        """Whether asking ahead pays: each call is a round trip."""

    def consume(self) -> Stream:
        """Begins a Consume stream; only where ``prefetches``. Does not wait."""

    def close(self, *, flush: bool = True) -> None:
        """Lets go of the broker; every later call raises ClosedError. Repeating it is fine."""
