"""From a producer's buffer to the broker: one batch a partition at a time, sent again until it is settled."""

from __future__ import annotations

import logging
import os
import random
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Final

from telemetry_broker import _core
from telemetry_broker.errors import (
    BrokerError,
    ClosedError,
    ConflictError,
    InvalidArgumentError,
    ProduceUnknownError,
    TimedOutError,
    UnavailableError,
)
from telemetry_broker.transport import Transport, UnansweredError
from telemetry_broker.v1 import broker_pb2 as pb

_REQUEST_TIMEOUT: Final = 30.0
_FIRST_BACKOFF: Final = 0.05
_LONGEST_BACKOFF: Final = 5.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Appended:
    """Where a batch of a producer went."""

    partition: int
    log_id: bytes
    """16 bytes."""
    base_offset: int
    """Offset of the first record, the rest follow without a gap; 0 for a duplicate."""
    count: int
    """Records appended; 0 for a duplicate."""
    duplicate: bool
    """The partition had this sequence or a higher one already: nothing was appended."""


@dataclass(slots=True, eq=False)
class _Batch:
    """One Produce request until it is settled: the same bytes, and so the same sequence, at every attempt."""

    partition: int
    request: bytes
    count: int
    deadline: float
    waiter: Future[Appended] | None = None  # set where somebody waits for this batch alone
    attempts: int = 0
    maybe_stored: bool = False  # an attempt was sent and not answered
    retry_at: float | None = None  # None: on its way


