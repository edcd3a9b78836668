"""Topics and groups as the library shows them: plain values, made from the wire's messages.

Durations are seconds, times nanoseconds since the epoch, sizes bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeVar, get_args

from telemetry_broker.errors import InvalidArgumentError, UnsupportedError
from telemetry_broker.positions import milliseconds, unsigned
from telemetry_broker.v1 import broker_pb2 as pb

Durability = Literal["memory", "os", "fsync"]
"""What a stored record survives: ``memory`` its consumer only, ``os`` the broker's death, ``fsync`` a power cut."""

FullPolicy = Literal["reject", "drop_oldest"]
"""What a partition does at ``max_partition_bytes``: refuse records, or drop its oldest segment."""

Mode = Literal["shared", "ordered"]
"""How a group delivers: to any consumer in any order, or in order to the one that holds the partition."""

MODES: Final[dict[Mode, pb.GroupMode]] = {"shared": pb.GROUP_MODE_SHARED, "ordered": pb.GROUP_MODE_ORDERED}
_DURABILITIES: Final[dict[Durability, pb.Durability]] = {
    "memory": pb.DURABILITY_MEMORY,
    "os": pb.DURABILITY_OS,
    "fsync": pb.DURABILITY_FSYNC,
}
_FULL_POLICIES: Final[dict[FullPolicy, pb.FullPolicy]] = {
    "reject": pb.FULL_POLICY_REJECT,
    "drop_oldest": pb.FULL_POLICY_DROP_OLDEST,
}
NameT = TypeVar("NameT", bound=str)
_YEARS: Final = 100 * 366 * 86_400.0  # no retention is longer; keeps milliseconds far from the field's bound


@dataclass(frozen=True, slots=True)
class TopicConfig:
    """Configuration of a topic."""

    partitions: int
    durability: Durability
    retention: float
    """Seconds after which records that every group acked are deleted; 0: no bound by age."""
    retention_bytes: int
    """Size of a partition above which records that every group acked are deleted; 0: no bound by size."""
    max_partition_bytes: int | None
    """Hard bound of a partition, acked or not; None: none."""
    full_policy: FullPolicy
    segment_bytes: int
    """Size at which a segment is closed and the next one begun."""
    max_attempts: int
    """Deliveries of a record in a shared group before it is dead-lettered; 0: never."""
    visibility_timeout: float
    """Seconds of a lease that asks for none."""


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic's name and configuration."""

    name: str
    config: TopicConfig
    config_version: int
    """Raised by one with each change."""


@dataclass(frozen=True, slots=True)
class PartitionState:
    """One partition of a topic."""

    partition: int
    log_id: bytes
    start_offset: int
    """Offset of the oldest record kept; the same as ``end_offset`` when there is none."""
    end_offset: int
    """Offset that the next record gets."""
    synced_end_offset: int
    """Behind the last record known to be on disk."""
    bytes: int
    last_append_time_ns: int
    """0: none since the broker started."""
    poisoned: str
    """Why a failed write or sync stopped the partition; empty: it works."""
    recovered_cut_bytes: int
    """Bytes that recovery cut from a torn tail when the broker started."""
    dropped_records: int
    """Records deleted, acked or not, because the topic drops the oldest, since the broker started."""
    forgotten_producers: int
    """Named producers forgotten before their 7 days since the broker started: a partition knows 100,000 at most."""
    broker: str = ""
    """Of several brokers, the one whose log this is."""


@dataclass(frozen=True, slots=True)
class TopicState:
    """A topic and its partitions, in the order of their numbers.

    Of several brokers each one that holds records of a partition, or held some, has an entry for it; the one that takes
    its records now comes first. How many partitions there are is ``topic.config.partitions``.
    """

    topic: Topic
    partitions: tuple[PartitionState, ...]
    missing_brokers: tuple[str, ...] = ()
    """Of several brokers, those that are away; what they hold is not in here."""


@dataclass(frozen=True, slots=True)
class Group:
    """A consumer group and how it delivers."""

    name: str
    mode: Mode


@dataclass(frozen=True, slots=True)
class GroupPartition:
    """A group in one partition."""

    partition: int
    log_id: bytes
    acked_end_offset: int
    """Everything below is acked."""
    next_offset: int
    """Everything from here on was never given out."""
    lag: int
    """Records not acked yet, leased or not."""
    in_flight: int
    """Records leased now."""
    leases: int
    holder: str
    """The consumer that holds the partition in an ordered group; empty: none."""
    redelivered: int
    """Records given out again since the broker started."""
    journal_bad_bytes: int
    """Bytes of the group's acks that could not be read when the broker started; those records are given out again."""
    broker: str = ""
    """Of several brokers, the one whose log this is."""


