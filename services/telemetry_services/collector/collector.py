"""Takes records, decodes them, stores them, and acks after that.

Where the store keeps positions, its position is the truth. On taking a partition the group is moved there, backwards
too; after anything unexpected (records given out again, a commit that finds the store elsewhere) what is not committed
is dropped and taken again from there. So each record is in the store once, through any crash of any part. Where it
keeps none, a record that comes again overwrites itself, and the group's own position counts.

One thread takes and decodes, others commit and ack (see `telemetry_services.collector.commits`).
"""

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Final

from telemetry_broker import Batch, Broker, Consumer, Offset
from telemetry_broker.errors import BrokerError, NotFoundError, StaleLeaseError
from telemetry_broker.positions import MAX_TIMEOUT
from telemetry_services.collector.commits import STORE_LASTING, Breaker, Commits
from telemetry_services.collector.dead_letters import DeadLetters
from telemetry_services.collector.pending import Pending
from telemetry_services.collector.sinks import Patience, Stored, sink_for
from telemetry_services.observability import metrics
from telemetry_services.serving.retries import TRANSIENT, retrying
from telemetry_services.store import ColumnStore, LineStore, StoreError, StorePositionError

log = logging.getLogger(__name__)

_IDLE_SECONDS: Final = 0.5
_DELIVERY_BYTES: Final = 4 << 20
_DELIVERIES_A_BATCH: Final = 5
"""At least, where the store wants small batches, so that a batch is not much larger than that."""
_MAX_RECORDS: Final = 65_536


