"""What a producer has sent and what became of it: the decisions of both faces, with no I/O, no thread and no lock."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
from telemetry_broker.producing import new_name
from telemetry_broker.transport import Request, UnansweredError, forked_error
from telemetry_broker.v1 import broker_pb2 as pb

_REQUEST_TIMEOUT: Final = 30.0
_FIRST_BACKOFF: Final = 0.05
_LONGEST_BACKOFF: Final = 5.0
_MAX_ASIDE: Final = 16

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


Outcome = Appended | BrokerError
"""What became of a batch."""


@dataclass(slots=True, eq=False)
class SentBatch:
    """One Produce request until it is settled: the same bytes, and so the same sequence, at every attempt."""

    partition: int
    request: Request
    count: int
    deadline: float
    waiter: Callable[[Outcome], None] | None = None  # set where somebody waits for this batch alone
    attempts: int = 0
    resent_to: str | None = None  # an attempt was sent and not answered: who may have it, empty where nobody knows
    retry_at: float | None = None  # None: on its way

    @property
    def maybe_stored(self) -> bool:
        """Whether an attempt was sent and not answered."""
        return self.resent_to is not None

    def note_unanswered(self, broker: str) -> None:
        """An attempt was not answered; from here on the request says who may have it, once somebody knows."""
        if self.resent_to is None or (broker and broker != self.resent_to):
            self.resent_to = broker
            # Protobuf fields may stand in any order, and of two the last one counts.
            self.request = bytes(self.request) + pb.ProduceRequest(resent_to=broker).SerializeToString()

    def attempt(self) -> float:
        """Counts an attempt and returns its timeout in seconds."""
        self.attempts += 1
        return min(_REQUEST_TIMEOUT, max(0.1, self.deadline - time.monotonic()))


class Outbox:
    """The books of one producer. Who calls sees to it that one thread at a time does.

    At most one batch a partition is unanswered: a second one could overtake a first one that must be sent again, and
    its higher sequence would make the first a duplicate. What comes meanwhile stays in the buffer and follows.

    Several brokers, of which one did not answer, need not hold up a producer whose name was made up: what it may have
    is set aside and sent there again, and what follows goes on under another name, with sequences of its own.

    Attributes:
        halted: a record must not be added before somebody looked why: there is an error to raise, a partition is
            stalled, the producer appends, was closed, or came through a fork.
        failed_records: records of batches that were given up.
        stored_records: records that the broker answered for.
        batches: the unanswered batch of each partition.
        aside: batches that a broker which is away may have, and that nothing waits for.
        stalled: partitions whose next batch is full and waits for the one above.
    """

    def __init__(
        self,
        topic: str,
        producer: str,
        buffer: _core.ProducerBuffer,
        *,
        delivery_timeout: float,
        on_error: Callable[[BrokerError], None] | None,
        is_named: bool = True,
    ) -> None:
        self.topic = topic
        self.producer = producer
        self.failed_records = 0
        self.stored_records = 0
        self.batches: dict[int, SentBatch] = {}
        self.aside: set[SentBatch] = set()
        self.stalled: set[int] = set()
        self.error: BrokerError | None = None  # of a batch that nobody waits for; raised once
        self.closed = False
        self.forked = False
        self.delivery_timeout = delivery_timeout
        self._buffer = buffer
        self._on_error = on_error
        self._is_named = is_named
        self._followed: set[int] = set()  # partitions whose next batch leaves when the one above is settled
        self._gathered = False  # small batches wait until nothing is on its way
        self._appends = False

    @property
    def halted(self) -> bool:
        """See the class; the buffer has it, where each record looks."""
        return self._buffer.halted

    @halted.setter
    def halted(self, halted: bool) -> None:
        self._buffer.halted = halted

    def refuse_fork(self) -> None:
        """Raises in the child of a fork."""
        if self.forked:
            raise forked_error(f"this producer of {self.topic}")

    def refuse_record(self) -> None:
        """Says why no record is taken, ever; being stalled passes."""
        self.refuse_fork()
        self.raise_error()
        if self.closed:
            raise self.closed_error()
        if self._appends:
            raise InvalidArgumentError(
                f"{self.topic}: append() was called on this producer and send() would mix up its sequences: "
                "use a producer of its own for each"
            )

    def raise_error(self) -> None:
        """Raises what befell a batch since the last time."""
        error, self.error = self.error, None
        if error is not None:
            raise error

    def look_again(self) -> None:
        """Sets ``halted`` anew."""
        self.halted = bool(self.stalled) or self.error is not None or self._appends or self.closed or self.forked

    def closed_error(self) -> ClosedError:
        """What a closed producer answers."""
        return ClosedError(f"this producer of {self.topic} was closed; make another with broker.producer()")

    def late_error(self, late: str) -> TimedOutError:
        """What a wait that took too long answers; ``late`` says for how long and for what it was."""
        waiting = len(self._buffer) + sum(batch.count for batch in self.unsettled())
        return TimedOutError(f"{self.topic}: after {late}; {waiting} records wait for the broker")

    # The way of a batch: taken or claimed, answered, settled.

    def is_free(self, partition: int) -> bool:
        """Whether no batch of the partition is on its way."""
        return partition not in self.batches

    def unsettled(self) -> set[SentBatch]:
        """Every batch that was sent and is not settled."""
        return {*self.batches.values(), *self.aside}

    def follow(self, partition: int, *, stall: bool) -> None:
        """Lets the partition's next batch leave when the present one is settled; ``stall``: it is full."""
        self._followed.add(partition)
        if stall:
            self.stalled.add(partition)
            self.halted = True

    def gather(self) -> bool:
        """Whether a small batch is to wait for the answers that are on their way, and leave with what came meanwhile.

        Nagle's rule (RFC 896): the first record leaves at once, and where they come faster than answers do, each
        message carries what one answer took. A broker is asked as often as it can answer, and not once a record.
        """
        self._gathered = self._busy()
        return self._gathered

    def take(self, partition: int) -> SentBatch | None:
        """Moves the records of a free partition out of the buffer; None when there are none, or nobody sends them."""
        taken = None if self.closed else self._buffer.take(partition)
        if taken is None:
            return None
        deadline = time.monotonic() + self.delivery_timeout
        batch = self.batches[partition] = SentBatch(partition, taken, len(taken), deadline)
        return batch

    def append(self, partition: int, request: bytes, waiter: Callable[[Outcome], None]) -> SentBatch:
        """A complete request as a batch, to be claimed; from now on no record is taken."""
        self.refuse_fork()
        if self.closed:
            raise self.closed_error()
        self._appends = self.halted = True
        return SentBatch(partition, request, 0, time.monotonic() + self.delivery_timeout, waiter)

    def claim(self, batch: SentBatch) -> bool:
        """Makes this the partition's batch if it has none."""
        return self.batches.setdefault(batch.partition, batch) is batch

    def answered(self, batch: SentBatch, answer: bytes | BrokerError) -> Outcome | None:
        """What the broker's answer means; None: try again at ``batch.retry_at``."""
        if isinstance(answer, bytes):
            return self._stored(batch, answer)
        if isinstance(answer, ProduceUnknownError):
            batch.note_unanswered(answer.broker)
            if answer.broker:
                self._set_aside(batch)
            error: BrokerError = answer
            retryable = True
        elif isinstance(answer, UnansweredError):
            batch.note_unanswered("")
            error, retryable = answer.cause, not isinstance(answer.cause, ClosedError)
        else:
            error, retryable = answer, isinstance(answer, UnavailableError) or answer.retry_after is not None
        pause = min(_LONGEST_BACKOFF, _FIRST_BACKOFF * 2 ** min(batch.attempts, 10)) * random.uniform(0.5, 1.0)  # noqa: S311
        retry_at = time.monotonic() + max(pause, error.retry_after or 0.0)
        if retryable and retry_at < batch.deadline:
            batch.retry_at = retry_at
            return None
        return self._failure(batch, error)

    def due(self, now: float) -> tuple[list[SentBatch], float | None]:
        """Batches to be tried again now, and the seconds until the next one is, None when there is none."""
        times = {batch: batch.retry_at for batch in self.unsettled() if batch.retry_at is not None}
        due = [batch for batch, retry_at in times.items() if retry_at <= now]
        for batch in due:
            batch.retry_at = None
            del times[batch]
        return due, min(times.values()) - now if times else None

    def settle(self, batch: SentBatch, outcome: Outcome) -> None:
        """Frees the partition. Not once closed: that has counted."""
        if batch in self.aside:
            self.aside.discard(batch)
        else:
            del self.batches[batch.partition]
        if isinstance(outcome, Appended):
            # A batch that was sent comes back as a duplicate only where an earlier attempt had stored it.
            self.stored_records += batch.count if batch.waiter is None else outcome.count
        else:
            self.failed_records += batch.count
            if batch.waiter is None and self._on_error is None:
                self.error = self.error or outcome
                self.halted = True

    def following(self, batch: SentBatch) -> list[SentBatch]:
        """What waited for a batch that was answered, taken out of the buffer: first what fills its partition."""
        taken = []
        if batch.partition in self._followed and self.is_free(batch.partition):
            self._followed.discard(batch.partition)
            self.stalled.discard(batch.partition)
            taken.append(self.take(batch.partition))
        if self._gathered and not self._busy():
            self._gathered = False
            taken += [self.take(partition) for partition in self._buffer.waiting() if self.is_free(partition)]
        return [batch for batch in taken if batch is not None]

    def _set_aside(self, batch: SentBatch) -> None:
        """Frees the partition of a batch that some broker may have, where nothing depends on its order."""
        sent_here = batch.waiter is None and self.batches.get(batch.partition) is batch
        if self._is_named or not sent_here or len(self.aside) >= _MAX_ASIDE:
            return
        del self.batches[batch.partition]
        self.aside.add(batch)
        self.producer = new_name()
        self._buffer.rename(self.producer)

    def _busy(self) -> bool:
        """Whether a batch is on its way; not one that waits to be tried again."""
        return any(batch.retry_at is None for batch in self.batches.values())

    def tell(self, batch: SentBatch, outcome: Outcome) -> None:
        """Passes the outcome on to whom it concerns."""
        if batch.waiter is not None:
            batch.waiter(outcome)
        elif isinstance(outcome, BrokerError) and self._on_error is not None:
            try:
                self._on_error(outcome)
            except Exception:  # noqa: BLE001 - the caller's code must not end what stores its records
                _log.exception("on_error of producer %r failed", self.producer)

    def close(self) -> list[SentBatch]:
        """Gives up what is not settled, counts it, and returns it."""
        self.closed = self.halted = True
        left = list(self.unsettled())
        self.failed_records += len(self._buffer) + sum(batch.count for batch in left)
        return left

    def _stored(self, batch: SentBatch, answer: bytes) -> Outcome:
        entry = pb.ProduceResponse.FromString(answer).appended[0]
        if entry.duplicate and batch.waiter is None and batch.attempts == 1:
            return ConflictError(
                f"{self.topic}/{batch.partition}: another producer named {self.producer!r} is at work and had used "
                f"the sequence of these {batch.count} records, so the broker took them for its duplicates and did not "
                "store them: give each running producer a name of its own",
                code="producer.name",
            )
        return Appended(entry.partition, entry.log_id, entry.base_offset, entry.count, entry.duplicate)

    def _failure(self, batch: SentBatch, error: BrokerError) -> BrokerError:
        what = f"{self.topic}/{batch.partition}: a batch" + (f" of {batch.count} records" if batch.count else "")
        tries = f", in {batch.attempts} attempts" if batch.attempts > 1 else ""
        if batch.maybe_stored:
            return ProduceUnknownError(
                f"{what} was sent and not answered{tries}, so it may or may not be stored. The last answer was {error}"
            )
        return type(error)(f"{what} was not stored{tries}: {error.message}", code=error.code, field=error.field)


def all_appended(outcomes: Sequence[Outcome]) -> list[Appended]:
    """The outcomes of an append; raises the first error among them."""
    for outcome in outcomes:
        if isinstance(outcome, BrokerError):
            raise outcome
    return [outcome for outcome in outcomes if isinstance(outcome, Appended)]


def no_room(max_block: float) -> str:
    """What ``late_error`` says of a record that found no room."""
    return f"{max_block:g} s (max_block) there was no room for another record, which was not added"


def not_flushed(timeout: float | None) -> str:
    """What ``late_error`` says of a flush."""
    return f"{timeout} s (flush's timeout) not everything is stored; it is still on its way"


def not_free(delivery_timeout: float, partition: int) -> str:
    """What ``late_error`` says of an append behind another one."""
    return f"{delivery_timeout:g} s (delivery_timeout) partition {partition} was not free"
