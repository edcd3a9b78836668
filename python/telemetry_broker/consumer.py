"""Consumers: leased batches of a group, waited for without polling."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterable, Iterator
from functools import partial
from types import TracebackType
from typing import Self

from telemetry_broker import _core, calls
from telemetry_broker.admin import GroupPartition
from telemetry_broker.ahead import Ahead
from telemetry_broker.batch import Batch, Records
from telemetry_broker.errors import ClosedError, UnavailableError
from telemetry_broker.extending import Extender
from telemetry_broker.inflow import Taken
from telemetry_broker.leases import Lease, Leases
from telemetry_broker.positions import Position
from telemetry_broker.receiving import Demand, Outage, check_wait
from telemetry_broker.steps import run
from telemetry_broker.transport import Transport, forked_error

_log = logging.getLogger(__name__)


class Consumer:
    """Gets records for one group of a topic. Made by ``Broker.consumer``; thread-safe; refused after a fork.

    Iterating waits for records until the consumer is closed or nothing came for ``idle_timeout`` seconds. Leaving the
    ``with`` block (or ``close``) gives back at once what is neither acked nor nacked.

    A batch from iterating is yours for as long as you work on it: while you have it un-acked, a thread extends its
    lease, for up to ``max_lease_extension``. To give a batch up, nack it, or let go of it and it comes again when its
    visibility timeout ends. Nothing is kept for a thread or a process that has ended.

    Attributes:
        topic: what is read.
        group: for whom.
        name: identifies this consumer to an ordered group, where it can hold partitions.
    """

    def __init__(self, transport: Transport, demand: Demand) -> None:
        self._demand = demand
        self.topic = demand.topic
        self.group = demand.group
        self.name = demand.name
        self._transport = transport
        self._max_records = demand.max_records
        self._leases = Leases(transport, demand.topic, demand.group, ordered=demand.mode == "ordered")
        self._extender = Extender(self._leases, self.name)
        self._receiver = transport.receiver(demand.topic)
        self._closed = threading.Event()
        self._ahead: Ahead | None = None
        # An ordered group rewinds at a nack, and what was taken ahead of it would then come out of order.
        if transport.prefetches and demand.mode == "shared":
            self._ahead = Ahead(transport, self._leases, demand)
            self._leases.call = self._ahead.call
        self._pid = os.getpid()

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._closed.is_set()

    def receive(self, max_records: int | None = None, wait: float | None = 0.0) -> Batch:
        """Leases records: one batch, of one partition.

        Args:
            max_records: 1 to 65,536; None: as the consumer was made.
            wait: seconds to wait for a first record; 0: not at all; None: until there is one.

        Returns:
            A batch; an empty one (``not batch``) when nothing came in time or the consumer was closed meanwhile.

        Raises:
            ClosedError: the consumer was closed before.
            NotFoundError: there is no such topic or partition.
            ConflictError: the group has another mode.
            UnavailableError: the broker cannot be reached: at once with ``wait=0``, else when it stays away for
                ``wait``, at most ``reconnect_timeout``.
        """
        if self._closed.is_set():
            raise self._demand.closed_error()
        check_wait(wait)
        batch = self._receive(self._demand.records(max_records), wait)
        self._extender.keep(batch, self._demand.keep_received)
        return batch

    def ack(self, batches: Iterable[Batch]) -> int:
        """Acks several batches of this consumer at once: one call, and one write per partition. See ``Batch.ack``."""
        return self._leases.ack([batch.part() for batch in batches])

    def seek(self, to: Position, partitions: Iterable[int] | None = None) -> tuple[GroupPartition, ...]:
        """Moves the group, forwards or back, and goes on from there; see ``Broker.seek``. Makes the group if need be.

        It is the whole group that moves: other consumers' leases end too. A batch that was received before is not to
        be acked any more.

        Args:
            to: ``START``, ``END``, an offset, an ``Offset``, or ``at_time(...)``.
            partitions: only these; None: those of this consumer.
        """
        wanted = self._demand.partitions if partitions is None else partitions
        steps = calls.seek_consumer(self.topic, self.group, self._demand.mode, to, wanted)
        moved = run(steps, self._transport.call)
        self._leases.end(state.partition for state in moved)
        return moved

    def peek(self, max_records: int = 10) -> list[Records]:
        """Looks at the oldest records that the group has not acked, leased or not, without leasing them.

        Makes no group and counts no attempt. Records that were acked out of their order may be among them.

        Args:
            max_records: how many, of all partitions of this consumer together, 1 to 65,536.

        Returns:
            Ranges of records, in the order of the partitions; none when all is acked.
        """
        steps = calls.peek(
            self.topic, self.group, self._demand.partitions, self._demand.records(max_records), self._demand.max_bytes
        )
        return run(steps, self._transport.call)

    def close(self, *, give_back: bool = True) -> None:
        """Ends every wait and, unless told not to, gives back what is open; repeating it is fine.

        When the broker cannot be reached, that is logged, and the leases end with their visibility timeouts.
        """
        if self._closed.is_set() or os.getpid() != self._pid:
            return
        self._closed.set()
        self._extender.close()
        self._receiver.close()
        if self._ahead is not None:
            self._ahead.stop()
        try:
            if give_back:
                self._leases.give_back()
        except (UnavailableError, ClosedError) as error:
            _log.warning("%r could not give back its leases, they end with their visibility timeouts: %s", self, error)
        finally:
            if self._ahead is not None:
                self._ahead.end(keep_leases=not give_back)

    def __iter__(self) -> Iterator[Batch]:
        ahead = None if self._ahead is None else self._ahead.iterate(self._demand.idle_timeout)
        # Not a generator: its frame would hold on to a batch that the program has let go of.
        return iter(partial(self._next, ahead), None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Consumer {self.name!r} of {self.topic!r} for {self.group!r} at {self._transport.url}>"

    def _next(self, ahead: Iterator[Taken | None] | None) -> Batch | None:
        """The next batch of an iteration, None at its end."""
        while not self._closed.is_set():
            wait = self._demand.idle_timeout
            if ahead is not None:
                self._refuse_fork()
                taken = next(ahead)
                if taken is not None:
                    return self._keep(Batch(*taken, self._leases))
                if self._closed.is_set():
                    break
                wait = 0.0  # one definite look: the time may have been over before the stream had begun
            batch = self._receive(self._max_records, wait)
            if batch:
                return self._keep(batch)
            if self._demand.idle_timeout is not None:
                break
        return None

    def _keep(self, batch: Batch) -> Batch:
        self._extender.keep(batch, self._demand.keep_iterated)
        return batch

    def _refuse_fork(self) -> None:
        if os.getpid() != self._pid:
            raise forked_error(f"this consumer of {self.topic}")

    def _receive(self, max_records: int, wait: float | None) -> Batch:
        self._refuse_fork()
        taken = self._ahead.take(max_records) if self._ahead is not None else None
        if taken is None:
            deliveries = self._fetch(max_records, wait)
            if deliveries:
                taken = deliveries[0], self._leases.add(deliveries[0])
        return Batch(*(taken or (self._demand.empty, Lease(self._demand.empty))), self._leases)

    def _fetch(self, max_records: int, wait: float | None) -> list[_core.Delivery]:
        """Runs one Receive, and sits out a broker that is away as long as the wait allows."""
        request = self._demand.encode(max_records)
        end = None if wait is None else time.monotonic() + wait
        outage = Outage(end, self._demand.reconnect_timeout)
        while True:
            left = None if end is None else max(0.0, end - time.monotonic())
            try:
                return self._receiver.receive(request, left)
            except UnavailableError as error:
                pause = outage.pause(error)
            if self._closed.wait(pause):
                return []