@dataclass(frozen=True, slots=True)
class Bounds:
    """When a batch is committed: at whichever comes first.

    Attributes:
        rows: wide points.
        nbytes: bytes of encoded records; less where the store takes smaller batches best.
        age: seconds since its first record was taken.
    """

    rows: int = 100_000
    nbytes: int = 16 << 20
    age: float = 0.25


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
        last_error: why the store did not take the last thing it was given; empty when it did.
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
        store: ColumnStore | LineStore,
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
        self._sink = sink_for(store)
        self.topic = topic
        self.group = group
        self.name = name
        self._bounds = bounds
        self._batch_bytes = min(bounds.nbytes, self._sink.batch_bytes or bounds.nbytes)
        self._delivery_bytes = min(_DELIVERY_BYTES, self._batch_bytes // _DELIVERIES_A_BATCH)
        self._dead_letters = dead_letters
        self._on_commit = on_commit
        self._service = service
        self.status = Status()
        self._pending = Pending(self._sink.new_builder())
        self._flushes: list[Future[int]] = []
        self._lock = threading.Lock()  # of _flushes, and of what is rejected
        self._stop = threading.Event()

    def run(self, stop: threading.Event) -> None:
        """Collects until `stop` is set, then commits what it holds, acks it and gives its partitions back.

        A broker or store that is away is waited for, with growing pauses.

        Raises:
            BrokerError: something that waiting does not mend; what was not committed is not acked.
        """
        self._stop = stop
        waited_for = (*TRANSIENT, NotFoundError, StoreError)
        for attempt in retrying(stop, f"collecting {self.topic}", on=waited_for, but=STORE_LASTING):
            with attempt:
                try:
                    self._run_once(stop)
                except StoreError as error:
                    self._note_health(str(error))
                    raise

    def prepare(self) -> None:
        """Makes the store where there is none, and sees that it can be written.

        Raises:
            StoreError: it cannot.
        """
        self._sink.prepare()

    def _run_once(self, stop: threading.Event) -> None:
        self.status.adopted = False
        self.status.held.clear()
        self.prepare()
        self._pending = self._new_pending()
        with (
            self._broker.consumer(
                self.topic,
                group=self.group,
                mode="ordered",
                name=self.name,
                max_bytes=self._delivery_bytes,
                max_records=_MAX_RECORDS,
                # Were records given out again while the store takes its time, they would be written for ever.
                max_lease_extension=MAX_TIMEOUT,
            ) as consumer,
            Commits(
                self._sink.writes_in_flight,
                Breaker(stop, self._note_health, self._service),
                self._store,
                lambda pending, stored: self._ack(consumer, pending, stored),
            ) as commits,
        ):
            self._adopt_free()
            self.status.adopted = True
            self._on_commit(self.status)
            while not stop.is_set():
                self._step(consumer, commits)
            self._commit_all(commits)

    def flush(self) -> "Future[int]":
        """Asks for a commit of what is held now; the future gives the number of records it stored."""
        flushed: Future[int] = Future()
        with self._lock:
            self._flushes.append(flushed)
        return flushed

    def pause(self, paused: bool) -> None:
        """Stops taking records, or goes on; what is held is committed."""
        self.status.paused = paused

    def _step(self, consumer: Consumer, commits: Commits) -> None:
        """Takes one batch, or waits a little for one; commits when it is time."""
        if self.status.paused:
            self._commit_all(commits)
            self._answer_flushes(self.status.records_stored)
            self._stop.wait(_IDLE_SECONDS)
            return
        wait = max(0.0, self._bounds.age - self._pending.age) if self._pending.records else _IDLE_SECONDS
        before = self.status.records_stored
        batch = consumer.receive(wait=min(wait, _IDLE_SECONDS))
        if batch:
            self._take(batch, commits)
        if self._flushes:
            self._commit_all(commits)
            self._answer_flushes(self.status.records_stored - before)
        elif self._is_full():
            self._commit(commits)
        elif not batch:
            self._settle(commits, leave=self._sink.writes_in_flight)  # one may have failed, and nothing else may come

    def _is_full(self) -> bool:
        pending = self._pending
        return (
            pending.builder.rows >= self._bounds.rows
            or pending.nbytes >= self._batch_bytes
            or (pending.records > 0 and pending.age >= self._bounds.age)
        )

    def _take(self, batch: Batch, commits: Commits) -> None:
        held = self.status.held.get(batch.log_id)
        if held is None:
            held = self._adopt(batch.partition, batch.log_id, batch.base_offset)
            if held.stored != batch.base_offset:
                return  # the group was moved: these records come again, or are stored already
        if batch.base_offset < held.taken:
            log.info(
                "records were given out again",
                extra={"partition": batch.partition, "offset": batch.base_offset, "expected": held.taken},
            )
            if self._sink.keeps_positions:
                self._resync(commits)
                return
            # What of them is under way already overwrites itself.
        rejected = self._pending.add(batch, held.taken)
        held.taken = batch.end.offset
        if rejected:
            self._reject(batch, rejected)

    def _adopt_free(self) -> None:
        """Moves the group to the store's position wherever no consumer is at work.

        Without it, a new store or a restored one would wait for records that the group has acked.
        """
        self._broker.create_group(self.topic, self.group, "ordered")
        if not self._sink.keeps_positions:
            return
        for partition in self._broker.describe_group(self.topic, self.group).partitions:
            if not partition.holder:
                self._adopt(partition.partition, partition.log_id, partition.acked_end_offset)

    def _adopt(self, partition: int, log_id: bytes, group_offset: int) -> Held:
        """Starts on a partition, at the store's position, where the group is moved if it is elsewhere.

        A store that keeps positions and knows nothing of the log gets all that the log still has.
        """
        if not self._sink.keeps_positions:
            held = self.status.held[log_id] = Held(partition, group_offset, group_offset)
            return held
        position = self._sink.positions([log_id]).get(log_id)
        if position is None:
            # Of several brokers a partition may have several logs.
            states = self._broker.describe_topic(self.topic).partitions
            starts = [state.start_offset for state in states if state.log_id == log_id]
            position = min([group_offset, *starts])
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

    def _resync(self, commits: Commits) -> None:
        """Drops what is not committed and takes it again, from the store's position."""
        try:
            commits.settle(leave=0)
        except StorePositionError as error:
            log.info("the store stands elsewhere: %s", error)
        self._pending = self._new_pending()
        held, self.status.held = self.status.held, {}
        stored = self._sink.positions(list(held))
        for log_id, at in held.items():
            position = stored.get(log_id, at.stored)
            self._seek(at.partition, log_id, position)
            self.status.held[log_id] = Held(at.partition, position, position)

    def _commit(self, commits: Commits) -> None:
        """Begins to commit what is pending, once there is room for it."""
        if not self._settle(commits) or not self._pending.records:
            return
        pending, self._pending = self._pending, self._new_pending()
        commits.submit(pending)

    def _commit_all(self, commits: Commits) -> None:
        """Commits what is pending, and waits for the end of that and of all before it."""
        self._commit(commits)
        self._settle(commits, leave=0)

    def _settle(self, commits: Commits, leave: int | None = None) -> bool:
        """As that of `Commits`; False when one found the store elsewhere, and all was taken back."""
        try:
            commits.settle(leave=leave)
        except StorePositionError as error:
            log.warning("the store stands elsewhere than expected, going on from there: %s", error)
            self._resync(commits)
            return False
        return True

    # In the threads of the commits, one at a time but for _store

    def _store(self, pending: Pending, patience: Patience) -> Stored:
        def reject(batch: Batch, reasons: dict[int, str]) -> None:
            new = pending.note_rejected(pending.spans[batch.log_id], reasons)
            if new:
                self._reject(batch, new)

        try:
            return self._sink.store(pending, patience, reject)
        except StorePositionError:
            raise  # the store is well; another collector was here
        except BrokerError as error:
            self._note_health(str(error))
            raise

    def _reject(self, batch: Batch, rejected: list[tuple[int, str]]) -> None:
        with self._lock:
            self.status.records_rejected += len(rejected)
        self._dead_letters.put(batch, rejected)

    def _ack(self, consumer: Consumer, pending: Pending, stored: Stored) -> None:
        for log_id, span in pending.spans.items():
            held = self.status.held.get(log_id)
            if held is not None:
                held.stored = span.next
        try:
            consumer.ack(span.batches[-1] for span in pending.spans.values())
        except StaleLeaseError as error:
            # Stored all the same: whoever holds the partition now goes on from the store's position, or overwrites.
            log.info("stored records had been given out again: %s", error)
        self._count(pending, stored.rows, stored.samples)

    def _note_health(self, error: str) -> None:
        self.status.last_error = error
        metrics.STORE_HEALTH.labels(self._service).set(0 if error else 1)

    def _count(self, pending: Pending, rows: int, samples: int) -> None:
        status = self.status
        status.records_stored += pending.records - pending.rejected
        status.rows_stored += rows
        status.samples_stored += samples
        status.commits += 1
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

    def _new_pending(self) -> Pending:
        return Pending(self._sink.new_builder())
