"""The synchronous way from a producer's buffer to the broker: the books under a lock, and a thread for what is due."""

from __future__ import annotations

import math
import os
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Final

from telemetry_broker import _core
from telemetry_broker.errors import BrokerError, UnavailableError
from telemetry_broker.outbox import Appended, Outbox, Outcome, SentBatch, all_appended, no_room, not_flushed, not_free
from telemetry_broker.transport import Transport, UnansweredError


class Sender:
    """Sends the batches of one producer. Thread-safe.

    Attributes:
        outbox: the books; while its ``halted`` is set, ``make_way`` must be called before a record is added.
        eager: nothing lingers, so that ``linger_on`` must be called behind every record.
    """

    def __init__(
        self,
        transport: Transport,
        topic: str,
        producer: str,
        buffer: _core.ProducerBuffer,
        *,
        linger: float,
        delivery_timeout: float,
        on_error: Callable[[BrokerError], None] | None,
        is_named: bool,
    ) -> None:
        """``linger``: the buffer's."""
        self._producing = transport.producing()
        self._buffer = buffer
        self.eager = linger == 0
        self._lock = threading.Lock()
        self._settled = threading.Condition(self._lock)
        # What follows is guarded by the lock, but for a look at one attribute.
        self._thread: threading.Thread | None = None
        self._awake_by = math.inf  # when the thread looks again at what is overdue
        self.outbox = Outbox(
            topic, producer, buffer, delivery_timeout=delivery_timeout, on_error=on_error, is_named=is_named
        )
        _senders.add(self)

    def make_way(self, max_block: float) -> None:
        """Waits until there is room for a record, or says why none is taken."""
        outbox = self.outbox
        outbox.refuse_fork()
        with self._lock:
            outbox.refuse_record()
        self._await(
            lambda: not outbox.stalled or outbox.error is not None, time.monotonic() + max_block, no_room(max_block)
        )
        with self._lock:
            outbox.raise_error()
            outbox.look_again()

    def raise_error(self) -> None:
        """Raises what befell a batch since the last time."""
        with self._lock:
            self.outbox.raise_error()

    def added(self, answer: int) -> None:
        """Sees to a record that filled its partition's batch (that number), or was the first in the buffer (-2)."""
        if answer >= 0:
            self.dispatch(answer, stall=True)
        else:
            self.linger_on()

    def linger_on(self) -> None:
        """Lets the buffer's records leave when the oldest has waited for ``linger``; at once where that is nothing."""
        if self.eager:
            for partition in self._buffer.waiting():
                self.dispatch(partition, small=True)
        elif self._thread is None:
            with self._lock:
                self._start_thread()

    def dispatch(self, partition: int, *, stall: bool = False, small: bool = False, here: bool = False) -> bool:
        """Sends the partition's batch now, or leaves it to follow what is on its way; then returns False.

        ``stall``: the batch is full, so that no record is taken until it has left. ``small``: it can wait for its like,
        see ``Outbox.gather``. ``here``: it is sent from this thread, and answered when this returns.
        """
        with self._lock:
            if not self.outbox.is_free(partition):
                self.outbox.follow(partition, stall=stall)
                return False
            if small and self.outbox.gather():
                return False
            batch = self.outbox.take(partition)
        if batch is not None and here:
            self._send_here(batch)
        elif batch is not None:
            self._start(batch)
        return True

    def flush(self, timeout: float | None) -> None:
        """Sends what is in the buffer and returns when all of it, and all before it, is settled."""
        self.outbox.refuse_fork()
        end = None if timeout is None else time.monotonic() + timeout
        late = not_flushed(timeout)
        waiting = self._buffer.waiting()
        for partition in waiting:
            # Who has nothing else to do makes the call: each thread less on its way is a tenth of a millisecond.
            alone = timeout is None and len(waiting) == 1 and not self.outbox.unsettled()
            while not self.dispatch(partition, here=alone):
                self._await(partial(self.outbox.is_free, partition), end, late)
        with self._lock:
            sent = self.outbox.unsettled()
        self._await(lambda: sent.isdisjoint(self.outbox.unsettled()), end, late)

    def append(self, requests: Sequence[tuple[int, bytes]]) -> list[Appended]:
        """Sends complete Produce requests, each to its partition, side by side; returns when all are settled."""
        self.outbox.refuse_fork()
        waiters: list[Future[Outcome]] = []
        for partition, request in requests:
            waiter: Future[Outcome] = Future()
            with self._lock:
                batch = self.outbox.append(partition, request, waiter.set_result)
            late = not_free(self.outbox.delivery_timeout, partition)
            self._await(partial(self.outbox.claim, batch), batch.deadline, late)
            self._start(batch)
            waiters.append(waiter)
        return all_appended([waiter.result() for waiter in waiters])

    def close(self) -> None:
        """Gives up what is not settled, and counts it."""
        with self._lock:
            if self.outbox.closed:
                return
            left = self.outbox.close()
            self._producing.close()
            self._buffer.wake()
            self._settled.notify_all()
        for batch in left:
            if batch.waiter is not None:
                batch.waiter(self.outbox.closed_error())
        _senders.discard(self)

    def after_fork(self) -> None:
        """In the child: the thread and whoever held the lock are in the parent, so nothing here works any more."""
        self.outbox.forked = self.outbox.halted = True

    def _await(self, condition: Callable[[], bool], end: float | None, late: str) -> None:
        """Sleeps until the condition holds; it is looked at, with the lock held, whenever a batch was settled."""
        with self._settled:
            left = None if end is None else max(0.0, end - time.monotonic())
            if not self._settled.wait_for(lambda: condition() or self.outbox.closed, left):
                raise self.outbox.late_error(late)
            if not condition():
                raise self.outbox.closed_error()

    def _start(self, batch: SentBatch) -> None:
        timeout = batch.attempt()
        self._producing.start(batch.request, timeout, partial(self._answered, batch))
        if self._producing.is_timed and time.monotonic() + timeout < self._awake_by:
            self._watch()

    def _send_here(self, batch: SentBatch) -> None:
        answer: bytes | BrokerError = UnansweredError(UnavailableError("the call was interrupted"))
        try:
            answer = self._producing.ask(batch.request, batch.attempt())
        finally:
            self._answered(batch, answer)  # also when Ctrl-C came between: it is tried again

    def _answered(self, batch: SentBatch, answer: bytes | BrokerError) -> None:
        """Takes the broker's word for a batch, in whatever thread it comes."""
        with self._lock:
            outcome = self.outbox.answered(batch, answer)
            if outcome is None:
                self._start_thread()
                self._buffer.wake()
                self._settled.notify_all()  # its partition may be free
            elif self.outbox.closed:
                return  # close() has counted it
            else:
                self.outbox.settle(batch, outcome)
                self._settled.notify_all()
            following = self.outbox.following(batch)
        if outcome is not None:
            self.outbox.tell(batch, outcome)
        for batch in following:
            self._start(batch)

    # The thread: lingering records, retries, and what is not answered in time. It sleeps in the core until one of them
    # is due, for good while there is none, so that it needs the interpreter only where it has something to do.

    def _watch(self) -> None:
        """Has the thread look at what is overdue."""
        with self._lock:
            self._start_thread()
        self._buffer.wake()

    def _start_thread(self) -> None:
        """The lock is held."""
        if self._thread is None and not self.outbox.closed:
            self._thread = threading.Thread(target=self._run, name=f"sender of {self.outbox.producer}", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while True:
            with self._lock:
                if self.outbox.closed:
                    return
            self._awake_by = math.inf  # what is started from here on may be seen or not, so it wakes
            overdue = self._producing.overdue()
            self._awake_by = math.inf if overdue is None else time.monotonic() + overdue
            with self._lock:
                again, retry = self.outbox.due(time.monotonic())
            for batch in again:
                self._start(batch)
            waits = [wait for wait in (overdue, retry) if wait is not None]
            for partition in self._buffer.due(0.0 if again else min(waits, default=None)):
                self.dispatch(partition)


_senders: Final[weakref.WeakSet[Sender]] = weakref.WeakSet()


def _after_fork() -> None:
    for sender in _senders:
        sender.after_fork()


os.register_at_fork(after_in_child=_after_fork)
