"""The broker as the page's Pipeline view shows it: topics, groups, dead letters; and what an administrator may do."""

import asyncio
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final, Literal

from telemetry_broker import END, START, Broker, Offset, at_time
from telemetry_broker.admin import DeadLetter, GroupState, TopicState
from telemetry_broker.errors import BrokerError, NotFoundError
from telemetry_services.api.problems import ApiError
from telemetry_services.api.times import format_time

MAX_TOPICS: Final = 50
MAX_GROUPS: Final = 50
MAX_LETTERS: Final = 100
MAX_SHOWN_BYTES: Final = 4096
"""Of a dead letter's value."""
DEAD_LETTER_SUFFIX: Final = ".dlq"

Edge = Literal["start", "end"]


class Pipeline:
    """Looks at a broker, and moves what is in it. Blocks; the methods for callers on an event loop do not.

    Args:
        broker: gives the connection, and opens it if it must.
        pause: pauses the collector of this process, or lets it go on; None: there is none here.
    """

    def __init__(self, broker: Callable[[], Broker], pause: Callable[[bool], None] | None = None) -> None:
        self._broker = broker
        self._pause = pause

    async def overview(self) -> dict[str, Any]:
        """Everything that the view shows, of one moment."""
        return await asyncio.to_thread(self._overview)

    def _overview(self) -> dict[str, Any]:
        now_ns = time.time_ns()
        try:
            broker = self._broker()
            state = broker.describe()
            names = [topic.name for topic in broker.topics()]
            topics = [self._topic(broker, name, now_ns) for name in names[:MAX_TOPICS]]
        except BrokerError as error:
            return {
                "time": format_time(now_ns),
                "brokers": [{"healthy": False, "message": str(error)}],
                "topics": [],
                "topics_left_out": 0,
                "can_pause": self._pause is not None,
            }
        return {
            "time": format_time(now_ns),
            "brokers": [
                {
                    "healthy": True,
                    "message": "draining" if state.draining else "",
                    "broker_id": state.broker_id.hex(),
                    "version": state.version,
                    "started": format_time(state.started_ns),
                    "free_bytes": state.free_bytes,
                    "min_free_bytes": state.min_free_bytes,
                    "partitions": state.partitions,
                }
            ],
            "topics": [topic for topic in topics if topic is not None],
            "topics_left_out": max(0, len(names) - MAX_TOPICS),
            "can_pause": self._pause is not None,
        }

    def _topic(self, broker: Broker, name: str, now_ns: int) -> dict[str, Any] | None:
        try:
            state = broker.describe_topic(name)
            groups = [broker.describe_group(name, group.name) for group in broker.groups(name)[:MAX_GROUPS]]
            is_dead_letters = name.endswith(DEAD_LETTER_SUFFIX)
            letters = 0 if is_dead_letters else broker.dead_letters(name, max_records=1).total
        except NotFoundError:  # deleted meanwhile
            return None
        return {
            "name": name,
            "durability": state.topic.config.durability,
            "partitions": [
                {
                    "partition": partition.partition,
                    "start_offset": partition.start_offset,
                    "end_offset": partition.end_offset,
                    "bytes": partition.bytes,
                    "last_append": format_time(partition.last_append_time_ns)
                    if partition.last_append_time_ns
                    else None,
                    "poisoned": partition.poisoned,
                    "dropped_records": partition.dropped_records,
                }
                for partition in state.partitions
            ],
            "end_offset": sum(partition.end_offset for partition in state.partitions),
            "bytes": sum(partition.bytes for partition in state.partitions),
            "dead_letters": letters,
            "groups": [self._group(broker, state, group, now_ns) for group in groups],
        }

    def _group(self, broker: Broker, topic: TopicState, group: GroupState, now_ns: int) -> dict[str, Any]:
        oldest = [
            age
            for partition in group.partitions
            if partition.lag
            for age in [self._oldest_unacked_seconds(broker, topic.topic.name, partition, now_ns)]
            if age is not None
        ]
        return {
            "name": group.group.name,
            "mode": group.group.mode,
            "lag": group.lag,
            "acked": sum(partition.acked_end_offset for partition in group.partitions),
            "in_flight": sum(partition.in_flight for partition in group.partitions),
            "redelivered": sum(partition.redelivered for partition in group.partitions),
            "oldest_unacked_seconds": max(oldest, default=None),
            "holders": sorted({partition.holder for partition in group.partitions if partition.holder}),
        }

    @staticmethod
    def _oldest_unacked_seconds(broker: Broker, topic: str, partition: Any, now_ns: int) -> float | None:
        """The age of the first record that is not acked; None: it is gone meanwhile."""
        try:
            start = Offset(partition.log_id, partition.acked_end_offset)
            page = broker.read(topic, partition.partition, start, max_records=1)
        except BrokerError:
            return None
        return max(0.0, (now_ns - page.ranges[0].append_times_ns[0]) / 1e9) if page else None

    async def dead_letters(self, topic: str, start: tuple[int, int] | None, limit: int) -> dict[str, Any]:
        """Dead letters of a topic, oldest first in each partition."""
        found = await asyncio.to_thread(
            lambda: self._broker().dead_letters(topic, start=start, max_records=min(limit, MAX_LETTERS))
        )
        after = None if found.next is None else f"{found.next[0]}.{found.next[1]}"
        return {"topic": topic, "total": found.total, "next": after, "letters": [_letter(one) for one in found]}

    async def redrive(self, topic: str, partition: int | None, offsets: list[int] | None) -> int:
        """Puts dead letters back and gives how many."""
        return await asyncio.to_thread(lambda: self._broker().redrive(topic, partition=partition, offsets=offsets))

    async def seek(self, topic: str, group: str, to: Edge | int) -> None:
        """Moves a group to an edge, or to a time in nanoseconds since the epoch."""
        position = START if to == "start" else END if to == "end" else at_time(int(to) / 1e9)
        await asyncio.to_thread(lambda: self._broker().seek(topic, group, position))

    def pause(self, paused: bool) -> None:
        """Pauses the collector or lets it go on."""
        if self._pause is None:
            raise ApiError(
                HTTPStatus.NOT_IMPLEMENTED,
                "unsupported",
                "the collector is another process: its gRPC method CollectorService/Pause pauses it",
            )
        self._pause(paused)


def _letter(letter: DeadLetter) -> dict[str, Any]:
    shown = letter.value[:MAX_SHOWN_BYTES]
    return {
        "partition": letter.partition,
        "offset": letter.offset,
        "reason": letter.reason,
        "attempts": letter.attempts,
        "group": letter.group,
        "origin_offset": letter.origin_offset,
        "time": format_time(letter.time_ns),
        "value": shown.decode(errors="replace"),
        "bytes": len(letter.value),
        "key": None if letter.key is None else letter.key.decode(errors="replace"),
    }
