"""The leases that a consumer holds, and what is done to them: ack, nack, extend."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from telemetry_broker import _core
from telemetry_broker.errors import InvalidArgumentError, StaleLeaseError
from telemetry_broker.positions import ascending_ranges
from telemetry_broker.steps import Steps, run
from telemetry_broker.transport import Transport
from telemetry_broker.v1 import broker_pb2 as pb

if TYPE_CHECKING:
    from telemetry_broker.extending import Keep

_LEASES_PER_REQUEST: Final = 10_000

Part = tuple["Lease", Sequence[range] | None]
"""Ranges of offsets inside a lease; None: all of it."""


class Lease:
    """One delivery's claim on a range of offsets."""

    def __init__(self, delivery: _core.Delivery) -> None:
        self.id = delivery.lease_id
        self.partition = delivery.partition
        self.place = f"{delivery.topic}/{delivery.partition}"
        self.offsets = range(delivery.base_offset, delivery.base_offset + len(delivery))
        self.open = [self.offsets]
        """What is neither acked nor given back."""
        self.given_back: list[range] = []
        """What was nacked: what is done to the whole lease from then on does not mean it."""
        self.timeout = delivery.visibility_timeout_ms / 1000
        self.received = time.monotonic()
        """When the timeout began, by the clock of this process; later than the broker's by the way here."""
        self.ended = False
        """It is known to have ended, so its records are not worth handling."""
        self.keep: Keep | None = None
        """Why it is extended by itself; None: it is not."""

    def settle(self, ranges: Iterable[range]) -> None:
        """Takes ranges out of what is open."""
        for done in ranges:
            self.open = _without(self.open, done)

    def rest(self) -> Sequence[range] | None:
        """What is meant where no offsets are given: all but what was given back; None: all of it."""
        if not self.given_back:
            return None
        rest = [self.offsets]
        for gone in self.given_back:
            rest = _without(rest, gone)
        return rest

    def ranges(self, offsets: Iterable[int]) -> list[range]:
        """Offsets as ascending ranges without gaps; refuses what is not in the lease."""
        chosen = set(offsets)
        for offset in chosen:
            if offset not in self.offsets:
                raise InvalidArgumentError(
                    f"{self.place}: offset {offset} is not in this batch, which holds "
                    f"{self.offsets.start} to {self.offsets.stop - 1}"
                )
        return ascending_ranges(chosen)


class LeaseBook:
    """Every open lease of one consumer, and the calls that change them. Thread-safe; what calls need are ``Steps``.

    Attributes:
        group: for whom.
    """

    def __init__(self, topic: str, group: str, *, ordered: bool) -> None:
        self.group = group
        self._topic = topic
        self._ordered = ordered
        self._lock = threading.Lock()
        self._open: dict[bytes, Lease] = {}

    def add(self, delivery: _core.Delivery) -> Lease:
        """Takes note of a delivery's lease."""
        lease = Lease(delivery)
        with self._lock:
            # Leases that ran out are the broker's again. The oldest come first; this keeps the book short.
            for oldest in list(self._open.values())[:2]:
                if oldest.received + oldest.timeout < lease.received:
                    del self._open[oldest.id]
            self._open[lease.id] = lease
        return lease

    def end(self, partitions: Iterable[int]) -> None:
        """Forgets the leases of these partitions, which a seek has ended."""
        moved = frozenset(partitions)
        with self._lock:
            for lease in [lease for lease in self._open.values() if lease.partition in moved]:
                lease.ended = True
                del self._open[lease.id]

    def kept(self) -> list[Lease]:
        """The open leases that are extended by themselves."""
        with self._lock:
            return [lease for lease in self._open.values() if lease.keep is not None]

    def ack(self, parts: Iterable[Part]) -> Steps[int]:
        """Acks; returns the number of records newly acked. Raises StaleLeaseError once the rest is acked."""
        acked = 0
        stale: list[str] = []
        for chunk in _chunks(parts):
            request = pb.AckRequest(topic=self._topic, group=self.group, leases=map(_encode, chunk))
            response = pb.AckResponse.FromString((yield "Ack", request))
            acked += response.acked
            stale += self._settled(chunk, response.stale)
        _raise_if_stale(stale, "acked")
        return acked

    def nack(
        self, parts: Iterable[Part], *, delay_ms: int = 0, dead_letter: bool = False, reason: str = ""
    ) -> Steps[int]:
        """Gives back; returns the number of records. Raises StaleLeaseError once the rest is given back."""
        nacked = 0
        stale: list[str] = []
        for chunk in _chunks(parts):
            request = pb.NackRequest(
                topic=self._topic,
                group=self.group,
                leases=map(_encode, chunk),
                delay_ms=delay_ms,
                dead_letter=dead_letter,
                reason=reason,
            )
            response = pb.NackResponse.FromString((yield "Nack", request))
            nacked += response.nacked
            if not dead_letter:  # a dead letter is done with, and the group goes on behind it
                chunk = [(lease, self._give_back(lease, ranges)) for lease, ranges in chunk]
            stale += self._settled(chunk, response.stale)
        _raise_if_stale(stale, "given back")
        return nacked

    def extend(self, leases: Iterable[Lease], timeout_ms: int) -> Steps[None]:
        """Restarts the leases' timeouts; 0: at the topic's length. Raises StaleLeaseError once the rest is extended."""
        stale: list[str] = []
        for chunk in _chunks((lease, None) for lease in leases):
            request = pb.ExtendRequest(
                topic=self._topic,
                group=self.group,
                leases=map(_encode, chunk),
                visibility_timeout_ms=timeout_ms,
            )
            now = time.monotonic()
            response = pb.ExtendResponse.FromString((yield "Extend", request))
            ended = {entry.lease_id for entry in response.stale}
            with self._lock:
                for lease, _ in chunk:
                    lease.received = now
                    lease.timeout = timeout_ms / 1000 or lease.timeout
                    if lease.id in self._open:
                        self._open[lease.id] = self._open.pop(lease.id)  # the one that ends first stays in front
            stale += self._settled([part for part in chunk if part[0].id in ended], response.stale)
        _raise_if_stale(stale, "extended")

    def give_back(self) -> Steps[None]:
        """Nacks all that is open. What is stale by now belongs to somebody else already, which is as good."""
        with self._lock:
            parts = [(lease, lease.open) for lease in self._open.values()]
        try:
            yield from self.nack(parts)
        except StaleLeaseError:
            pass
        finally:
            with self._lock:
                self._open.clear()

    def _give_back(self, lease: Lease, ranges: Sequence[range] | None) -> Sequence[range]:
        """Notes what a nack gave back and returns it: in an ordered group, all from its lowest offset on."""
        gone = [lease.offsets] if ranges is None else list(ranges)
        if self._ordered:
            gone = [range(min(each.start for each in gone), lease.offsets.stop)]
        lease.given_back += gone
        return gone

    def _settled(self, parts: Iterable[Part], stale: Iterable[pb.StaleLease]) -> list[str]:
        """Takes parts out of what is open; returns the stale ones for people."""
        places: dict[bytes, Lease] = {}
        with self._lock:
            for lease, ranges in parts:
                places[lease.id] = lease
                lease.settle([lease.offsets] if ranges is None else ranges)
                if not lease.open:
                    self._open.pop(lease.id, None)
        return [
            f"{places[entry.lease_id].place} offsets {start} to {end - 1}"
            for entry in stale
            for start, end in (
                [(each.start, each.end) for each in entry.ranges]
                or [(places[entry.lease_id].offsets.start, places[entry.lease_id].offsets.stop)]
            )
        ]


