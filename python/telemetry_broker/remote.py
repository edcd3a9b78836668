"""A broker behind gRPC: ``grpc://`` and ``grpc+unix://``.

Messages cross as raw bytes: what the Rust core encodes here is what the Rust core of the server decodes.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import Final, cast

import grpc

from telemetry_broker import _core
from telemetry_broker.errors import BrokerError, ClosedError, UnavailableError, error_from_code
from telemetry_broker.produce_stream import ProduceStream
from telemetry_broker.status_details import read_details
from telemetry_broker.transport import MAX_WAIT_MS, Done, UnansweredError
from telemetry_broker.v1 import broker_pb2 as pb

CALL_TIMEOUT: Final = 30.0
"""Seconds until a call without a wait is given up."""

SERVICE: Final = "/telemetry_broker.v1.BrokerService/"
_MAX_MESSAGE_BYTES: Final = 16 * 1024 * 1024  # a request or a response is at most 8 MiB of records and their frame
OPTIONS: Final = (
    ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
    # A dead peer is noticed after 40 s at most; servers refuse pings that come more often than each 10 s.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # A broker that restarts is found again within two seconds.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # Two connections to one broker in one process are two connections: closing one leaves the other alone.
    ("grpc.use_local_subchannel_pool", 1),
)
# The code for an error that carries none: it was made by gRPC itself or by something between us and the broker.
_CODE_BY_STATUS: Final = {
    grpc.StatusCode.UNAVAILABLE: "broker.unavailable",
    grpc.StatusCode.DEADLINE_EXCEEDED: "timeout",
    grpc.StatusCode.UNIMPLEMENTED: "unsupported",
    grpc.StatusCode.INVALID_ARGUMENT: "invalid.argument",
    grpc.StatusCode.RESOURCE_EXHAUSTED: "invalid.argument",  # a message over gRPC's bound; `log.full` has its code
    grpc.StatusCode.CANCELLED: "broker.closed",
}
# After these a request that carries no code of ours may have been carried out all the same.
_MAYBE_DONE: Final = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.INTERNAL,
    }
)


def closed_error(url: str) -> ClosedError:
    """What every call on a closed connection answers."""
    return ClosedError(f"the connection to {url} was closed; call connect() again")


def broker_error(
    url: str, method: str, error: grpc.RpcError, closed: ClosedError | None, maybe_done: bool
) -> BrokerError:
    """The one place where a gRPC error becomes ours; ``maybe_done`` wraps the open ones into UnansweredError."""
    call = cast("grpc.Call", error)
    status = call.code()
    details = call.details() or ""
    sent = read_details(call.trailing_metadata() or ())
    if sent is not None:
        return error_from_code(sent.code, details, sent.retry_after, sent.field)
    if closed is not None:
        return UnansweredError(closed) if maybe_done else closed
    known = error_from_code(
        _CODE_BY_STATUS.get(status, "internal"),
        f"{url} did not answer {method}: {status.name}, {details}",
        retry_after=0.25 if status is grpc.StatusCode.UNAVAILABLE else None,
    )
    # gRPC's own text for a request that never left, the one case in which a broken connection is no riddle.
    never_sent = status is grpc.StatusCode.UNAVAILABLE and "failed to connect" in details
    return UnansweredError(known) if maybe_done and status in _MAYBE_DONE and not never_sent else known


# Ctrl-C inside of a gRPC call leaves a lock of the channel with the main thread, for good. Another thread that
# collected such a channel as garbage would hang, so none does.
_interrupted: Final[list[grpc.Channel]] = []


class RemoteTransport:
    """Drives a gRPC channel; it connects at the first call and again after every break.

    Calls that do not block are made by a thread, which signals never interrupt: gRPC does not expect Ctrl-C while it
    makes one, and would wait for such a call for ever when the channel is closed.
    """

    prefetches: Final = True

    def __init__(self, url: str, target: str) -> None:
        self.url = url
        self._channel = grpc.insecure_channel(target, options=OPTIONS)
        self._methods: dict[str, grpc.UnaryUnaryMultiCallable[bytes, bytes]] = {}
        self._lock = threading.Lock()
        self._caller: threading.Thread | None = None
        self._to_make: SimpleQueue[RemoteCall | None] = SimpleQueue()
        self._closed = False
        self._pid = os.getpid()

    def call(self, method: str, request: bytes) -> bytes:
        """See Transport; gives up after ``CALL_TIMEOUT`` seconds."""
        try:
            return self._method(method)(request, timeout=CALL_TIMEOUT)
        except grpc.RpcError as error:
            raise self.broker_error(method, error) from error
        except ValueError as error:  # grpc's word for a closed channel
            raise self.closed_error() from error
        except BaseException:
            _interrupted.append(self._channel)
            raise

    def producing(self) -> ProduceStream:
        """See Transport."""
        return ProduceStream(self)

    def begin(self, call: RemoteCall) -> None:
        """Starts a call that can be cancelled. Never raises."""
        with self._lock:
            closed = self._closed
            if not closed:
                # Ctrl-C may have come between making the thread and starting it.
                if (self._caller is None or not self._caller.is_alive()) and self._pid == os.getpid():
                    self._caller = threading.Thread(target=self._make_calls, name=f"calls to {self.url}", daemon=True)
                    self._caller.start()
                self._to_make.put(call)
        if closed:
            call.done(self.closed_error())

    def _make_calls(self) -> None:
        while (call := self._to_make.get()) is not None:
            call.make(self)

    def consume(self) -> RemoteStream:
        """See Transport."""
        return RemoteStream(self)

    def receiver(self, topic: str) -> RemoteReceiver:  # noqa: ARG002 - the request names it
        """See Transport."""
        return RemoteReceiver(self)

    def close(self, *, flush: bool = True) -> None:  # noqa: ARG002 - nothing is buffered here
        """See Transport."""
        with self._lock:
            self._closed = True
            self._to_make.put(None)
        caller = self._caller
        if caller is not None and caller.is_alive() and caller is not threading.current_thread():
            caller.join()
        self._channel.close()

    def future(self, method: str, request: bytes, timeout: float) -> grpc.Future[bytes]:
        """Makes a call that does not block; for the thread only."""
        try:
            return self._method(method).future(request, timeout=timeout)
        except ValueError as error:
            raise self.closed_error() from error

    def stream(self, method: str, requests: Iterator[bytes]) -> grpc._CallIterator[bytes]:
        """Begins a stream; for a thread that signals do not interrupt."""
        self._refuse()
        try:
            known: grpc.StreamStreamMultiCallable[bytes, bytes] = self._channel.stream_stream(SERVICE + method)
            return known(requests)
        except ValueError as error:
            raise self.closed_error() from error

    def _method(self, method: str) -> grpc.UnaryUnaryMultiCallable[bytes, bytes]:
        self._refuse()
        known = self._methods.get(method)
        if known is None:
            known = self._methods[method] = self._channel.unary_unary(SERVICE + method)
        return known

    def refused(self) -> BrokerError | None:
        """Why no call can be made, if so."""
        if self._pid != os.getpid():
            return UnavailableError(
                f"{self.url} was opened before this process was forked; a connection does not survive a fork: "
                "call connect() in the new process"
            )
        return self.closed_error() if self._closed else None

    def _refuse(self) -> None:
        if (refused := self.refused()) is not None:
            raise refused

    def closed_error(self) -> ClosedError:
        """What every call after ``close`` raises."""
        return closed_error(self.url)

    def broker_error(self, method: str, error: grpc.RpcError, *, maybe_done: bool = False) -> BrokerError:
        """See the function."""
        return broker_error(self.url, method, error, self.closed_error() if self._closed else None, maybe_done)


class RemoteCall:
    """One call that does not block; ``done`` gets its answer or error, once."""

    def __init__(self, method: str, request: bytes, timeout: float, done: Done) -> None:
        self.done = done
        self._method = method
        self._request = request
        self._timeout = timeout
        self._lock = threading.Lock()
        self._future: grpc.Future[bytes] | None = None
        self._cancelled = False

    def make(self, transport: RemoteTransport) -> None:
        """Makes the call."""

        def answered(future: grpc.Future[bytes]) -> None:
            try:
                answer: bytes | BrokerError = future.result()
            except grpc.RpcError as error:
                answer = transport.broker_error(self._method, error, maybe_done=True)
            except grpc.FutureCancelledError:
                answer = UnansweredError(transport.closed_error())
            self.done(answer)

        try:
            future = transport.future(self._method, self._request, self._timeout)
        except BrokerError as error:
            self.done(error)
            return
        with self._lock:
            self._future = future
            cancelled = self._cancelled
        if cancelled:
            future.cancel()
        future.add_done_callback(answered)

    def cancel(self) -> None:
        """Ends the call, made or not; ``done`` still gets an error."""
        with self._lock:
            self._cancelled = True
            future = self._future
        if future is not None:
            future.cancel()


class RemoteStream:
    """See transport.Stream; the call is made by the thread that reads."""

    def __init__(self, transport: RemoteTransport) -> None:
        self._transport = transport
        self._requests: SimpleQueue[tuple[bytes, Callable[[], None] | None] | None] = SimpleQueue()
        self._call: grpc._CallIterator[bytes] | None = None

    def send(self, message: bytes, leaving: Callable[[], None] | None = None) -> None:
        """See Stream."""
        self._requests.put((message, leaving))

    def __iter__(self) -> Iterator[bytes]:
        try:
            self._call = self._transport.stream("Consume", self._sent())
            yield from self._call
        except grpc.RpcError as error:
            raise self._transport.broker_error("Consume", error) from error

    def _sent(self) -> Iterator[bytes]:
        while (request := self._requests.get()) is not None:
            message, leaving = request
            if leaving is not None:
                leaving()
            yield message

    def cancel(self) -> None:
        """See Stream."""
        self._requests.put(None)  # ends the thread that sends for gRPC
        if self._call is not None:
            self._call.cancel()


class RemoteReceiver:
    """Waits in the server: each Receive asks it to hold the answer back until there are records."""

    def __init__(self, transport: RemoteTransport) -> None:
        self._transport = transport
        self._lock = threading.Lock()
        self._waits: set[RemoteCall] = set()
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
        answers: SimpleQueue[bytes | BrokerError] = SimpleQueue()
        call = RemoteCall("Receive", request, timeout, answers.put)
        with self._lock:
            if self._closed.is_set():
                return []
            self._waits.add(call)
        try:
            self._transport.begin(call)
            answer = answers.get()
        except BaseException:
            call.cancel()  # what it leases from here on would be nobody's
            raise
        finally:
            with self._lock:
                self._waits.discard(call)
        if isinstance(answer, bytes):
            return _core.Delivery.parse(answer)
        if self._closed.is_set():
            return []
        raise answer.cause if isinstance(answer, UnansweredError) else answer

    def close(self) -> None:
        """See Receiver."""
        with self._lock:
            self._closed.set()
            waits = list(self._waits)
        for call in waits:
            call.cancel()
