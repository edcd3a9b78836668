"""A broker behind gRPC: ``grpc://`` and ``grpc+unix://``.

Messages cross as raw bytes: what the Rust core encodes here is what the Rust core of the server decodes.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import Final

from telemetry_broker import _core
from telemetry_broker.errors import BrokerError, ClosedError, StatusCode, UnavailableError, error_from_code
from telemetry_broker.produce_stream import ProduceStream
from telemetry_broker.transport import MAX_WAIT_MS, Done, Streamed, UnansweredError
from telemetry_broker.v1 import broker_pb2 as pb

CALL_TIMEOUT: Final = 30.0
"""Seconds until a call without a wait is given up."""

# The code for an error that carries none: it was made by gRPC itself or by something between us and the broker.
_CODE_BY_STATUS: Final = {
    StatusCode.UNAVAILABLE: "broker.unavailable",
    StatusCode.DEADLINE_EXCEEDED: "timeout",
    StatusCode.UNIMPLEMENTED: "unsupported",
    StatusCode.INVALID_ARGUMENT: "invalid.argument",
    # A message over gRPC's bound, told by the one side or the other; `log.full` has its code.
    StatusCode.RESOURCE_EXHAUSTED: "invalid.argument",
    StatusCode.OUT_OF_RANGE: "invalid.argument",
    StatusCode.CANCELLED: "broker.closed",
    # A proxy on the way may ask for credentials, too.
    StatusCode.UNAUTHENTICATED: "auth.unauthenticated",
    StatusCode.PERMISSION_DENIED: "auth.denied",
}
# After these a request that carries no code of ours may have been carried out all the same.
_MAYBE_DONE: Final = frozenset(
    {
        StatusCode.UNAVAILABLE,
        StatusCode.DEADLINE_EXCEEDED,
        StatusCode.CANCELLED,
        StatusCode.UNKNOWN,
        StatusCode.INTERNAL,
    }
)


def closed_error(url: str) -> ClosedError:
    """What every call on a closed connection answers."""
    return ClosedError(f"the connection to {url} was closed; call connect() again")


def broker_error(
    url: str, method: str, error: _core.CallError, closed: ClosedError | None, maybe_done: bool
) -> BrokerError:
    """The one place where a failed call becomes our error; ``maybe_done`` wraps the open ones into UnansweredError."""
    if error.code is not None:
        return error_from_code(error.code, error.message, error.retry_after, error.field)
    if closed is not None:
        return UnansweredError(closed) if maybe_done else closed
    status = StatusCode(error.status)
    known = error_from_code(
        _CODE_BY_STATUS.get(status, "internal"),
        f"{url} did not answer {method}: {status.name}, {error.message}",
        retry_after=0.25 if status is StatusCode.UNAVAILABLE else None,
    )
    return UnansweredError(known) if maybe_done and status in _MAYBE_DONE and error.sent else known


class RemoteTransport:
    """Drives a channel of the core; it connects at the first call and again after every break."""

    prefetches: Final = True

    def __init__(self, url: str, channel: _core.Channel) -> None:
        self.url = url
        self._channel = channel
        self._closed = False
        self._pid = os.getpid()

    def call(self, method: str, request: bytes) -> bytes:
        """See Transport; gives up after ``CALL_TIMEOUT`` seconds."""
        self._refuse()
        try:
            return self._channel.call(method, request, CALL_TIMEOUT)
        except _core.CallError as error:
            raise self.broker_error(method, error) from error

    def ask(self, method: str, request: bytes, timeout: float) -> _core.Exchange:
        """Makes a call that can be cancelled, and does not wait for its answer."""
        self._refuse()
        return self._channel.ask(method, request, timeout)

    def exchange(self, method: str) -> _core.Exchange:
        """Begins a stream."""
        self._refuse()
        return self._channel.exchange(method)

    def producing(self) -> ProduceStream:
        """See Transport."""
        return ProduceStream(self)

    def consume(self) -> RemoteStream:
        """See Transport."""
        return RemoteStream(self)

    def receiver(self, topic: str) -> RemoteReceiver:  # noqa: ARG002 - the request names it
        """See Transport."""
        return RemoteReceiver(self)

    def close(self, *, flush: bool = True) -> None:  # noqa: ARG002 - nothing is buffered here
        """See Transport."""
        self._closed = True
        self._channel.close()

    def refused(self) -> BrokerError | None:
        """Why no call can be made, if so."""
        if self._pid != os.getpid():
            return UnavailableError(
                f"{self.url} was opened before this process was forked; a connection does not survive a fork: "
                "call connect() in the new process"
            )
        return closed_error(self.url) if self._closed else None

    def _refuse(self) -> None:
        if (refused := self.refused()) is not None:
            raise refused

    def broker_error(self, method: str, error: _core.CallError, *, maybe_done: bool = False) -> BrokerError:
        """See the function."""
        return broker_error(self.url, method, error, closed_error(self.url) if self._closed else None, maybe_done)


class RemoteStream:
    """See transport.Stream."""

    def __init__(self, transport: RemoteTransport) -> None:
        self._transport = transport
        self._exchange = transport.exchange("Consume")

    def send(self, message: bytes, waiting: deque[Done] | None = None, who: Done | None = None) -> None:
        """See Stream."""
        self._exchange.send(message, waiting, who)

    def __iter__(self) -> Iterator[Streamed]:
        try:
            while (messages := self._exchange.receive_consume()) is not None:
                yield from messages
        except _core.CallError as error:
            raise self._transport.broker_error("Consume", error) from error

    def cancel(self) -> None:
        """See Stream."""
        self._exchange.cancel()


class RemoteReceiver:
    """Waits in the server: each Receive asks it to hold the answer back until there are records."""

    def __init__(self, transport: RemoteTransport) -> None:
        self._transport = transport
        self._lock = threading.Lock()
        self._waits: set[_core.Exchange] = set()
        self._closed = threading.Event()

    def receive(self, request: bytes, wait: float | None) -> list[_core.Delivery]:
        """See Receiver."""
        if self._closed.is_set():
            return []
        # First without a wait: that is the cheaper call, and while there are records the only one.
        deliveries = _core.Delivery.parse(self._transport.call("Receive", request))
        if deliveries or wait == 0:
            return deliveries
        template = pb.ReceiveRequest.FromString(request)
        end = None if wait is None else time.monotonic() + wait
        while True:
            left_ms = MAX_WAIT_MS if end is None else max(0, round((end - time.monotonic()) * 1000))
            template.wait_ms = min(left_ms, MAX_WAIT_MS)
            asked = time.monotonic()
            deliveries = self._wait(template.SerializeToString(), template.wait_ms / 1000 + CALL_TIMEOUT)
            if deliveries or self._closed.is_set() or left_ms == template.wait_ms < MAX_WAIT_MS:
                return deliveries
            if time.monotonic() - asked < template.wait_ms / 2000:
                raise UnavailableError(f"{self._transport.url} ended a wait before its time: it is stopping")

    def _wait(self, request: bytes, timeout: float) -> list[_core.Delivery]:
        call: _core.Exchange | None = None
        try:
            with self._lock:
                if self._closed.is_set():
                    return []
                call = self._transport.ask("Receive", request, timeout)
                self._waits.add(call)
            return _core.Delivery.parse(call.answer())
        except _core.CallError as error:
            if self._closed.is_set():
                return []
            raise self._transport.broker_error("Receive", error) from error
        finally:
            if call is not None:
                call.cancel()  # interrupted: what it leases from here on would be nobody's
                with self._lock:
                    self._waits.discard(call)

    def close(self) -> None:
        """See Receiver."""
        with self._lock:
            self._closed.set()
            waits = list(self._waits)
        for call in waits:
            call.cancel()