class Leases:
    """The book of a synchronous consumer: its calls are made here and now. Thread-safe.

    Attributes:
        group: for whom.
        call: makes them.
    """

    def __init__(self, transport: Transport, topic: str, group: str, *, ordered: bool) -> None:
        self.group = group
        self.call = transport.call
        self._book = LeaseBook(topic, group, ordered=ordered)

    def add(self, delivery: _core.Delivery) -> Lease:
        """See LeaseBook, here and below."""
        return self._book.add(delivery)

    def end(self, partitions: Iterable[int]) -> None:
        """Forgets the leases of these partitions, which a seek has ended."""
        self._book.end(partitions)

    def kept(self) -> list[Lease]:
        """The open leases that are extended by themselves."""
        return self._book.kept()

    def ack(self, parts: Iterable[Part]) -> int:
        """Acks; returns the number of records newly acked."""
        return run(self._book.ack(parts), self.call)

    def nack(self, parts: Iterable[Part], *, delay_ms: int = 0, dead_letter: bool = False, reason: str = "") -> int:
        """Gives back; returns the number of records."""
        return run(self._book.nack(parts, delay_ms=delay_ms, dead_letter=dead_letter, reason=reason), self.call)

    def extend(self, leases: Iterable[Lease], timeout_ms: int) -> None:
        """Restarts the leases' timeouts."""
        run(self._book.extend(leases, timeout_ms), self.call)

    def give_back(self) -> None:
        """Nacks all that is open."""
        run(self._book.give_back(), self.call)


def _without(ranges: list[range], gone: range) -> list[range]:
    parts = [
        part
        for old in ranges
        for part in (range(old.start, min(old.stop, gone.start)), range(max(old.start, gone.stop), old.stop))
    ]
    return [part for part in parts if part]


def _encode(part: Part) -> pb.LeaseRange:
    lease, ranges = part
    return pb.LeaseRange(
        lease_id=lease.id,
        ranges=[pb.OffsetRange(start=each.start, end=each.stop) for each in ranges or ()],
    )


def _chunks(parts: Iterable[Part]) -> Iterator[list[Part]]:
    # Empty ranges on the wire mean "all of it", so a part that names none must not get there.
    meant = [(lease, ranges) for lease, ranges in parts if lease.id and (ranges is None or ranges)]
    for start in range(0, len(meant), _LEASES_PER_REQUEST):
        yield meant[start : start + _LEASES_PER_REQUEST]


def _raise_if_stale(stale: list[str], verb: str) -> None:
    if stale:
        named = ", ".join(stale[:10]) + (f" and {len(stale) - 10} more ranges" if len(stale) > 10 else "")
        raise StaleLeaseError(
            f"{named}: no longer held by this lease (given to another consumer, settled under another lease, "
            f"passed by a seek, or its broker is away), so not {verb}; everything else is. Handle records within the "
            "visibility timeout, or extend it while you work"
        )
