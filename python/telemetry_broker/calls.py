"""Topics, groups and reading: the calls of both faces that are one request and one answer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from telemetry_broker import _core
from telemetry_broker.admin import (
    MODES,
    BrokerState,
    DeadLetters,
    Group,
    GroupPartition,
    GroupState,
    Mode,
    Topic,
    TopicState,
    decode_broker,
    decode_dead_letters,
    decode_group,
    decode_group_partition,
    decode_partition,
    decode_topic,
)
from telemetry_broker.batch import Page, Records
from telemetry_broker.errors import InvalidArgumentError
from telemetry_broker.positions import Edge, Offset, Position, ascending_ranges, encode_position, milliseconds, unsigned
from telemetry_broker.steps import Steps
from telemetry_broker.v1 import broker_pb2 as pb

MAX_READ_WAIT: Final = 20.0
"""Longest wait of a read, in seconds: below the time after which a call to a broker elsewhere is given up."""


def create_topic(name: str, config: pb.TopicConfig) -> Steps[Topic]:
    """See Broker, here and below."""
    answer = yield "CreateTopic", pb.CreateTopicRequest(name=name, config=config)
    return decode_topic(pb.CreateTopicResponse.FromString(answer).topic)


def topics() -> Steps[list[Topic]]:
    """All topics, page by page."""
    found: list[pb.Topic] = []
    more = True
    while more:
        request = pb.ListTopicsRequest(after=found[-1].name if found else "")
        answer = pb.ListTopicsResponse.FromString((yield "ListTopics", request))
        found += answer.topics
        more = answer.more
    return [decode_topic(topic) for topic in found]


def describe_topic(name: str) -> Steps[TopicState]:
    """One topic."""
    answer = pb.DescribeTopicResponse.FromString((yield "DescribeTopic", pb.DescribeTopicRequest(name=name)))
    partitions = tuple(map(decode_partition, answer.partitions))
    return TopicState(decode_topic(answer.topic), partitions, tuple(answer.missing_brokers))


def configure_topic(name: str, config: pb.TopicConfig, if_version: int | None) -> Steps[Topic]:
    """Changes one."""
    answer = yield "ConfigureTopic", pb.ConfigureTopicRequest(name=name, config=config, if_version=if_version)
    return decode_topic(pb.ConfigureTopicResponse.FromString(answer).topic)


def delete_topic(name: str) -> Steps[None]:
    """Deletes one."""
    yield "DeleteTopic", pb.DeleteTopicRequest(name=name)


def purge_topic(name: str, partitions: Iterable[int]) -> Steps[int]:
    """Deletes its records."""
    answer = yield "PurgeTopic", pb.PurgeTopicRequest(name=name, partitions=_numbers(partitions))
    return pb.PurgeTopicResponse.FromString(answer).records


def create_group(topic: str, group: str, mode: Mode, start: Position) -> Steps[Group]:
    """Makes a group."""
    if mode not in MODES:
        raise InvalidArgumentError(f"mode={mode!r}: give 'shared' or 'ordered'")
    request = pb.CreateGroupRequest(topic=topic, group=group, mode=MODES[mode])
    getattr(request, "from").CopyFrom(encode_position(start))
    return decode_group(pb.CreateGroupResponse.FromString((yield "CreateGroup", request)).group)


def groups(topic: str) -> Steps[list[Group]]:
    """The groups of a topic."""
    answer = yield "ListGroups", pb.ListGroupsRequest(topic=topic)
    return [decode_group(group) for group in pb.ListGroupsResponse.FromString(answer).groups]


def describe_group(topic: str, group: str) -> Steps[GroupState]:
    """One group."""
    request = pb.DescribeGroupRequest(topic=topic, group=group)
    answer = pb.DescribeGroupResponse.FromString((yield "DescribeGroup", request))
    partitions = tuple(map(decode_group_partition, answer.partitions))
    return GroupState(decode_group(answer.group), partitions, tuple(answer.missing_brokers))


def seek(topic: str, group: str, to: Position, partitions: Iterable[int]) -> Steps[tuple[GroupPartition, ...]]:
    """Moves a group."""
    request = pb.SeekGroupRequest(topic=topic, group=group, partitions=_numbers(partitions), to=encode_position(to))
    answer = pb.SeekGroupResponse.FromString((yield "SeekGroup", request))
    return tuple(map(decode_group_partition, answer.partitions))


def seek_consumer(
    topic: str, group: str, mode: Mode, to: Position, partitions: Iterable[int]
) -> Steps[tuple[GroupPartition, ...]]:
    """Moves a group that may not have been made yet: a consumer's first receive makes it."""
    yield from create_group(topic, group, mode, Edge.START)
    return (yield from seek(topic, group, to, partitions))


