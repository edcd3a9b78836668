"""A producer's way to a remote broker: one ProduceStream, on which answers come in the order of the requests."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Final

import grpc

from telemetry_broker.errors import BrokerError, TimedOutError, UnavailableError
from telemetry_broker.stream_messages import answer_of, ended_error, in_stream
from telemetry_broker.transport import Done, Request, UnansweredError

if TYPE_CHECKING:
    from telemetry_broker.remote import RemoteTransport

_METHOD: Final = "ProduceStream"
_IDLE_WATCH: Final = 30.0
"""Seconds that a stream which was just used is watched without a request: so each request need not wake who watches."""


class ProduceStream:
    """The requests of one producer. Thread-safe.

    The stream begins with a first request, and anew with the next one behind every break. What it had not answered then
    is answered with the error that ended it.
    """

    is_timed: Final = True

    def __init__(self, transport: RemoteTransport) -> None:
        self._transport = transport
        self._lock = threading.Lock()
        self._stream: _Stream | None = None
        self._used = False

    def start(self, request: Request, timeout: float, done: Done) -> None:
        """See Producing; ``done`` is called in another thread, or at once when the connection is closed."""
        self._send(_Sent(request, time.monotonic() + timeout, done))

    def ask(self, request: Request, timeout: float) -> bytes | BrokerError:
        """See Producing."""
        answers: SimpleQueue[bytes | BrokerError] = SimpleQueue()
        stream = self._send(_Sent(request, time.monotonic() + timeout, answers.put))
        try:
            return answers.get(timeout=timeout)
        except Empty:
            if stream is not None:
                self._give_up(stream, f"within {timeout:g} s")
            return answers.get()

    def overdue(self) -> float | None:
        """See Producing."""
        with self._lock:
            stream, used, self._used = self._stream, self._used, False
        deadline = None if stream is None else stream.deadline()
        if stream is None or deadline is None:
            return _IDLE_WATCH if used else None
        left = deadline - time.monotonic()
        if left <= 0:
            self._give_up(stream, "in time")
            return 0.0
        return left

    def close(self) -> None:
        """See Producing."""
        with self._lock:
            stream, self._stream = self._stream, None
        if stream is not None:
            stream.put(None)

    def _send(self, sent: _Sent) -> _Stream | None:
        """Sends a request over the stream that it returns, or settles it."""
        try:
            refused = self._transport.refused()
            if refused is not None:
                sent.settle(refused)
                return None
            with self._lock:
                self._used = True
                if self._stream is None or not self._stream.put(sent):
                    self._stream = _Stream(self._transport)
                    self._stream.put(sent)
                return self._stream
        except BaseException:
            # Ctrl-C came between. It may be on its way all the same, but nobody will be told that.
            sent.settle(UnansweredError(UnavailableError("the call was interrupted")))
            raise

    def _give_up(self, stream: _Stream, when: str) -> None:
        """Ends a stream: an answer behind the time would be taken for the next one's."""
        with self._lock:
            if self._stream is stream:
                self._stream = None
        stream.cancel(TimedOutError(f"{self._transport.url} did not answer Produce {when}"))


class _Sent:
    """One request; answered once."""

    __slots__ = ("_done", "_lock", "deadline", "request")

    def __init__(self, request: Request, deadline: float, done: Done) -> None:
        self.request = request
        self.deadline = deadline
        self._done: Done | None = done
        self._lock = threading.Lock()

    def settle(self, answer: bytes | BrokerError) -> None:
        with self._lock:
            done, self._done = self._done, None
        if done is not None:
            done(answer)


class _Stream:
    """One call. A thread reads it; gRPC's own takes the requests, and nothing can interrupt either of them."""

    def __init__(self, transport: RemoteTransport) -> None:
        self._transport = transport
        self._requests: SimpleQueue[_Sent | None] = SimpleQueue()
        # What follows is guarded by the lock.
        self._lock = threading.Lock()
        self._unanswered: deque[_Sent] = deque()
        self._coming = 0  # requests that were put and are not there yet
        self._last_deadline = 0.0
        self._call: grpc._CallIterator[bytes] | None = None
        self._cancelled: BrokerError | None = None
        self._ended: BrokerError | None = None  # why no more is answered
        threading.Thread(target=self._run, name=f"produce stream to {transport.url}", daemon=True).start()

    def put(self, sent: _Sent | None) -> bool:
        """Takes a request, or None as the last one; False once the stream has ended."""
        with self._lock:
            if self._ended is None:
                if sent is not None:
                    self._coming += 1
                    self._last_deadline = sent.deadline
                self._requests.put(sent)
            return self._ended is None

    def deadline(self) -> float | None:
        """Of the oldest request that has no answer."""
        with self._lock:
            if self._unanswered:
                return self._unanswered[0].deadline
            return self._last_deadline if self._coming else None

    def cancel(self, error: BrokerError) -> None:
        """Ends it with this error."""
        with self._lock:
            self._cancelled = error
            call = self._call
        if call is not None:
            call.cancel()

    def _run(self) -> None:
        error: BrokerError = UnansweredError(ended_error(self._transport.url))
        try:
            call = self._transport.stream(_METHOD, self._sent())
            with self._lock:
                self._call = call
                cancelled = self._cancelled is not None
            if cancelled:
                call.cancel()
            for message in call:
                with self._lock:
                    sent = self._unanswered.popleft()
                sent.settle(answer_of(message))
        except grpc.RpcError as caught:
            error = self._transport.broker_error(_METHOD, caught, maybe_done=True)
        except BrokerError as caught:
            error = caught
        except IndexError:
            error = UnansweredError(UnavailableError(f"{self._transport.url} answered what nobody had asked"))
        finally:
            self._end(error)

    def _sent(self) -> Iterator[bytes]:
        while (sent := self._requests.get()) is not None:
            with self._lock:
                ended = self._ended
                if ended is None:
                    self._coming -= 1
                    self._unanswered.append(sent)
            if ended is not None:
                sent.settle(ended)
                return
            yield in_stream(sent.request)

    def _end(self, error: BrokerError) -> None:
        with self._lock:
            if self._cancelled is not None:
                error = UnansweredError(self._cancelled)
            self._ended = error
            left = list(self._unanswered)
            while not self._requests.empty():
                if (sent := self._requests.get()) is not None:
                    left.append(sent)
            self._requests.put(None)  # ends the thread that sends for gRPC
        for sent in left:
            sent.settle(error)
