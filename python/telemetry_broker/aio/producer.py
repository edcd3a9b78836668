"""Asynchronous producers: records in, batches out, each stored once although it may be sent several times."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from telemetry_broker.aio.home import Home
from telemetry_broker.aio.sender import Sender
from telemetry_broker.aio.transport import Transport, run
from telemetry_broker.outbox import Appended, Outbox
from telemetry_broker.producing import (
    ProducerSettings,
    add_many,
    append_requests,
    bad_numbers,
    check_keys,
    make_buffer,
    open_producer,
)

if TYPE_CHECKING:
    from typing_extensions import Buffer


class Producer:
    """Sends records to one topic. Made by ``Broker.producer``; used on the event loop where it was made.

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

    def __init__(self, transport: Transport, settings: ProducerSettings, sequences: dict[int, int]) -> None:
        """``sequences``: see the property."""
        self.topic = settings.topic
        self.name = settings.name
        self._url = transport.url
        self._max_block = settings.max_block
        self._sequences = sequences
        self._home = Home(f"this producer of {settings.topic}")
        self._check = self._home.check
        self._buffer = make_buffer(settings, sequences)
        self._add = self._buffer.send
        self._outbox = Outbox(
            settings.topic,
            settings.name,
            self._buffer,
            delivery_timeout=settings.delivery_timeout,
            on_error=settings.on_error,
            is_named=settings.is_named,
        )
        self._sender = Sender(transport, self._outbox, self._buffer, settings.linger)

    @classmethod
    async def open(cls, transport: Transport, settings: ProducerSettings) -> Producer:
        """Asks the broker how far it has this producer's batches, and makes the producer."""
        return cls(transport, settings, await run(open_producer(settings), transport))

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
        return self._outbox.closed

    async def send(
        self,
        value: Buffer,
        key: Buffer | None = None,
        *,
        partition: int | None = None,
        timestamp_ns: int = 0,
        headers: Mapping[str, bytes] | None = None,
    ) -> None:
        """Puts one record into the buffer; waits only while the broker does not keep up.

        A cancelled one has not added its record. Most sends wait for nothing: other tasks get a turn once a batch.

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
        self._check()
        if self._outbox.halted:
            await self._sender.make_way(self._max_block)
        try:
            full = self._add(value, key, partition, timestamp_ns, headers)
        except OverflowError as error:
            raise bad_numbers(partition, timestamp_ns) from error
        if full >= 0:
            self._sender.dispatch(full, stall=True)
        elif full == -2 or not self._sender.watched:
            self._sender.linger_on()

    async def send_many(
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
        self._check()
        check_keys(values, keys)
        start = 0
        while start < len(values):
            if self._outbox.halted:
                await self._sender.make_way(self._max_block)
            try:
                start, full = add_many(self._buffer, values, keys, headers, start)
            finally:
                if not self._sender.watched:
                    self._sender.linger_on()
            if full >= 0:
                self._sender.dispatch(full, stall=True)

    async def flush(self, timeout: float | None = None) -> None:  # noqa: ASYNC109
        """Sends what is buffered and returns when all that was sent before is stored with the topic's durability.

        When it is cancelled, the records stay on their way.

        Args:
            timeout: seconds; None: until each batch is stored or has failed, ``delivery_timeout`` at most.

        Raises:
            TimedOutError: not all of it is stored yet; it is still on its way, and flush can be called again.
            BrokerError: a batch could not be stored (see the class).
        """
        self._check()
        await self._sender.flush(timeout)
        self._outbox.raise_error()

    async def append(self, records: Buffer, *, partition: int, sequence: int) -> Appended:
        """Stores one encoded batch under a sequence of the caller's; returns when it is stored.

        For sources that know their position, such as a file. A producer either appends or sends: after an ``append``
        it refuses ``send``. When it is cancelled, the batch may be stored or not; repeating it is safe.

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
        return (await self.append_many([(partition, records)], sequence))[0]

    async def append_many(self, batches: Iterable[tuple[int, Buffer]], sequence: int) -> list[Appended]:
        """Stores one encoded batch a partition, side by side and under one sequence; see ``append``.

        Args:
            batches: partitions, each at most once, and their records.
            sequence: as for ``append``.

        Returns:
            One entry a batch, in their order, when all are stored.

        Raises:
            BrokerError: as ``append``, once all are settled. The others may be stored; repeating the call is safe.
        """
        self._check()
        return await self._sender.append(append_requests(self.topic, self.name, batches, sequence))

    async def close(self, *, flush: bool = True) -> None:
        """Flushes, unless told not to, and ends the producer; repeating it is fine.

        When it is cancelled while it flushes, what is not stored by then is given up and counted.

        Raises:
            BrokerError: as ``flush``. The producer is closed all the same.
        """
        if self._outbox.closed or self._home.forked:
            return
        self._check()
        try:
            if flush:
                await self.flush()
        finally:
            await self._sender.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Flushes after an exception too: what was sent before it was meant to be sent."""
        await self.close()

    def __repr__(self) -> str:
        return f"<Producer {self.name!r} of {self.topic!r} at {self._url}>"