@dataclass(frozen=True, slots=True)
class GroupState:
    """A group, partition by partition; of several brokers as in ``TopicState``."""

    group: Group
    partitions: tuple[GroupPartition, ...]
    missing_brokers: tuple[str, ...] = ()
    """Of several brokers, those that are away; what they hold is not in here."""

    @property
    def lag(self) -> int:
        """Records not acked yet in all partitions."""
        return sum(partition.lag for partition in self.partitions)


@dataclass(frozen=True, slots=True)
class Member:
    """One of several brokers."""

    name: str
    address: str
    """``host:port``."""
    healthy: bool
    draining: bool
    """It takes no new records."""
    broker_id: bytes
    """8 bytes; empty: not known yet."""
    version: str
    error: str
    """Why it is away."""


@dataclass(frozen=True, slots=True)
class BrokerState:
    """The broker itself, or several as one: then with the sizes of the smallest."""

    broker_id: bytes
    """8 bytes, made with its folder."""
    version: str
    started_ns: int
    data_dir: str
    """Empty in memory."""
    free_bytes: int
    """Free where its data is."""
    min_free_bytes: int
    """Producing stops below so many."""
    draining: bool
    """It takes no new records."""
    partitions: int
    """Of all topics."""
    name: str = ""
    """What it is called among others; empty: it has no name."""
    members: tuple[Member, ...] = ()
    """The brokers, where they are several; what one was told of them is names and addresses alone."""

    @property
    def is_many(self) -> bool:
        """Whether several brokers answered as one."""
        return bool(self.members) and not self.broker_id


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record that a group gave up, as it stands in the dead-letter topic."""

    partition: int
    """Of the dead-letter topic and of the topic it came from: they are the same."""
    offset: int
    """In the dead-letter topic."""
    reason: str
    """What the consumer said, or ``max attempts``."""
    attempts: int
    """How often it had been given out."""
    group: str
    """Who gave it up."""
    origin_log_id: bytes
    """16 bytes that name the log it came from."""
    origin_offset: int
    """Its offset there."""
    time_ns: int
    """When it was given up."""
    value: bytes
    key: bytes | None
    headers: dict[str, bytes]
    timestamp_ns: int
    """The producer's own time; 0: none."""
    broker: str = ""
    """Of several brokers, the one that holds it."""


@dataclass(frozen=True, slots=True)
class DeadLetters:
    """Dead letters of a topic that were not redriven, oldest first in each partition, and where to go on.

    Iterating gives the letters.
    """

    letters: tuple[DeadLetter, ...]
    total: int
    """How many the topic has, whichever were asked for."""
    next: tuple[int, int, str] | None
    """Partition, offset and (of several) broker to go on from, the next call's ``start``; None: these were the last."""

    def __iter__(self) -> Iterator[DeadLetter]:
        return iter(self.letters)

    def __len__(self) -> int:
        return len(self.letters)


def encode_config(
    *,
    partitions: int | None,
    durability: Durability | None,
    retention: float | None,
    retention_bytes: int | None,
    max_partition_bytes: int | None,
    full_policy: FullPolicy | None,
    segment_bytes: int | None,
    max_attempts: int | None,
    visibility_timeout: float | None,
) -> pb.TopicConfig:
    """A configuration for the wire, where None stays unset. The broker checks the bounds."""
    if durability is not None and durability not in _DURABILITIES:
        raise InvalidArgumentError(f"durability={durability!r}: give one of {', '.join(get_args(Durability))}")
    if full_policy is not None and full_policy not in _FULL_POLICIES:
        raise InvalidArgumentError(f"full_policy={full_policy!r}: give one of {', '.join(get_args(FullPolicy))}")
    config = pb.TopicConfig()
    if durability is not None:
        config.durability = _DURABILITIES[durability]
    if full_policy is not None:
        config.full_policy = _FULL_POLICIES[full_policy]
    if partitions is not None:
        config.partitions = unsigned("partitions", partitions, bits=32)
    if retention is not None:
        config.retention_ms = milliseconds("retention", retention, most=_YEARS)
    if retention_bytes is not None:
        config.retention_bytes = unsigned("retention_bytes", retention_bytes)
    if max_partition_bytes is not None:
        config.max_partition_bytes = unsigned("max_partition_bytes", max_partition_bytes)
    if segment_bytes is not None:
        config.segment_bytes = unsigned("segment_bytes", segment_bytes)
    if max_attempts is not None:
        config.max_attempts = unsigned("max_attempts", max_attempts, bits=32)
    if visibility_timeout is not None:
        config.visibility_timeout_ms = milliseconds("visibility_timeout", visibility_timeout, least=0.001)
    return config