def peek(topic: str, group: str, partitions: Iterable[int], max_records: int, max_bytes: int) -> Steps[list[Records]]:
    """The oldest records that a group has not acked, in the order of the partitions."""
    # Of several brokers a partition may have several logs.
    positions: list[tuple[int, Position]] = []
    if any(known.name == group for known in (yield from groups(topic))):
        described = (yield from describe_group(topic, group)).partitions
        positions += [(held.partition, Offset(held.log_id, held.acked_end_offset)) for held in described if held.lag]
    else:
        states = (yield from describe_topic(topic)).partitions
        positions += [(state.partition, Offset(state.log_id, state.start_offset)) for state in states]
    chosen = frozenset(partitions)
    found: list[Records] = []
    for partition, start in positions:
        left = max_records - sum(map(len, found))
        if (not chosen or partition in chosen) and left > 0:
            found += (yield from read(topic, partition, start, left, max_bytes)).ranges
    return found


def delete_group(topic: str, group: str) -> Steps[None]:
    """Deletes a group."""
    yield "DeleteGroup", pb.DeleteGroupRequest(topic=topic, group=group)


def read(
    topic: str, partition: int, start: Position, max_records: int, max_bytes: int, wait: float = 0.0
) -> Steps[Page]:
    """Records without a lease."""
    wait_ms = milliseconds("read's wait", wait, most=MAX_READ_WAIT)
    request = pb.ReadRequest(
        topic=topic,
        partition=unsigned("the partition", partition, bits=32),
        max_records=unsigned("max_records", max_records, bits=32),
        max_bytes=unsigned("max_bytes", max_bytes, bits=32),
    )
    getattr(request, "from").CopyFrom(encode_position(start))
    page = _page((yield "Read", request))
    if not page and wait_ms:
        # From the very place on where there was nothing: by now, END may be behind a record that came meanwhile.
        getattr(request, "from").CopyFrom(encode_position(page.next))
        request.wait_ms = wait_ms
        page = _page((yield "Read", request))
    return page


def _page(answer: bytes) -> Page:
    ranges = tuple(map(Records, _core.Delivery.parse(answer)))
    if ranges:
        return Page(ranges, ranges[-1].end)
    end = pb.ReadResponse.FromString(answer)
    return Page((), Offset(end.log_id, end.next_offset))


def dead_letters(
    topic: str,
    partition: int | None,
    group: str | None,
    start: tuple[int, int] | tuple[int, int, str] | None,
    max_records: int,
) -> Steps[DeadLetters]:
    """Dead letters of a topic."""
    from_partition, from_offset, *brokers = (None, 0) if start is None else start
    request = pb.ListDeadLettersRequest(
        topic=topic,
        partition=None if partition is None else unsigned("the partition", partition, bits=32),
        group=group or "",
        from_partition=None if from_partition is None else unsigned("start's partition", from_partition, bits=32),
        from_offset=unsigned("start's offset", from_offset),
        from_broker="".join(brokers),
        max_records=unsigned("max_records", max_records, bits=32),
    )
    return decode_dead_letters(pb.ListDeadLettersResponse.FromString((yield "ListDeadLetters", request)))


def redrive(
    topic: str, partition: int | None, group: str | None, offsets: Iterable[int] | None, broker: str
) -> Steps[int]:
    """Puts dead letters back."""
    ranges = ascending_ranges(offsets or ())
    if offsets is not None and not ranges:
        return 0  # no range at all means every letter on the wire
    request = pb.RedriveDeadLettersRequest(
        topic=topic,
        partition=None if partition is None else unsigned("the partition", partition, bits=32),
        group=group or "",
        ranges=[
            pb.OffsetRange(start=unsigned("an offset", each.start), end=unsigned("an offset", each.stop))
            for each in ranges
        ],
        broker=broker,
    )
    return pb.RedriveDeadLettersResponse.FromString((yield "RedriveDeadLetters", request)).redriven


def describe() -> Steps[BrokerState]:
    """The broker."""
    answer = yield "DescribeBroker", pb.DescribeBrokerRequest()
    return decode_broker(pb.DescribeBrokerResponse.FromString(answer))


def drain(broker: str, *, undo: bool) -> Steps[None]:
    """Takes no new records, or some again."""
    yield "DrainBroker", pb.DrainBrokerRequest(draining=not undo, broker=broker)


def _numbers(partitions: Iterable[int]) -> list[int]:
    return [unsigned("a partition", partition, bits=32) for partition in partitions]
