"""One /consume stream: events while the client has fewer than 100 of them not acked; a comment line in silence.

Each event is a lease of its own. Its visibility timeout begins when it is sent, and anew when the client acks an event
that was sent before it: a client that handles one after the other gets to it only then. Without that, a client slower
than 100 events in a visibility timeout would be sent the same ones again and again, all its acks coming too late.
"""

import asyncio
import logging
import math
import time
import uuid
from collections.abc import AsyncGenerator, Iterable
from dataclasses import dataclass
from typing import Final

from telemetry_broker import _core
from telemetry_broker.aio.core_calls import CoreCalls
from telemetry_broker.aio.waiting import Waiters
from telemetry_broker.errors import BrokerError
from telemetry_broker.v1 import broker_pb2 as pb
from telemetry_services.broker.compat.events import HEARTBEAT, MAX_LINE_BYTES, EventId, encode, longest_line

log = logging.getLogger(__name__)

HEARTBEAT_SECONDS: Final = 15.0
MAX_UNACKED: Final = 100
SECONDS_AFTER_END: Final = 5.0
_AT_ONCE: Final = 16  # events in memory of a stream whose client does not read
_RENEWALS: Final = 10  # at most, in a visibility timeout


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
        core: _core.Broker,
        calls: CoreCalls,
        waiters: Waiters,
        holders: "dict[bytes, EventStream]",
        topic: str,
        group: str,
        partition: int | None,
        heartbeat_seconds: float = HEARTBEAT_SECONDS,
        *,
        caller: _core.Caller | None = None,
    ) -> None:
        self._core = core
        self._calls = calls
        self._waiters = waiters
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
        self._due = 0.0
        self._changed = asyncio.Event()
        self._left = False

    def open(self) -> None:
        """Takes the first records.

        Raises:
            BrokerError: there is no such topic or partition, or the group cannot be read this way.
        """
        self._waiters.refuse_when_closed()
        self._take()

    async def chunks(self) -> AsyncGenerator[bytes]:
        """What to send, until `leave` or the end of the broker."""
        with self._waiters.waiting(self._topic) as changed:
            self._changed = changed
            told = time.monotonic()
            while not self._left and not self._waiters.closed and self._is_welcome():
                changed.clear()
                self._take()
                if self._taken:
                    chunk = await self._encode()
                    if chunk:
                        yield chunk
                        told = time.monotonic()
                    continue
                silent_until = told + self._heartbeat_seconds
                await self._waiters.wait(changed, min(silent_until, self._due) - time.monotonic())
                if time.monotonic() >= silent_until:
                    yield HEARTBEAT
                    told = time.monotonic()

    def _is_welcome(self) -> bool:
        return self._caller is None or self._caller.is_current

    def leave(self) -> None:
        """The client has gone: sends nothing more."""
        self._left = True
        self._changed.set()

    def settled(self, lease_id: bytes) -> None:
        """The event of this lease was acked, or is somebody else's by now: there is room for another one."""
        event = self._unacked.pop(lease_id)
        del self._holders[lease_id]
        self._acked_up_to = max(self._acked_up_to, event.number)
        now = time.monotonic()
        if now - self._renewed >= self._timeout / _RENEWALS:
            self._renewed = now
            self._renew(now)
        self._changed.set()

    def end(self) -> None:
        """Leaves what is not acked to others, in 5 s at the latest: acks on their way still count."""
        now = time.monotonic()
        later = [lease for lease, sent in self._unacked.items() if sent.deadline > now + SECONDS_AFTER_END]
        for lease in self._unacked:
            del self._holders[lease]
        self._unacked.clear()
        self._extend(later, SECONDS_AFTER_END)

    def _take(self) -> None:
        """Leases records while the client may have more; sets when to look again where there are none."""
        now = time.monotonic()
        for lease in [lease for lease, sent in self._unacked.items() if sent.deadline <= now]:
            del self._unacked[lease], self._holders[lease]
        room = min(MAX_UNACKED - len(self._unacked), _AT_ONCE)
        if self._taken:
            return
        if room <= 0:
            self._due = min(sent.deadline for sent in self._unacked.values())
            return
        self._receive.max_deliveries = room
        response = self._core.call("Receive", self._receive.SerializeToString())
        self._taken = _core.Delivery.parse(response)
        now = time.monotonic()  # after the call, so that a deadline here is not before the broker's
        for delivery in self._taken:
            self._sent += 1
            self._timeout = delivery.visibility_timeout_ms / 1000
            self._unacked[delivery.lease_id] = _Sent(self._sent, now + self._timeout)
            self._holders[delivery.lease_id] = self
        if not self._taken:
            due = pb.ReceiveResponse.FromString(response).next_due_ms / 1000
            self._due = now + due if due else math.inf

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
            await self._calls.call("Nack", request.SerializeToString(), self._topic)
        except BrokerError as error:  # it stays leased, and is tried again after that
            log.warning("%s is too large for an event, and cannot be dead-lettered: %s", place, error)
            return
        log.warning("%s went to the dead-letter topic: %s", place, reason, extra={"group": self._group})
        if self._unacked.pop(event_id.lease_id, None) is not None:
            del self._holders[event_id.lease_id]

    def _renew(self, now: float) -> None:
        waiting = [lease for lease, sent in self._unacked.items() if sent.number > self._acked_up_to]
        ended = self._extend(waiting, self._timeout)
        for lease in waiting:
            if lease in ended:  # by a seek
                del self._unacked[lease], self._holders[lease]
            else:
                self._unacked[lease].deadline = now + self._timeout

    def _extend(self, leases: Iterable[bytes], seconds: float) -> set[bytes]:
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
            answer = pb.ExtendResponse.FromString(self._core.call("Extend", request.SerializeToString()))
        except BrokerError as error:  # the topic or group was deleted, or the broker closed
            log.debug("leases of a stream were not extended: %s", error)
            return set()
        return {entry.lease_id for entry in answer.stale}
