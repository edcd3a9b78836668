"""One /consume stream: events while the client has fewer than 100 of them not acked; a comment line in silence.

Each event is a lease of its own. Its visibility timeout begins when it is sent, and anew when the client acks an event
that was sent before it: a client that handles one after the other gets to it only then. Without that, a client slower
than 100 events in a visibility timeout would be sent the same ones again and again, all its acks coming too late.
"""

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncGenerator, Collection, Iterable
from dataclasses import dataclass
from typing import Final

from telemetry_broker import _core
from telemetry_broker.errors import BrokerError
from telemetry_broker.v1 import broker_pb2 as pb
from telemetry_services.broker.compat.events import HEARTBEAT, MAX_LINE_BYTES, EventId, encode, longest_line
from telemetry_services.broker.compat.upstream import Feed, Upstream, refuse_when_stopped

log = logging.getLogger(__name__)

HEARTBEAT_SECONDS: Final = 15.0
MAX_UNACKED: Final = 100
SECONDS_AFTER_END: Final = 5.0
_AT_ONCE: Final = 16  # events in memory of a stream whose client does not read
_RENEWALS: Final = 10  # at most, in a visibility timeout
_CHECK_SECONDS: Final = 0.1  # until a stream that may send no more first asks what was acked elsewhere


@dataclass(slots=True)
class _Sent:
    """An event that is not acked."""

    number: int
    deadline: float


