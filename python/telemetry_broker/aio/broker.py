"""The broker as an asynchronous program sees it: topics, groups, producers, consumers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Self

from telemetry_broker import calls
from telemetry_broker.admin import (
    BrokerState,
    DeadLetters,
    Durability,
    FullPolicy,
    Group,
    GroupPartition,
    GroupState,
    Mode,
    Topic,
    TopicState,
    encode_config,
)
from telemetry_broker.aio.consumer import Consumer
from telemetry_broker.aio.home import Home
from telemetry_broker.aio.opening import Opening
from telemetry_broker.aio.producer import Producer
from telemetry_broker.aio.transport import Transport, run
from telemetry_broker.batch import Page
from telemetry_broker.errors import BrokerError
from telemetry_broker.positions import START, Position
from telemetry_broker.producing import ProducerSettings, new_name
from telemetry_broker.receiving import Demand
from telemetry_broker.steps import Steps, T


class Broker:
    """A broker, in this process or far away; made by ``telemetry_broker.aio.connect``, used on that event loop.

    Closing it, or leaving its ``async with`` block, closes its producers (which flush) and consumers (which give back).
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._producers: list[Producer] = []
        self._consumers: list[Consumer] = []
        self._home = Home(f"the connection to {transport.url}")

    @property
    def url(self) -> str:
        """What ``connect`` was given."""
        return self._transport.url

    # Topics

    async def create_topic(
        self,
        name: str,
        partitions: int | None = None,
        *,
        durability: Durability | None = None,
        retention: float | None = None,
        retention_bytes: int | None = None,
        max_partition_bytes: int | None = None,
        full_policy: FullPolicy | None = None,
        segment_bytes: int | None = None,
        max_attempts: int | None = None,
        visibility_timeout: float | None = None,
    ) -> Topic:
        """Makes a topic, or returns the one there is when it has this configuration.

        Args:
            name: 1 to 200 characters of A-Z a-z 0-9 . _ -, the first one a letter or digit.
            partitions: 1 to 4,096; default the broker's (4). Can only grow, and growing moves keys.
            durability: what a stored record survives: ``memory`` (nothing but its consumer), ``os`` (the broker's
                death) or ``fsync`` (a power cut); default the broker's (``os``).
            retention: seconds after which records that every group acked are deleted; default 24 h; 0: no such bound.
            retention_bytes: size of a partition above which they are deleted; default 1 GiB; 0: no such bound.
            max_partition_bytes: hard bound of a partition, acked or not, at least two segments; default none; 0: none.
            full_policy: what happens there: ``reject`` (default) or ``drop_oldest``, which is counted.
            segment_bytes: size of a log file, 1 MiB to 1 GiB; default 64 MiB.
            max_attempts: deliveries of a record in a shared group before it goes to the dead-letter topic, up to
                1,000; default 20; 0: never.
            visibility_timeout: seconds of a lease whose consumer names none, up to 12 h; default the broker's (30).

        Raises:
            ConflictError: there is one with another configuration (``topic.exists``).
            InvalidArgumentError: a bad name or value.
        """
        config = encode_config(
            partitions=partitions,
            durability=durability,
            retention=retention,
            retention_bytes=retention_bytes,
            max_partition_bytes=max_partition_bytes,
            full_policy=full_policy,
            segment_bytes=segment_bytes,
            max_attempts=max_attempts,
            visibility_timeout=visibility_timeout,
        )
        return await self._run(calls.create_topic(name, config))

    async def topics(self) -> list[Topic]:
        """All topics, in the order of their names."""
        return await self._run(calls.topics())

    async def describe_topic(self, name: str) -> TopicState:
        """Configuration and partitions of a topic; raises NotFoundError when there is none."""
        return await self._run(calls.describe_topic(name))

    async def configure_topic(
        self,
        name: str,
        *,
        if_version: int | None = None,
        partitions: int | None = None,
        durability: Durability | None = None,
        retention: float | None = None,
        retention_bytes: int | None = None,
        max_partition_bytes: int | None = None,
        full_policy: FullPolicy | None = None,
        segment_bytes: int | None = None,
        max_attempts: int | None = None,
        visibility_timeout: float | None = None,
    ) -> Topic:
        """Changes what is given of a topic's configuration.

        Args:
            name: the topic.
            if_version: refuse (``topic.version``) unless the configuration has this version.
            partitions: as for ``create_topic``, like all that follow; None leaves a value as it is.
            durability: see there.
            retention: see there.
            retention_bytes: see there.
            max_partition_bytes: see there.
            full_policy: see there.
            segment_bytes: see there.
            max_attempts: see there.
            visibility_timeout: see there.
        """
        config = encode_config(
            partitions=partitions,
            durability=durability,
            retention=retention,
            retention_bytes=retention_bytes,
            max_partition_bytes=max_partition_bytes,
            full_policy=full_policy,
            segment_bytes=segment_bytes,
            max_attempts=max_attempts,
            visibility_timeout=visibility_timeout,
        )
        return await self._run(calls.configure_topic(name, config, if_version))

    async def delete_topic(self, name: str) -> None:
        """Deletes a topic with its records and groups, for good."""
        await self._run(calls.delete_topic(name))

    async def purge_topic(self, name: str, partitions: Iterable[int] = ()) -> int:
        """Deletes the records of a topic (or of these partitions) and returns how many; its offsets go on."""
        return await self._run(calls.purge_topic(name, partitions))

    # Groups

    async def create_group(self, topic: str, group: str, mode: Mode = "shared", start: Position = START) -> Group:
        """Makes a consumer group; one of the same mode is left as it is. A first consumer makes its group too.

        Args:
            topic: the topic; it must exist.
            group: a name as a topic's.
            mode: ``shared``: any consumer gets any record, records that fail too often go to the dead-letter topic.
                ``ordered``: one consumer at a time holds a partition and gets its records in order.
            start: where a new group begins in each partition.

        Raises:
            ConflictError: there is one of another mode (``group.exists``).
            NotFoundError: no such topic, or a position of another log.
        """
        return await self._run(calls.create_group(topic, group, mode, start))

    async def groups(self, topic: str) -> list[Group]:
        """The groups of a topic, in the order of their names."""
        return await self._run(calls.groups(topic))

    async def describe_group(self, topic: str, group: str) -> GroupState:
        """Where a group is in each partition; raises NotFoundError when there is none."""
        return await self._run(calls.describe_group(topic, group))

    async def seek(
        self, topic: str, group: str, to: Position, partitions: Iterable[int] = ()
    ) -> tuple[GroupPartition, ...]:
        """Moves a group, forwards or back. Its leases there end; acks of them are refused as stale.

        Args:
            topic: the topic.
            group: the group; it must exist.
            to: where it goes on. An offset below the oldest record kept is moved there.
            partitions: only these; empty: all.

        Returns:
            The partitions that were moved, as they are now.

        Raises:
            NotFoundError: no such topic, group or partition, or a position of another log.
            InvalidArgumentError: an offset behind the end (``position.out_of_range``); nothing was moved.
        """
        return await self._run(calls.seek(topic, group, to, partitions))

    async def delete_group(self, topic: str, group: str) -> None:
        """Deletes a group and what it had acked."""
        await self._run(calls.delete_group(topic, group))

    # Records

    def producer(
        self,
        topic: str,
        *,
        name: str | None = None,
        linger: float = 0.005,
        batch_bytes: int = 1024 * 1024,
        max_block: float = 60.0,
        delivery_timeout: float = 120.0,
        on_error: Callable[[BrokerError], None] | None = None,
    ) -> Opening[Producer]:
        """Makes a producer for a topic, which must exist: by ``async with broker.producer(...)`` or ``await``.

        Args:
            topic: where the records go.
            name: 1 to 255 bytes; the same name is the same producer, in whatever process, and must not be used by two
                at a time. With a name, ``Producer.append`` is safe against duplicates across restarts. Default: a
                random one, good against duplicates of this producer's own retries.
            linger: seconds that a record waits for company; 0: none.
            batch_bytes: size at which a batch leaves at once, 1 to 8 MiB; less with many partitions, so that 64 MiB
                bound all that waits.
            max_block: seconds that ``send`` waits for room when the broker does not keep up.
            delivery_timeout: seconds from a batch's departure until it is given up.
            on_error: called, on the event loop, with the error of each batch that could not be stored; default: the
                next ``send``, ``flush`` or ``close`` raises it.
        """
        settings = ProducerSettings(
            topic,
            new_name() if name is None else name,
            name is not None,
            linger=linger,
            batch_bytes=batch_bytes,
            max_block=max_block,
            delivery_timeout=delivery_timeout,
            on_error=on_error,
        )

        async def open_producer() -> Producer:
            producer = await Producer.open(self._transport, settings)
            self._producers = [other for other in self._producers if not other.closed] + [producer]
            return producer

        return Opening(open_producer)

    def consumer(
        self,
        topic: str,
        group: str,
        *,
        mode: Mode = "shared",
        visibility_timeout: float | None = None,
        partitions: Iterable[int] | None = None,
        max_records: int = 500,
        max_bytes: int = 1024 * 1024,
        idle_timeout: float | None = None,
        reconnect_timeout: float = 120.0,
        max_lease_extension: float | None = None,
        name: str | None = None,
    ) -> Consumer:
        """Makes a consumer for a group of a topic; the topic must exist by its first receive. Nothing to await here.

        Args:
            topic: what to read.
            group: for whom; made by the first receive if there is none, at the oldest record.
            mode: of the group, ``shared`` or ``ordered``; see ``create_group``.
            visibility_timeout: seconds of a lease, 1 ms to 12 h; default the topic's.
            partitions: only these; default all.
            max_records: most records of a batch, 1 to 65,536.
            max_bytes: most bytes of a batch, 1 to 8 MiB; a larger record comes alone.
            idle_timeout: seconds without a record after which iterating ends; None: never.
            reconnect_timeout: seconds that a wait sits out a broker that cannot be reached.
            max_lease_extension: seconds, up to 12 h, for which a batch's lease is extended by itself while you have the
                batch and have not acked or nacked all of it; then it ends with its visibility timeout. 0: never.
                Default: 600 for batches from iterating, 0 for those from ``receive``.
            name: identifies the consumer to an ordered group, unique, 1 to 255 bytes; default a random one.

        From a remote broker, the consumer of a shared group receives ahead while its records are handled fast.
        """
        demand = Demand(
            topic,
            group,
            mode=mode,
            visibility_timeout=visibility_timeout,
            partitions=partitions,
            max_records=max_records,
            max_bytes=max_bytes,
            idle_timeout=idle_timeout,
            reconnect_timeout=reconnect_timeout,
            max_lease_extension=max_lease_extension,
            name=name,
        )
        consumer = Consumer(self._transport, demand)
        self._consumers = [other for other in self._consumers if not other.closed] + [consumer]
        return consumer

    async def read(
        self,
        topic: str,
        partition: int,
        start: Position = START,
        max_records: int = 500,
        max_bytes: int = 1024 * 1024,
        wait: float = 0.0,
    ) -> Page:
        """Reads records without a group and without leasing them: for replay and for looking around.

        Args:
            topic: the topic.
            partition: the partition.
            start: where to begin; an offset below the oldest record kept begins there.
            max_records: 1 to 65,536.
            max_bytes: 1 to 8 MiB; one record is given even when it is larger.
            wait: at most so many seconds for a first record, up to 20; 0: do not wait.

        Returns:
            A page; ``page.next`` is where to read on, an empty page is the end.

        Raises:
            NotFoundError: no such topic or partition, or a position of another log.
            InvalidArgumentError: an offset behind the end (``position.out_of_range``).
            CorruptError: stored bytes are damaged there.
        """
        return await self._run(calls.read(topic, partition, start, max_records, max_bytes, wait))

    # Dead letters

    async def dead_letters(
        self,
        topic: str,
        *,
        partition: int | None = None,
        group: str | None = None,
        start: tuple[int, int] | tuple[int, int, str] | None = None,
        max_records: int = 100,
    ) -> DeadLetters:
        """Looks at what the groups of a topic gave up, with the reason; nothing is leased.

        Args:
            topic: the topic, not its dead-letter topic.
            partition: only this one; None: all.
            group: only what this group gave up; None: all.
            start: partition and offset to begin at, the ``next`` of the call before; None: at the oldest.
            max_records: 1 to 10,000; fewer come where they are more than 1 MiB.

        Raises:
            NotFoundError: no such topic.
        """
        return await self._run(calls.dead_letters(topic, partition, group, start, max_records))

    async def redrive(
        self,
        topic: str,
        *,
        partition: int | None = None,
        group: str | None = None,
        offsets: Iterable[int] | None = None,
        broker: str = "",
    ) -> int:
        """Puts dead letters back to the end of their topic's partition, where every group gets them again.

        Args:
            topic: the topic, not its dead-letter topic.
            partition: only this one's; None: all.
            group: only what this group gave up; None: all.
            offsets: only these of the dead-letter topic, which need their partition; None: all.
            broker: of several brokers, only what this one holds, which ``offsets`` need; empty: all.

        Returns:
            How many were put back; each is put back once, whoever calls at the same time.

        Raises:
            NotFoundError: no such topic.
            InvalidArgumentError: offsets without a partition.
            FullError, UnavailableError: the broker takes no records now; what was not put back is kept.
        """
        return await self._run(calls.redrive(topic, partition, group, offsets, broker))

    # The broker itself

    async def describe(self) -> BrokerState:
        """Identity, version, limits and disk of the broker."""
        return await self._run(calls.describe())

    async def drain(self, broker: str = "", *, undo: bool = False) -> None:
        """Lets the broker take no new records; what it has can still be consumed and acked.

        Args:
            broker: behind a proxy, which one, by the name that ``describe`` gives; empty: the one connected to.
            undo: take records again.

        Raises:
            NotFoundError: the proxy has no broker of that name.
        """
        await self._run(calls.drain(broker, undo=undo))

    async def close(self, *, flush: bool = True) -> None:
        """Closes the producers and consumers made here and lets go of the broker; repeating it is fine.

        Args:
            flush: False abandons what is buffered and leased, and leaves an embedded broker's folder as kill -9 would:
                for tests of recovery.

        Raises:
            BrokerError: a producer could not store its last records; everything is closed all the same.
        """
        if self._home.forked:
            return  # the parent's to close
        self._home.check()
        errors: list[BrokerError] = []
        try:
            for producer in self._producers:
                try:
                    await producer.close(flush=flush)
                except BrokerError as error:
                    errors.append(error)
            for consumer in self._consumers:
                await consumer.close(give_back=flush)
        finally:
            await self._transport.close(flush=flush)
        if errors:
            raise errors[0]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<Broker at {self.url}>"

    async def _run(self, steps: Steps[T]) -> T:
        return await run(steps, self._transport)
