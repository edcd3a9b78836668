"""Producers: records in, batches out, each stored once although it may be sent several times."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Self

from telemetry_broker import _core
from telemetry_broker.outbox import Appended
from telemetry_broker.producing import (
    ProducerSettings,
    add_many,
    append_requests,
    bad_numbers,
    check_keys,
    make_buffer,
    open_producer,
)
from telemetry_broker.sender import Sender
from telemetry_broker.steps import run
from telemetry_broker.transport import Transport

if TYPE_CHECKING:
    from typing_extensions import Buffer


class Producer:
    """Sends records to one topic. Made by ``Broker.producer``; thread-safe; refused after a fork.

    ``send`` puts a record into a buffer and returns. A batch leaves when it is full, when its first record has waited
    for ``linger`` seconds, or at ``flush``. Errors that a retry can mend are retried with growing pauses until
    ``delivery_timeout``; the broker knows a batch by the producer's name and the batch's sequence, so that a retry
    stores nothing twice. Within a partition, records are stored in the order in which they were sent.

    A batch that could not be stored is counted in ``failed_records``, and its error is given to ``on_error`` or,
    without one, raised once by the next ``send``, ``flush`` or ``close``.

    Attributes:
        topic: where the records go.
        name: the name that the broker knows it by, given or made up.
    """

    def __init__(self, transport: Transport, settings: ProducerSettings) -> None:
        self.topic = settings.topic
        self.name = settings.name
        self._url = transport.url
        self._max_block = settings.max_block
        self._sequences = run(open_producer(settings), transport.call)
        self._buffer = make_buffer(settings, self._sequences)
        self._sender = Sender(
            transport,
            settings.topic,
            settings.name,
            self._buffer,
            linger=settings.linger,
            delivery_timeout=settings.delivery_timeout,
            on_error=settings.on_error,
            is_named=settings.is_named,
        )
        self._outbox = self._sender.outbox
        make_way = partial(self._sender.make_way, settings.max_block)
        # What `send` below does; found first, so that a record passes through no frame of Python.
        self.send = _core.BufferedSend(  # type: ignore[method-assign]
            self._buffer, make_way, self._sender.added, bad_numbers, self._sender.eager
        ).send

    @property
    def sequences(self) -> dict[int, int]:
        """The highest sequence that each partition had stored from this name when the producer was made; 0: none."""
        return dict(self._sequences)

    @property
    def stored_records(self) -> int:
        """Records that are stored with the topic's durability."""
        return self._outbox.stored_records

    @property
    def failed_records(self) -> int:
        """Records that were sent and not stored, or of which nobody knows whether they are."""
        return self._outbox.failed_records

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._outbox.closed or self._outbox.forked

    def send(
        self,
        value: Buffer,
        key: Buffer | None = None,
        *,
        partition: int | None = None,
        timestamp_ns: int = 0,
        headers: Mapping[str, bytes] | None = None,
    ) -> None:
        """Puts one record into the buffer.

        Args:
            value: the payload, any bytes; with key and headers at most 1 MiB.
            key: records of one key go to one partition, in order.
            partition: the partition itself; it wins over the key. Without both, batches go round the partitions.
            timestamp_ns: the producer's own time, nanoseconds since the epoch; 0: none.
            headers: at most 64 names (1 to 255 bytes of UTF-8) with any bytes.

        Raises:
            InvalidArgumentError: the record is over a bound; it was not added.
            TimedOutError: the buffer stayed full for ``max_block`` seconds; the record was not added.
            BrokerError: an earlier batch could not be stored (see the class); this record was not added.
        """
        self.send(value, key, partition=partition, timestamp_ns=timestamp_ns, headers=headers)

    def send_many(
        self,
        values: Sequence[Buffer],
        keys: Sequence[Buffer | None] | None = None,
        *,
        headers: Mapping[str, bytes] | None = None,
    ) -> None:
        """Puts records into the buffer: as ``send`` for each, but faster.

        Args:
            values: the payloads.
            keys: as many keys, or None for no key at all.
            headers: of each record, as for ``send``.

        Raises:
            BrokerError: as ``send``; the records before the refused one were added.
        """
        check_keys(values, keys)
        start = 0
        while start < len(values):
            if self._outbox.halted:
                self._sender.make_way(self._max_block)
            try:
                start, full = add_many(self._buffer, values, keys, headers, start)
            finally:
                self._sender.linger_on()
            if full >= 0:
                self._sender.dispatch(full, stall=True)

    def flush(self, timeout: float | None = None) -> None:
        """Sends what is buffered and returns when all that was sent before is stored with the topic's durability.

        Args:
            timeout: seconds; None: until each batch is stored or has failed, ``delivery_timeout`` at most.

        Raises:
            TimedOutError: not all of it is stored yet; it is still on its way, and flush can be called again.
            BrokerError: a batch could not be stored (see the class).
        """
        self._sender.flush(timeout)
        self._sender.raise_error()

    def append(self, records: Buffer, *, partition: int, sequence: int) -> Appended:
        """Stores one encoded batch under a sequence of the caller's; returns when it is stored.

        For sources that know their position, such as a file. A producer either appends or sends: after an ``append``
        it refuses ``send``.

        Args:
            records: ``Record`` entries one after the other, each with its tag (0x7A) and length, the bytes of a
                RecordBatch: 0 to 65,536 of them, 8 MiB; none only moves the sequence.
            partition: where to.
            sequence: at least 1, rising within the partition, gaps allowed; one not above the highest that is stored
                comes back as a duplicate.

        Raises:
            InvalidArgumentError: malformed or over a bound.
            ProduceUnknownError: sent and not answered within ``delivery_timeout``. Repeating it is safe.
            BrokerError: it was not stored.
        """
        return self.append_many([(partition, records)], sequence)[0]

    def append_many(self, batches: Iterable[tuple[int, Buffer]], sequence: int) -> list[Appended]:
        """Stores one encoded batch a partition, side by side and under one sequence; see ``append``.

        Args:
            batches: partitions, each at most once, and their records.
            sequence: as for ``append``.

        Returns:
            One entry a batch, in their order, when all are stored.

        Raises:
            BrokerError: as ``append``, once all are settled. The others may be stored; repeating the call is safe.
        """
        return self._sender.append(append_requests(self.topic, self.name, batches, sequence))

    def close(self, *, flush: bool = True) -> None:
        """Flushes, unless told not to, and ends the producer; repeating it is fine.

        Raises:
            BrokerError: as ``flush``. The producer is closed all the same.
        """
        if self.closed:
            return
        try:
            if flush:
                self.flush()
        finally:
            self._sender.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Flushes after an exception too: what was sent before it was meant to be sent."""
        self.close()

    def __repr__(self) -> str:
        return f"<Producer {self.name!r} of {self.topic!r} at {self._url}>"