def _name_of(number: int, names: Mapping[NameT, int], what: str) -> NameT:
    for name, value in names.items():
        if value == number:
            return name
    raise UnsupportedError(
        f"the broker answered with {what} {number}, which this client does not know: install a newer telemetry-broker"
    )


def decode_topic(topic: pb.Topic) -> Topic:
    """The topic of a response."""
    config = topic.config
    return Topic(
        topic.name,
        TopicConfig(
            partitions=config.partitions,
            durability=_name_of(config.durability, _DURABILITIES, "durability"),
            retention=config.retention_ms / 1000,
            retention_bytes=config.retention_bytes,
            max_partition_bytes=config.max_partition_bytes if config.HasField("max_partition_bytes") else None,
            full_policy=_name_of(config.full_policy, _FULL_POLICIES, "full policy"),
            segment_bytes=config.segment_bytes,
            max_attempts=config.max_attempts,
            visibility_timeout=config.visibility_timeout_ms / 1000,
        ),
        topic.config_version,
    )


def decode_partition(state: pb.PartitionState) -> PartitionState:
    """The state of a partition in a response."""
    return PartitionState(
        partition=state.partition,
        log_id=state.log_id,
        start_offset=state.start_offset,
        end_offset=state.end_offset,
        synced_end_offset=state.synced_end_offset,
        bytes=state.bytes,
        last_append_time_ns=state.last_append_time_ns,
        poisoned=state.poisoned,
        recovered_cut_bytes=state.recovered_cut_bytes,
        dropped_records=state.dropped_records,
        forgotten_producers=state.forgotten_producers,
        broker=state.broker,
    )


def decode_group(group: pb.Group) -> Group:
    """The group of a response."""
    return Group(group.name, _name_of(group.mode, MODES, "group mode"))


def decode_group_partition(state: pb.GroupPartitionState) -> GroupPartition:
    """The state of a group in one partition, in a response."""
    return GroupPartition(
        partition=state.partition,
        log_id=state.log_id,
        acked_end_offset=state.acked_end_offset,
        next_offset=state.next_offset,
        lag=state.lag,
        in_flight=state.in_flight,
        leases=state.leases,
        holder=state.holder,
        redelivered=state.redelivered,
        journal_bad_bytes=state.journal_bad_bytes,
        broker=state.broker,
    )


def decode_broker(state: pb.DescribeBrokerResponse) -> BrokerState:
    """The broker of a response."""
    return BrokerState(
        broker_id=state.broker_id,
        version=state.version,
        started_ns=state.started_ns,
        data_dir=state.data_dir,
        free_bytes=state.free_bytes,
        min_free_bytes=state.min_free_bytes,
        draining=state.draining,
        partitions=state.partitions,
        name=state.name,
        members=tuple(
            Member(each.name, each.address, each.healthy, each.draining, each.broker_id, each.version, each.error)
            for each in state.members
        ),
    )


def decode_dead_letters(answer: pb.ListDeadLettersResponse) -> DeadLetters:
    """The dead letters of a response."""
    letters = [
        DeadLetter(
            partition=delivery.partition,
            offset=offset,
            reason=record.dead_letter.reason,
            attempts=record.dead_letter.attempts,
            group=record.dead_letter.group,
            origin_log_id=record.dead_letter.log_id,
            origin_offset=record.dead_letter.offset,
            time_ns=record.dead_letter.time_ns,
            value=record.value,
            key=record.key if record.HasField("key") else None,
            headers={header.name: header.value for header in record.headers},
            timestamp_ns=record.timestamp_ns,
            broker=delivery.broker,
        )
        for delivery in answer.deliveries
        for offset, record in enumerate(delivery.records, delivery.base_offset)
    ]
    following = None
    if answer.HasField("next_partition"):
        following = answer.next_partition, answer.next_offset, answer.next_broker
    return DeadLetters(tuple(letters), answer.total, following)