class EventStream:
    """Events of a topic for one client of a group. All on one event loop.

    Args:
        holders: who sent a lease's event; shared by all streams, so that an ack finds its stream.
        partition: None for all, those that come to be later included.
        caller: whose stream it is; it ends when the caller's token is withdrawn, at the next event or heartbeat.
    """

    def __init__(
        self,
        upstream: Upstream,
        holders: "dict[bytes, EventStream]",
        topic: str,
        group: str,
        partition: int | None,
        heartbeat_seconds: float = HEARTBEAT_SECONDS,
        *,
        caller: _core.Caller | None = None,
    ) -> None:
        self._upstream = upstream
        self._holders = holders
        self._topic = topic
        self._group = group
        self._heartbeat_seconds = heartbeat_seconds
        self._caller = caller
        self._receive = pb.ReceiveRequest(
            topic=topic,
            group=group,
            consumer=f"http-{uuid.uuid4().hex}",
            partitions=[] if partition is None else [partition],
            max_records=1,
            # The acks of an ordered group are cumulative: those of these clients are of single events.
            mode=pb.GROUP_MODE_SHARED,
        )
        self._unacked: dict[bytes, _Sent] = {}  # in the order of sending
        self._sent = 0
        self._acked_up_to = 0
        self._renewed = 0.0
        self._timeout = 0.0
        self._taken: list[_core.Delivery] = []
        self._feed: Feed | None = None
        self._extending = asyncio.Lock()  # one after the other: the last word on a deadline is the latest
        self._checked = 0.0
        self._check_seconds = _CHECK_SECONDS
        self._left = False

    async def open(self) -> None:
        """Takes the first records.

        Raises:
            BrokerError: there is no such topic or partition, or the group cannot be read this way.
        """
        refuse_when_stopped(self._upstream)
        self._receive.max_deliveries = _AT_ONCE
        answer = await self._upstream.call("Receive", self._receive.SerializeToString(), self._topic)
        self._hold(_core.Delivery.parse(answer))

    async def chunks(self) -> AsyncGenerator[bytes]:
        """What to send, until `leave` or the end of the broker."""
        with self._upstream.feed(self._topic) as feed:
            self._feed = feed
            told = time.monotonic()
            try:
                while not self._left and not self._upstream.stopped and self._is_welcome():
                    silent_until = told + self._heartbeat_seconds
                    if not self._taken:
                        await self._take(feed, silent_until)
                    if chunk := await self._encode():
                        yield chunk
                        told = time.monotonic()
                    elif time.monotonic() >= silent_until:
                        yield HEARTBEAT
                        told = time.monotonic()
            finally:
                self._hold(feed.close())

    def _is_welcome(self) -> bool:
        return self._caller is None or self._caller.is_current

    def leave(self) -> None:
        """The client has gone: sends nothing more."""
        self._left = True
        self._look_again()

    async def settled(self, lease_id: bytes) -> None:
        """The event of this lease was acked, or is somebody else's by now: there is room for another one."""
        await self._settle([lease_id])
        self._look_again()

    async def end(self) -> None:
        """Leaves what is not acked to others, in 5 s at the latest: acks on their way still count."""
        now = time.monotonic()
        later = [lease for lease, sent in self._unacked.items() if sent.deadline > now + SECONDS_AFTER_END]
        self._forget(list(self._unacked))
        await self._extend(later, SECONDS_AFTER_END)

    def _look_again(self) -> None:
        if self._feed is not None:
            self._feed.wake()

    async def _take(self, feed: Feed, until: float) -> None:
        """Leases records while the client may have more."""
        now = time.monotonic()
        self._forget([lease for lease, sent in self._unacked.items() if sent.deadline <= now])
        if self._upstream.has_other_doors and self._unacked:
            until = min(until, await self._check_acks(now))
            if self._left or self._upstream.stopped:
                return
        # From here on nothing is awaited before the feed listens: what changes ends its wait.
        room = min(MAX_UNACKED - len(self._unacked), _AT_ONCE)
        if room <= 0:
            until = min(until, *(sent.deadline for sent in self._unacked.values()))
        self._receive.max_deliveries = max(room, 0)
        self._hold(await feed.take(self._receive if room > 0 else None, until))

    def _hold(self, deliveries: list[_core.Delivery]) -> None:
        now = time.monotonic()  # after the call, so that a deadline here is not before the broker's
        for delivery in deliveries:
            self._sent += 1
            self._timeout = delivery.visibility_timeout_ms / 1000
            self._unacked[delivery.lease_id] = _Sent(self._sent, now + self._timeout)
            self._holders[delivery.lease_id] = self
        self._taken += deliveries

    def _forget(self, leases: Iterable[bytes]) -> None:
        """These events are not this stream's to wait for any more."""
        for lease in leases:
            if self._unacked.pop(lease, None) is not None:
                del self._holders[lease]

    async def _encode(self) -> bytes:
        taken, self._taken = self._taken, []
        events: list[bytes] = []
        for delivery in taken:
            event_id = EventId(delivery.partition, delivery.base_offset, delivery.lease_id)
            event = encode(event_id, self._topic, delivery.values[0], delivery.append_times_ns[0])
            length = longest_line(event)
            if length > MAX_LINE_BYTES:
                await self._set_aside(event_id, length)
            else:
                events.append(event)
        return b"".join(events)

    async def _set_aside(self, event_id: EventId, length: int) -> None:
        """Sends a record to the dead-letter topic that would break the client, each time it came."""
        place = f"{self._topic}/{event_id.partition} offset {event_id.offset}"
        reason = f"as an event over HTTP a line of {length:,} bytes, at most {MAX_LINE_BYTES:,} can be read; use gRPC"
        request = pb.NackRequest(
            topic=self._topic,
            group=self._group,
            leases=[pb.LeaseRange(lease_id=event_id.lease_id)],
            dead_letter=True,
            reason=reason,
        )
        try:
            await self._upstream.call("Nack", request.SerializeToString(), self._topic)
        except BrokerError as error:  # it stays leased, and is tried again after that
            log.warning("%s is too large for an event, and cannot be dead-lettered: %s", place, error)
            return
        log.warning("%s went to the dead-letter topic: %s", place, reason, extra={"group": self._group})
        self._forget([event_id.lease_id])

    async def _settle(self, leases: Collection[bytes]) -> None:
        """The client is done with these events; what was sent after them gets its visibility timeout anew."""
        self._acked_up_to = max(
            [self._acked_up_to, *(self._unacked[lease].number for lease in leases if lease in self._unacked)]
        )
        self._forget(leases)
        now = time.monotonic()
        if now - self._renewed < self._timeout / _RENEWALS:
            return
        self._renewed = now
        async with self._extending:
            waiting = [lease for lease, sent in self._unacked.items() if sent.number > self._acked_up_to]
            for lease in waiting:
                self._unacked[lease].deadline = time.monotonic() + self._timeout
            self._forget(await self._extend(waiting, self._timeout))  # a seek ends leases, too

    async def _check_acks(self, now: float) -> float:
        """Asks which events were acked where this stream does not hear of it; returns when to ask again.

        What is asked is to let a lease end when it ends anyway: the answer tells those that have ended. Often only
        while the client may be sent no more, else as often as leases are renewed.
        """
        seldom = self._timeout / _RENEWALS
        pause = min(self._check_seconds, seldom) if len(self._unacked) >= MAX_UNACKED else seldom
        if now < self._checked + pause:
            return self._checked + pause
        self._checked = now
        by_deadline: dict[float, list[bytes]] = {}
        ended: set[bytes] = set()
        async with self._extending:
            for lease, sent in self._unacked.items():
                by_deadline.setdefault(sent.deadline, []).append(lease)
            for deadline, leases in by_deadline.items():
                ended |= await self._extend(leases, deadline - time.monotonic())
        self._check_seconds = _CHECK_SECONDS if ended else 2 * self._check_seconds
        if ended:
            await self._settle(ended)
        return now + pause

    async def _extend(self, leases: Iterable[bytes], seconds: float) -> set[bytes]:
        """Lets leases end so many seconds from now; returns those that have ended."""
        request = pb.ExtendRequest(
            topic=self._topic,
            group=self._group,
            leases=[pb.LeaseRange(lease_id=lease) for lease in leases],
            visibility_timeout_ms=max(1, round(seconds * 1000)),
        )
        if not request.leases:
            return set()
        try:
            answer = pb.ExtendResponse.FromString(
                await self._upstream.call("Extend", request.SerializeToString(), self._topic)
            )
        except BrokerError as error:  # the topic or group was deleted, or the broker closed
            log.debug("leases of a stream were not extended: %s", error)
            return set()
        return {entry.lease_id for entry in answer.stale}
