"""A producer's way to a remote broker: one ProduceStream, on which answers come in the order of the requests."""

from __future__ import annotations

import threading
import time
from collections import deque
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Final

from telemetry_broker import _core
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
            stream.finish()

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
                    self._stream = _Stream(self._transport, sent)
                return self._stream
        except BrokerError as error:  # it was closed meanwhile
            sent.settle(error)
            return None
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
    """One call, read by a thread, which nothing can interrupt."""

    def __init__(self, transport: RemoteTransport, first: _Sent) -> None:
        """Sends a first request, before the thread can end for want of a broker."""
        self._transport = transport
        self._exchange = transport.exchange(_METHOD)
        self._unanswered: deque[_Sent] = deque()  # the core appends to it, the thread takes from it
        # What follows is guarded by the lock.
        self._lock = threading.Lock()
        self._cancelled: BrokerError | None = None
        self._ended: BrokerError | None = None  # why no more is answered
        self._exchange.send(in_stream(first.request), self._unanswered, first)
        try:
            threading.Thread(target=self._run, name=f"produce stream to {transport.url}", daemon=True).start()
        except BaseException:
            self._exchange.cancel()  # Ctrl-C came: it may run or not
            raise

    def put(self, sent: _Sent) -> bool:
        """Takes a request; False once the stream has ended."""
        with self._lock:
            if self._ended is None:
                self._exchange.send(in_stream(sent.request), self._unanswered, sent)
            return self._ended is None

    def finish(self) -> None:
        """Sends no more; what is on its way is still answered."""
        self._exchange.finish()

    def deadline(self) -> float | None:
        """Of the oldest request that has no answer."""
        try:
            return self._unanswered[0].deadline
        except IndexError:
            return None

    def cancel(self, error: BrokerError) -> None:
        """Ends it with this error."""
        with self._lock:
            self._cancelled = self._cancelled or error
        self._exchange.cancel()

    def _run(self) -> None:
        error: BrokerError = UnansweredError(ended_error(self._transport.url))
        try:
            while (messages := self._exchange.receive()) is not None:
                for message in messages:
                    self._unanswered.popleft().settle(answer_of(message))
        except _core.CallError as caught:
            error = self._transport.broker_error(_METHOD, caught, maybe_done=True)
        except IndexError:
            error = UnansweredError(UnavailableError(f"{self._transport.url} answered what nobody had asked"))
        finally:
            self._end(error)

    def _end(self, error: BrokerError) -> None:
        self._exchange.cancel()
        with self._lock:
            if self._cancelled is not None:
                error = UnansweredError(self._cancelled)
            self._ended = error
        while self._unanswered:  # nothing is put any more
            self._unanswered.popleft().settle(error)