class Sender:
    """Sends the batches of one producer. Thread-safe.

    At most one batch a partition is unanswered: a second one could overtake a first one that must be sent again, and
    its higher sequence would make the first a duplicate. What comes meanwhile stays in the buffer and follows.

    Attributes:
        halted: ``make_way`` must be called before a record is added: there is an error to raise, a partition is
            stalled, the producer appends, was closed, or came through a fork.
        failed_records: records of batches that were given up.
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
    ) -> None:
        self.halted = False
        self.failed_records = 0
        self._transport = transport
        self._topic = topic
        self._producer = producer
        self._buffer = buffer
        self._linger = linger
        self._delivery_timeout = delivery_timeout
        self._on_error = on_error
        self._lock = threading.Lock()
        self._settled = threading.Condition(self._lock)
        self._timed = threading.Condition(self._lock)  # for the thread: something new has a time
        self._thread: threading.Thread | None = None
        # All below is guarded by the lock.
        self._batches: dict[int, _Batch] = {}
        self._followed: set[int] = set()  # partitions whose next batch leaves when the one above is settled
        self._stalled: set[int] = set()  # those of them whose next batch is full
        self._linger_from: float | None = None  # when the buffer's oldest record came; None: the buffer is empty
        self._error: BrokerError | None = None  # of a batch that nobody waits for; raised once
        self._appends = False
        self._closed = False
        self._forked = False
        _senders.add(self)

    @property
    def closed(self) -> bool:
        """Whether it was closed, here or by being on the wrong side of a fork."""
        return self._closed or self._forked

    def make_way(self, max_block: float) -> None:
        """Waits until there is room for a record, or says why none is taken."""
        self._refuse_fork()
        self.raise_error()
        if self._closed:
            raise self._closed_error()
        if self._appends:
            raise InvalidArgumentError(
                f"{self._topic}: append() was called on this producer and send() would mix up its sequences: "
                "use a producer of its own for each"
            )
        self._await(
            lambda: not self._stalled or self._error is not None,
            time.monotonic() + max_block,
            f"{max_block:g} s (max_block) there was no room for another record, which was not added",
        )
        self.raise_error()
        with self._lock:
            self.halted = self._must_halt()

    def _must_halt(self) -> bool:
        return bool(self._stalled) or self._error is not None or self._appends or self._closed or self._forked

    def raise_error(self) -> None:
        """Raises what befell a batch since the last time."""
        with self._lock:
            error, self._error = self._error, None
        if error is not None:
            raise error

    def linger_on(self, *, was_empty: bool) -> None:
        """Lets the buffer's records leave when the oldest has waited for ``linger``."""
        with self._lock:
            unwatched = self._linger_from is None
            if unwatched or was_empty:
                self._linger_from = time.monotonic()
            if unwatched:
                self._wake_thread()

    def dispatch(self, partition: int, *, stall: bool = False) -> bool:
        """Sends the partition's batch now, or leaves it to follow the one that is on its way; then returns False.

        ``stall``: the batch is full, so that no record is taken until it has left.
        """
        with self._lock:
            if partition in self._batches:
                self._followed.add(partition)
                if stall:
                    self._stalled.add(partition)
                    self.halted = True
                return False
            batch = self._take(partition)
        if batch is not None:
            self._start(batch)
        return True

    def flush(self, timeout: float | None) -> None:
        """Sends what is in the buffer and returns when all of it, and all before it, is settled."""
        self._refuse_fork()
        end = None if timeout is None else time.monotonic() + timeout
        late = f"{timeout} s (flush's timeout) not everything is stored; it is still on its way"
        for partition in self._buffer.waiting():
            while not self.dispatch(partition):
                self._await(partial(self._is_free, partition), end, late)
        with self._lock:
            sent = set(self._batches.values())
        self._await(lambda: sent.isdisjoint(self._batches.values()), end, late)

    def append(self, requests: Sequence[tuple[int, bytes]]) -> list[Appended]:
        """Sends complete Produce requests, each to its partition, side by side; returns when all are settled."""
        self._refuse_fork()
        with self._lock:
            self._appends = self.halted = True
        waiters: list[Future[Appended]] = []
        for partition, request in requests:
            waiter: Future[Appended] = Future()
            batch = _Batch(partition, request, 0, time.monotonic() + self._delivery_timeout, waiter)
            late = f"{self._delivery_timeout:g} s (delivery_timeout) partition {partition} was not free"
            self._await(partial(self._claim, batch), batch.deadline, late)
            self._start(batch)
            waiters.append(waiter)
        errors = [error for error in (waiter.exception() for waiter in waiters) if error is not None]
        if errors:
            raise errors[0]
        return [waiter.result() for waiter in waiters]

    def close(self) -> None:
        """Gives up what is not settled, and counts it."""
        with self._lock:
            if self._closed:
                return
            self._closed = self.halted = True
            left = list(self._batches.values())
            self.failed_records += len(self._buffer) + sum(batch.count for batch in left)
            self._timed.notify_all()
            self._settled.notify_all()
        for batch in left:
            if batch.waiter is not None:
                batch.waiter.set_exception(self._closed_error())
        _senders.discard(self)

    def after_fork(self) -> None:
        """In the child: the thread and whoever held the lock are in the parent, so nothing here works any more."""
        self._forked = self.halted = True

    def _refuse_fork(self) -> None:
        if self._forked:
            raise UnavailableError(
                f"this producer of {self._topic} was made before this process was forked: connect in the new process"
            )

    def _closed_error(self) -> ClosedError:
        return ClosedError(f"this producer of {self._topic} was closed; make another with broker.producer()")

    def _await(self, condition: Callable[[], bool], end: float | None, late: str) -> None:
        """Sleeps until the condition holds; it is looked at, with the lock held, whenever a batch was settled."""
        with self._settled:
            left = None if end is None else max(0.0, end - time.monotonic())
            if not self._settled.wait_for(lambda: condition() or self._closed, left):
                waiting = len(self._buffer) + sum(batch.count for batch in self._batches.values())
                raise TimedOutError(f"{self._topic}: after {late}; {waiting} records wait for the broker")
            if not condition():
                raise self._closed_error()

    def _is_free(self, partition: int) -> bool:
        return partition not in self._batches

    def _claim(self, batch: _Batch) -> bool:
        """Makes this the partition's batch if it has none. The lock is held."""
        return self._batches.setdefault(batch.partition, batch) is batch

    def _take(self, partition: int) -> _Batch | None:
        """Moves the partition's records out of the buffer; None when it has none. The lock is held."""
        taken = self._buffer.take(partition)
        if taken is None:
            return None
        request, count = taken
        batch = _Batch(partition, request, count, time.monotonic() + self._delivery_timeout)
        self._batches[partition] = batch
        return batch

    def _start(self, batch: _Batch) -> None:
        batch.attempts += 1
        timeout = min(_REQUEST_TIMEOUT, max(0.1, batch.deadline - time.monotonic()))
        self._transport.start("Produce", batch.request, timeout, partial(self._answered, batch))

    def _answered(self, batch: _Batch, answer: bytes | BrokerError) -> None:
        """Takes the broker's word for a batch, in whatever thread it comes."""
        if isinstance(answer, bytes):
            self._settle(batch, self._outcome(batch, answer))
            return
        if isinstance(answer, UnansweredError):
            batch.maybe_stored = True
            error, retryable = answer.cause, not isinstance(answer.cause, ClosedError)
        else:
            error, retryable = answer, isinstance(answer, UnavailableError) or answer.retry_after is not None
        pause = min(_LONGEST_BACKOFF, _FIRST_BACKOFF * 2 ** min(batch.attempts, 10)) * random.uniform(0.5, 1.0)  # noqa: S311
        retry_at = time.monotonic() + max(pause, error.retry_after or 0.0)
        if retryable and retry_at < batch.deadline:
            with self._lock:
                batch.retry_at = retry_at
                self._wake_thread()
        else:
            self._settle(batch, self._failure(batch, error))

    def _outcome(self, batch: _Batch, answer: bytes) -> Appended | BrokerError:
        entry = pb.ProduceResponse.FromString(answer).appended[0]
        if entry.duplicate and batch.waiter is None and batch.attempts == 1:
            return ConflictError(
                f"{self._topic}/{batch.partition}: another producer named {self._producer!r} is at work and had used "
                f"the sequence of these {batch.count} records, so the broker took them for its duplicates and did not "
                "store them: give each running producer a name of its own",
                code="producer.name",
            )
        return Appended(entry.partition, entry.log_id, entry.base_offset, entry.count, entry.duplicate)

    def _failure(self, batch: _Batch, error: BrokerError) -> BrokerError:
        what = f"{self._topic}/{batch.partition}: a batch" + (f" of {batch.count} records" if batch.count else "")
        tries = f", in {batch.attempts} attempts" if batch.attempts > 1 else ""
        if batch.maybe_stored:
            return ProduceUnknownError(
                f"{what} was sent and not answered{tries}, so it may or may not be stored. The last answer was {error}"
            )
        return type(error)(f"{what} was not stored{tries}: {error.message}", code=error.code)

    def _settle(self, batch: _Batch, outcome: Appended | BrokerError) -> None:
        """Frees the partition, sends what waited for that, and passes the outcome on."""
        failed = isinstance(outcome, BrokerError)
        with self._lock:
            if self._closed:
                return  # close() has counted it
            del self._batches[batch.partition]
            following = None
            if batch.partition in self._followed:
                self._followed.discard(batch.partition)
                self._stalled.discard(batch.partition)
                following = self._take(batch.partition)
            if failed:
                self.failed_records += batch.count
            if isinstance(outcome, BrokerError) and batch.waiter is None and self._on_error is None:
                self._error = self._error or outcome
                self.halted = True
            self._settled.notify_all()
        self._tell(batch, outcome)
        if following is not None:
            self._start(following)

    def _tell(self, batch: _Batch, outcome: Appended | BrokerError) -> None:
        if isinstance(outcome, Appended):
            if batch.waiter is not None:
                batch.waiter.set_result(outcome)
        elif batch.waiter is not None:
            batch.waiter.set_exception(outcome)
        elif self._on_error is not None:
            try:
                self._on_error(outcome)
            except Exception:  # noqa: BLE001 - the caller's code must not end the thread that stores its records
                _log.exception("on_error of producer %r failed", self._producer)

    # The thread: lingering records and retries. It sleeps until the next one is due, and for good while there is none.

    def _wake_thread(self) -> None:
        """The lock is held."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=f"sender of {self._producer}", daemon=True)
            self._thread.start()
        self._timed.notify()

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._sleep():
                    return
                now = time.monotonic()
                due = [
                    batch for batch in self._batches.values() if batch.retry_at is not None and batch.retry_at <= now
                ]
                for batch in due:
                    batch.retry_at = None
                lingered = self._linger_from is not None and self._linger_from + self._linger <= now
                if lingered:
                    self._linger_from = None
            for batch in due:
                self._start(batch)
            if lingered:
                for partition in self._buffer.waiting():
                    self.dispatch(partition)
                # A record added between these dispatches found the buffer not empty, so nobody watches it.
                if len(self._buffer):
                    self.linger_on(was_empty=False)

    def _sleep(self) -> bool:
        """Waits until something is due; False once closed. The lock is held."""
        while not self._closed:
            times = [batch.retry_at for batch in self._batches.values() if batch.retry_at is not None]
            if self._linger_from is not None:
                times.append(self._linger_from + self._linger)
            left = min(times) - time.monotonic() if times else None
            if left is not None and left <= 0:
                return True
            self._timed.wait(left)
        return False


_senders: Final[weakref.WeakSet[Sender]] = weakref.WeakSet()


def _after_fork() -> None:
    for sender in _senders:
        sender.after_fork()


os.register_at_fork(after_in_child=_after_fork)
