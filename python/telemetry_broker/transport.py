"""What a broker must be able to do for the library: the one seam between this process's broker and a remote one.

Requests and answers are the encoded messages of ``telemetry_broker/v1/broker.proto``. There are two implementations:
``embedded`` drives the Rust core, ``remote`` a gRPC channel.
"""

from __future__ import annotations

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

    def send(self, message: bytes) -> None:
        """Puts an encoded ConsumeRequest on its way; neither waits nor raises. Thread-safe."""

    def __iter__(self) -> Iterator[bytes]:
        """To be used once."""

    def cancel(self) -> None:
        """Ends the stream at once, if it has not ended. Thread-safe."""


class Transport(Protocol):
    """A broker, wherever it is. Thread-safe."""

    url: str
    """What ``connect`` was given."""

    def call(self, method: str, request: bytes) -> bytes:
        """Runs one unary call of BrokerService and returns its encoded answer; raises a BrokerError."""

    def start(self, method: str, request: Request, timeout: float, done: Done) -> None:
        """Runs a call and hands its answer or its error to ``done``, once, in this thread or another.

        An error after which the broker may still have done the work comes as ``UnansweredError``. Never raises.
        """

    def ask(self, method: str, request: Request, timeout: float) -> bytes | BrokerError:
        """As ``start``, in this thread: one handover less, for who waits anyway. Raises what interrupts the thread."""

    def receiver(self, topic: str) -> Receiver:
        """A way to wait for records of a topic."""

    @property
    def prefetches(self) -> bool:
        """Whether asking ahead pays: each call is a round trip."""

    def consume(self) -> Stream:
        """A Consume stream, which begins once it is read; only where ``prefetches``."""

    def close(self, *, flush: bool = True) -> None:
        """Lets go of the broker; every later call raises ClosedError. Repeating it is fine."""
