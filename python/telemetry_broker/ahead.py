"""Receiving ahead from a remote broker, so that handling one batch and fetching the next happen at the same time."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator
from functools import partial
from queue import Empty, SimpleQueue
from typing import Final

from telemetry_broker.errors import BrokerError, StaleLeaseError, UnavailableError
from telemetry_broker.inflow import Inflow, Taken, encode_end
from telemetry_broker.leases import Lease, Leases
from telemetry_broker.receiving import Demand, Outage
from telemetry_broker.stream_messages import ended_error, in_consume
from telemetry_broker.transport import Stream, Transport

_SETTLE_TIMEOUT: Final = 5.0
_ANSWER_TIMEOUT: Final = 10.0
"""Seconds until what was asked over a stream is asked by a call."""

_log = logging.getLogger(__name__)


class _Ask:
    """A request over the stream, and who waits for its answer; None: it gets none."""

    def __init__(self) -> None:
        self.answers: SimpleQueue[bytes | BrokerError | None] = SimpleQueue()

    def wait(self) -> bytes | BrokerError | None:
        try:
            return self.answers.get(timeout=_ANSWER_TIMEOUT)
        except Empty:
            return None


class Ahead:
    """A consumer's Consume stream, and what came over it before it was asked for. Thread-safe; not after a fork.

    The stream begins with the first iteration and lasts until the consumer is closed, for its death gives back what it
    brought; the broker sends on it while somebody iterates. A thread reads it, and begins it anew while it is needed.
    """

    def __init__(self, transport: Transport, leases: Leases, demand: Demand) -> None:
        self._transport = transport
        self._leases = leases
        self._max_records = demand.max_records
        self._reconnect_timeout = demand.reconnect_timeout
        self._changed = threading.Condition()
        # What follows is guarded by the condition.
        self._inflow = Inflow(demand, leases.add)
        self._stream: Stream | None = None
        self._thread: threading.Thread | None = None
        self._failure: BrokerError | None = None  # why the thread gave up
        self._asks: set[_Ask] = set()  # over the stream, without an answer
        self._closing = threading.Event()
        self._pid = os.getpid()

    def iterate(self, idle_timeout: float | None) -> Iterator[Taken | None]:
        """Deliveries; None where none came for so many seconds, or the consumer was closed.

        Raises what ended the stream, where waiting does not mend it.
        """
        with self._changed:
            self._inflow.enter()
        try:
            while True:
                yield self._next(idle_timeout)
        finally:
            if os.getpid() == self._pid:
                with self._changed:
                    self._inflow.leave()

    def take(self, max_records: int) -> Taken | None:
        """What came for an iteration that has ended, of at most so many records; waits for what is on its way."""
        while True:
            with self._changed:
                self._settle()
                taken = self._inflow.pop(max_records)
            if taken is None or self._is_fresh(taken[1]):
                return taken

    def call(self, method: str, request: bytes) -> bytes:
        """Makes a call, over the stream where there is one and it has that call: that takes half as long.

        What a stream left without an answer is asked again by itself: each of these calls may be repeated.
        """
        message = in_consume(method, request)
        ask = _Ask()
        asked = False
        if message is not None:
            with self._changed:
                asked = self._inflow.ask(message, partial(self._answered, ask))
                if asked:
                    self._asks.add(ask)
        answer = ask.wait() if asked else None
        if answer is None:
            return self._transport.call(method, request)
        if isinstance(answer, BrokerError):
            raise answer
        return answer

    def _answered(self, ask: _Ask, answer: bytes | BrokerError) -> None:
        self._asks.discard(ask)
        ask.answers.put(answer)

    def stop(self) -> None:
        """Ends every iteration; afterwards nothing comes. What came ahead is left to ``Leases.give_back``."""
        self._closing.set()
        with self._changed:
            self._inflow.rest()
            self._changed.notify_all()
            self._settle()
            self._inflow.ready.clear()

    def end(self, *, keep_leases: bool) -> None:
        """Ends the stream, which gives back what it brought unless told to keep it."""
        with self._changed:
            stream, thread = self._stream, self._thread
            if stream is not None:
                stream.send(encode_end(keep_leases=keep_leases))
        if thread is not None and thread.is_alive():
            thread.join(_SETTLE_TIMEOUT)
        if stream is not None:
            stream.cancel()

    def _next(self, wait: float | None) -> Taken | None:
        called_at = time.monotonic()
        end = None if wait is None else called_at + wait
        while True:
            with self._changed:
                taken = self._await(None if end is None else max(0.0, end - time.monotonic()))
            if taken is None or self._is_fresh(taken[1]):
                break
        if taken is not None:
            with self._changed:
                self._inflow.handed_out(taken, called_at)
        return taken

    def _await(self, seconds: float | None) -> Taken | None:
        inflow = self._inflow
        inflow.wait()
        try:
            self._begin()
            self._changed.wait_for(lambda: inflow.ready or self._failure or self._closing.is_set(), seconds)
        finally:
            inflow.wait(over=True)
        if self._closing.is_set():
            return None
        taken = inflow.pop(self._max_records)
        if taken is None:
            if self._failure is not None:
                raise self._failure
            inflow.rest()
            self._settle()
            taken = inflow.pop(self._max_records)
        return taken

    def _settle(self) -> None:
        """Waits until nothing is on its way that nobody asks for any more."""
        self._changed.wait_for(lambda: self._inflow.settled, _SETTLE_TIMEOUT)

    def _is_fresh(self, lease: Lease) -> bool:
        """Whether there is time enough to handle the records; makes time if not."""
        if lease.ended:
            return False
        if time.monotonic() - lease.received < lease.timeout / 2:
            return True
        try:
            self._leases.extend([lease], max(1, round(lease.timeout * 1000)))
        except StaleLeaseError:
            return False  # it ended, the broker gives the records to somebody else
        return True

    # The thread.

    def _begin(self) -> None:
        # Ctrl-C may have come between making the thread and starting it.
        if (self._thread is None or not self._thread.is_alive()) and not self._closing.is_set():
            self._failure = None
            self._thread = threading.Thread(target=self._run, name="consume stream", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        outage = Outage(None, self._reconnect_timeout)
        while True:
            error = ended_error(self._transport.url)
            try:
                with self._changed:
                    if not self._inflow.needed or self._closing.is_set():
                        self._thread = None
                        return
                    stream = self._stream = self._transport.consume()
                    self._inflow.begin(stream.send)
                for message in stream:
                    with self._changed:
                        self._inflow.came(message)
                        self._changed.notify_all()
                    outage.over()
            except BrokerError as caught:
                error = caught
            if self._stream is not None:
                self._stream.cancel()
            pause = self._pause(outage, error)
            if pause is None or self._closing.wait(pause):
                return

    def _pause(self, outage: Outage, error: BrokerError) -> float | None:
        """The stream ended: seconds until another one may begin, None when that is no use."""
        with self._changed:
            self._stream = None
            dropped = self._inflow.ended()
            for ask in self._asks:
                ask.answers.put(None)
            self._asks.clear()
            if dropped:
                _log.debug("%d deliveries that nobody had yet are given out again: %s", len(dropped), error)
            self._changed.notify_all()
            try:
                if isinstance(error, UnavailableError):
                    return outage.pause(error)
                self._failure = error
            except UnavailableError:
                self._failure = error
            self._thread = None
            return None
