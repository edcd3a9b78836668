"""Takes records, decodes them, commits rows and positions together, and acks after that.

The store's position is the truth. On taking a partition the group is moved there, backwards too; after anything
unexpected (records given out again, a commit that finds the store elsewhere) what is not committed is dropped and taken
again from there. So each record is in the store once, through any crash of any part.

Two threads: one takes and decodes, the other one commits and acks; at most one commit is under way while the next one
is made.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final

import pyarrow as pa

from telemetry_broker import Batch, Broker, Consumer, Offset, _core, tracing
from telemetry_broker.errors import BrokerError, NotFoundError, StaleLeaseError
from telemetry_services.collector.dead_letters import DeadLetters
from telemetry_services.collector.pending import MEASUREMENT, Pending, Span
from telemetry_services.observability import metrics
from telemetry_services.serving.retries import TRANSIENT, retrying
from telemetry_services.store import (
    OffsetRange,
    Store,
    StoreClosedError,
    StoreCorruptError,
    StoreError,
    StoreForeignError,
    StorePositionError,
    StoreSchemaError,
    StoreUrlError,
)

log = logging.getLogger(__name__)

_IDLE_SECONDS: Final = 0.5
_DELIVERY_BYTES: Final = 4 << 20
_MAX_RECORDS: Final = 65_536
_STORE_LASTING: Final = (
    StoreClosedError,
    StoreCorruptError,
    StoreForeignError,
    StorePositionError,
    StoreSchemaError,
    StoreUrlError,
)
"""Errors of a store that waiting does not mend."""

_NEVER_TAKEN: Final = (StoreSchemaError, pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError)
"""What says that rows, and not the store or its disk, are at fault."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """When a batch is committed: at whichever comes first.

    Attributes:
        rows: wide points.
        nbytes: bytes of encoded records.
        age: seconds since its first record was taken.
    """

    rows: int = 100_000
    nbytes: int = 16 << 20
    age: float = 0.5


@dataclass(slots=True)
class Held:
    """A partition's log as far as this collector has it.

    Attributes:
        stored: everything below is in the store.
        taken: everything below is in the store or on its way.
    """

    partition: int
    stored: int
    taken: int


@dataclass(slots=True)
class Status:
    """Counts since the start. Written by one thread at a time, read by any.

    Attributes:
        adopted: whether the group stands at the store's position in every partition that no other collector holds;
            before that its lag says nothing about the store.
    """

    paused: bool = False
    records_stored: int = 0
    rows_stored: int = 0
    samples_stored: int = 0
    records_rejected: int = 0
    commits: int = 0
    last_error: str = ""
    adopted: bool = False
    held: dict[bytes, Held] = field(default_factory=dict)


class Collector:
    """One topic into one store.

    Args:
        on_commit: called after each commit and ack, in the committing thread, and once the partitions are adopted.
    """

    def __init__(
        self,
        broker: Broker,
        store: Store,
        *,
        topic: str,
        group: str,
        dead_letters: DeadLetters,
        name: str | None = None,
        bounds: Bounds = Bounds(),
        on_commit: Callable[[Status], None] = lambda _: None,
        service: str = "collector",
    ) -> None:
        self._broker = broker
        self._store = store
        self.topic = topic
        self.group = group
        self.name = name
        self._bounds = bounds
        self._dead_letters = dead_letters
        self._on_commit = on_commit
        self._service = service
        self.status = Status()
        self._tags: set[str] = set()
        self._fields: set[str] = set()
        self._pending = self._new_pending()
        self._committing: Future[None] | None = None
        self._flushes: list[Future[int]] = []
        self._lock = threading.Lock()  # of _flushes
        self._stop = threading.Event()

    def run(self, stop: threading.Event) -> None:
        """Collects until `stop` is set, then commits what it holds, acks it and gives its partitions back.

        A broker or store that is away is waited for, with growing pauses.

        Raises:
            BrokerError: something that waiting does not mend; what was not committed is not acked.
        """
        self._stop = stop
        for attempt in retrying(stop, f"collecting {self.topic}", on=(*TRANSIENT, NotFoundError)):
            with attempt:
                self._run_once(stop)

    def _run_once(self, stop: threading.Event) -> None:
        self.status.adopted = False
        self.status.held.clear()
        self._learn_names()
        self._pending = self._new_pending()
        with (
            ThreadPoolExecutor(1, thread_name_prefix="commit") as commits,
            self._broker.consumer(
                self.topic,
                group=self.group,
                mode="ordered",
                name=self.name,
                max_bytes=_DELIVERY_BYTES,
                max_records=_MAX_RECORDS,
            ) as consumer,
        ):
            try:
                self._adopt_free()
                self.status.adopted = True
                self._on_commit(self.status)
                while not stop.is_set():
                    self._step(consumer, commits)
                self._commit(consumer, commits)
            finally:
                self._end_commit()

    def flush(self) -> "Future[int]":
        """Asks for a commit of what is held now; the future gives the number of records it stored."""
        flushed: Future[int] = Future()
        with self._lock:
            self._flushes.append(flushed)
        return flushed

    def pause(self, paused: bool) -> None:
        """Stops taking records, or goes on; what is held is committed."""
        self.status.paused = paused

    def _step(self, consumer: Consumer, commits: ThreadPoolExecutor) -> None:
        """Takes one batch, or waits a little for one; commits when it is time."""
        if self.status.paused:
            self._commit(consumer, commits)
            self._end_commit()
            self._answer_flushes(self.status.records_stored)
            self._stop.wait(_IDLE_SECONDS)
            return
        wait = max(0.0, self._bounds.age - self._pending.age) if self._pending.records else _IDLE_SECONDS
        before = self.status.records_stored
        batch = consumer.receive(wait=min(wait, _IDLE_SECONDS))
        if batch:
            self._take(batch)
        if self._flushes:
            self._commit(consumer, commits)
            self._end_commit()
            self._answer_flushes(self.status.records_stored - before)
        elif self._is_full():
            self._commit(consumer, commits)
        elif not batch and self._committing is not None and self._committing.done():
            self._end_commit()

    def _is_full(self) -> bool:
        pending = self._pending
        return (
            pending.builder.rows >= self._bounds.rows
            or pending.nbytes >= self._bounds.nbytes
            or (pending.records > 0 and pending.age >= self._bounds.age)
        )

    def _take(self, batch: Batch) -> None:
        held = self.status.held.get(batch.log_id)
        if held is None:
            held = self._adopt(batch.partition, batch.log_id, batch.base_offset)
            if held.stored != batch.base_offset:
                return  # the group was moved: these records come again, or are stored already
        if batch.base_offset < held.taken:
            log.info(
                "records were given out again, going on from the store's position",
                extra={"partition": batch.partition, "offset": batch.base_offset, "expected": held.taken},
            )
            self._resync()
            return
        rejected = self._pending.add(batch, held.taken)
        held.taken = batch.end.offset
        if rejected:
            self.status.records_rejected += len(rejected)
            self._dead_letters.put(batch, rejected)

    def _adopt_free(self) -> None:
        """Moves the group to the store's position wherever no consumer is at work.

        Without it, a new store or a restored one would wait for records that the group has acked.
        """
        self._broker.create_group(self.topic, self.group, "ordered")
        for partition in self._broker.describe_group(self.topic, self.group).partitions:
            if not partition.holder:
                self._adopt(partition.partition, partition.log_id, partition.acked_end_offset)

    def _adopt(self, partition: int, log_id: bytes, group_offset: int) -> Held:
        """Starts on a partition, at the store's position, where the group is moved if it is elsewhere.

        A store that knows nothing of the log gets all that the log still has.
        """
        position = self._store.positions([log_id.hex()]).get(log_id.hex())
        if position is None:
            state = self._broker.describe_topic(self.topic).partitions[partition]
            position = min(group_offset, state.start_offset)
        if position != group_offset:
            log.info(
                "moving the group to the store's position",
                extra={"partition": partition, "from": group_offset, "to": position},
            )
            self._seek(partition, log_id, position)
        held = self.status.held[log_id] = Held(partition, position, position)
        return held

    def _seek(self, partition: int, log_id: bytes, position: int) -> None:
        where = Offset(log_id, position)
        self._broker.seek(self.topic, self.group, where, partitions=[partition])

    def _resync(self) -> None:
        """Drops what is not committed and takes it again, from the store's position."""
        try:
            if self._committing is not None:
                self._committing.result()
        except StorePositionError as error:
            log.info("the store stands elsewhere: %s", error)
        finally:
            self._committing = None
        self._pending = self._new_pending()
        held, self.status.held = self.status.held, {}
        stored = self._store.positions([log_id.hex() for log_id in held])
        for log_id, at in held.items():
            position = stored.get(log_id.hex(), at.stored)
            self._seek(at.partition, log_id, position)
            self.status.held[log_id] = Held(at.partition, position, position)

    def _commit(self, consumer: Consumer, commits: ThreadPoolExecutor) -> None:
        """Hands what is pending to the committing thread, once that has ended the commit before it."""
        pending = self._pending
        if not self._end_commit() or not pending.records:
            return
        self._pending = self._new_pending()
        self._committing = commits.submit(self._process, consumer, pending)

    def _end_commit(self) -> bool:
        """Waits for the commit under way; False when it found the store elsewhere, and all was taken back."""
        committing, self._committing = self._committing, None
        if committing is None:
            return True
        try:
            committing.result()
        except StorePositionError as error:
            log.warning("the store stands elsewhere than expected, going on from there: %s", error)
            self._resync()
            return False
        return True

    def _process(self, consumer: Consumer, pending: Pending) -> None:
        with tracing.process(*(batch for span in pending.spans.values() for batch in span.batches)):
            self._store_and_ack(consumer, pending)

    def _store_and_ack(self, consumer: Consumer, pending: Pending) -> None:
        columns = pending.builder.finish()
        spans = {log_id: span.as_range() for log_id, span in pending.spans.items()}
        try:
            try:
                rows, samples = self._write(columns, spans), _count_values(columns)
            except _NEVER_TAKEN as error:
                log.warning("the store refuses a commit, looking for the records that it refuses: %s", error)
                rows, samples = self._store_apart(pending)
            else:
                self._tags.update(columns.tags)
                self._fields.update(columns.fields)
        except BrokerError as error:
            self.status.last_error = str(error)
            raise
        for log_id, span in pending.spans.items():
            held = self.status.held.get(log_id)
            if held is not None:
                held.stored = span.next
        try:
            consumer.ack(span.batches[-1] for span in pending.spans.values())
        except StaleLeaseError as error:
            # Stored all the same: whoever holds the partition now starts at the store's position.
            log.info("stored records had been given out again: %s", error)
        self._count(pending, rows, samples)

    def _write(self, columns: _core.ColumnBatch | None, spans: Mapping[bytes, OffsetRange]) -> int:
        """One commit, tried again while the store is away; gives the rows stored."""
        positions = {log_id.hex(): span for log_id, span in spans.items()}
        started = time.monotonic()
        outcome = "error"
        try:
            write = retrying(self._stop, "storing", on=(StoreError,), but=_STORE_LASTING)
            rows = write(self._store.write, [columns] if columns else [], positions)
            outcome = "success"
        except StorePositionError as error:
            if any(error.positions.get(log_id) != span.next for log_id, span in positions.items()):
                raise
            rows = len(columns or ())  # an earlier attempt stored all of it, and only its answer was lost
            outcome = "success"
        finally:
            metrics.DATABASE_OPERATIONS.labels(self._service, "write", outcome).inc()
            metrics.DATABASE_SECONDS.labels(self._service, "write").observe(time.monotonic() - started)
        return rows

    def _store_apart(self, pending: Pending) -> tuple[int, int]:
        """Stores in parts what the store refused as a whole; exactly the records it will never take are dead-lettered.

        Gives the rows and the samples stored.
        """
        self._learn_names()  # another collector may have added columns meanwhile
        rows = samples = 0
        for log_id, span in pending.spans.items():
            stored_to = span.first
            for batch in span.batches:
                # Halves that are refused are cut again, the first one on top.
                parts = [(0, len(batch))]
                while parts:
                    start, end = parts.pop()
                    columns, rejected = self._decode(batch, start, end)
                    next_offset = batch.base_offset + end if end < len(batch) else batch.end.offset
                    try:
                        rows += self._write(columns, {log_id: OffsetRange(stored_to, next_offset)})
                        samples += _count_values(columns)
                        stored_to = next_offset
                        self._tags.update(columns.tags)
                        self._fields.update(columns.fields)
                    except _NEVER_TAKEN as error:
                        if end - start > 1:
                            middle = (start + end) // 2
                            parts += [(middle, end), (start, middle)]
                            continue
                        # The position is moved over it by the next commit.
                        rejected = {batch.base_offset + start: str(error)}
                    self._reject(pending, span, batch, rejected)
            if stored_to < span.next:
                self._write(None, {log_id: OffsetRange(stored_to, span.next)})
        return rows, samples

    def _decode(self, batch: Batch, start: int, end: int) -> tuple[_core.ColumnBatch, dict[int, str]]:
        """Decodes some records of a batch; gives the reasons of those that cannot be decoded, by offset."""
        builder = self._new_builder()
        builder.append_values(batch.values[start:end], batch.base_offset + start)
        rejected = {offset: reason for offset, _, reason in reversed(builder.rejected)}
        return builder.finish(), rejected

    def _reject(self, pending: Pending, span: Span, batch: Batch, rejected: Mapping[int, str]) -> None:
        new = {offset: reason for offset, reason in rejected.items() if offset not in span.rejected}
        if new:
            span.rejected |= new.keys()
            pending.rejected += len(new)
            self.status.records_rejected += len(new)
            self._dead_letters.put(batch, sorted(new.items()))

    def _count(self, pending: Pending, rows: int, samples: int) -> None:
        status = self.status
        status.records_stored += pending.records - pending.rejected
        status.rows_stored += rows
        status.samples_stored += samples
        status.commits += 1
        status.last_error = ""
        metrics.MESSAGES_CONSUMED.labels(self._service, self.topic).inc(pending.records)
        metrics.DATA_POINTS.labels(self._service, "stored").inc(samples)
        metrics.MESSAGE_PROCESSING_SECONDS.labels(self._service, self.topic).observe(pending.age)
        log.info(
            "Processed message",
            extra={
                "topic": self.topic,
                "records": pending.records,
                "rows": rows,
                "samples": samples,
                "rejected": pending.rejected,
                "seconds": round(pending.age, 3),
            },
        )
        self._on_commit(status)

    def _answer_flushes(self, records: int) -> None:
        with self._lock:
            flushes, self._flushes = self._flushes, []
        for flushed in flushes:
            if flushed.set_running_or_notify_cancel():
                flushed.set_result(records)

    def _learn_names(self) -> None:
        self._tags.update(self._store.tags())
        self._fields.update(self._store.metrics())

    def _new_pending(self) -> Pending:
        return Pending(self._new_builder())

    def _new_builder(self) -> _core.ColumnBuilder:
        # What a name was before, a tag or a field, it stays: the store could not take it as the other one.
        return _core.ColumnBuilder(MEASUREMENT, tags=sorted(self._tags), fields=sorted(self._fields))


def _count_values(columns: _core.ColumnBatch) -> int:
    """Values that are there: fields that are not null."""
    batch = pa.record_batch(columns)
    return sum(batch.num_rows - batch.column(name).null_count for name in columns.fields)
