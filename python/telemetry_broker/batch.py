"""Records as a consumer or a reader gets them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from telemetry_broker import _core
from telemetry_broker.leases import Lease, Leases
from telemetry_broker.positions import Offset, milliseconds


class Records:
    """A contiguous range of one partition: record ``i`` has the offset ``base_offset + i``.

    Records stay encoded until a property asks for them; what it decoded is kept with the batch. ``values`` and ``keys``
    are copies of their bytes; ``value_views`` and ``key_views`` are not.
    """

    def __init__(self, delivery: _core.Delivery) -> None:
        self._delivery = delivery
        self._length = len(delivery)

    @property
    def topic(self) -> str:
        """The topic."""
        return self._delivery.topic

    @property
    def partition(self) -> int:
        """The partition."""
        return self._delivery.partition

    @property
    def log_id(self) -> bytes:
        """16 bytes that name the partition's log; see ``Offset``."""
        return self._delivery.log_id

    @property
    def base_offset(self) -> int:
        """Offset of the first record."""
        return self._delivery.base_offset

    @property
    def offsets(self) -> range:
        """The records' offsets."""
        return range(self.base_offset, self.base_offset + self._length)

    @property
    def end(self) -> Offset:
        """The position behind the last record: what a store keeps to go on from there."""
        return Offset(self.log_id, self.base_offset + self._length)

    @property
    def nbytes(self) -> int:
        """Size of the encoded records in bytes."""
        return self._delivery.nbytes

    @cached_property
    def values(self) -> list[bytes]:
        """The payloads."""
        return self._delivery.values

    @cached_property
    def keys(self) -> list[bytes | None]:
        """The keys; None for a record without one."""
        return self._delivery.keys

    @cached_property
    def value_views(self) -> list[memoryview]:
        """The payloads without a copy: read-only views of the bytes that came from the broker.

        They stay good after the batch and the broker are gone; one of them keeps the bytes of the whole batch alive.
        Worth it for payloads of more than some 2 KiB; smaller ones are copied faster than a view of them is made.
        """
        return self._delivery.value_views

    @cached_property
    def key_views(self) -> list[memoryview | None]:
        """The keys without a copy, like ``value_views``; None for a record without one."""
        return self._delivery.key_views

    @cached_property
    def timestamps_ns(self) -> list[int]:
        """The producers' own times, nanoseconds since the epoch; 0 where none was given."""
        return self._delivery.timestamps_ns

    @cached_property
    def append_times_ns(self) -> list[int]:
        """When the broker appended each record, nanoseconds since the epoch."""
        return self._delivery.append_times_ns

    @cached_property
    def headers(self) -> list[dict[str, bytes]]:
        """The headers; an empty dict for a record without any."""
        return self._delivery.headers

    @property
    def records(self) -> memoryview:
        """The encoded records, each with its tag (0x7A) and length, as ``Producer.append`` takes them. Not copied."""
        return self._delivery.records

    def __len__(self) -> int:
        return self._length

    def __bool__(self) -> bool:
        return self._length > 0

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.topic}/{self.partition}: {self._length} records from {self.base_offset}>"


class Leased(Records):
    """Records under a lease: what the batches of both faces know."""

    def __init__(self, delivery: _core.Delivery, lease: Lease) -> None:
        super().__init__(delivery)
        self._lease = lease

    @property
    def attempt(self) -> int:
        """How often these records were given to the group, this time included; 0 for an empty batch."""
        return self._delivery.attempt

    @property
    def visibility_timeout(self) -> float:
        """Length of the lease in seconds, as last set."""
        return self._lease.timeout

    @property
    def lease_id(self) -> bytes:
        """Opaque; names the lease on the wire."""
        return self._delivery.lease_id

    def part(self, offsets: Iterable[int] | None = None) -> tuple[Lease, Sequence[range] | None]:
        """The lease with these offsets of it, None: all but what was given back; as ``Consumer.ack`` wants it."""
        return self._lease, self._lease.rest() if offsets is None else self._lease.ranges(offsets)

    def _timeout_ms(self, timeout: float | None) -> int:
        """What ``extend`` asks for."""
        return milliseconds("extend's timeout", self._lease.timeout if timeout is None else timeout, least=0.001)


class Batch(Leased):
    """One delivery: records of one partition under one lease, or none at all.

    Until the visibility timeout ends, no other consumer of the group gets these records. Ack what was handled; what is
    not acked by then is given out again. With ``offsets``, ack and nack mean these records only; without, all of the
    batch but what was given back before: nack what failed, then ack the rest.
    """

    def __init__(self, delivery: _core.Delivery, lease: Lease, leases: Leases) -> None:
        super().__init__(delivery, lease)
        self._leases = leases

    @property
    def group(self) -> str:
        """The group that has the lease."""
        return self._leases.group

    def ack(self, offsets: Iterable[int] | None = None) -> int:
        """Marks records as handled: the group never gets them again, also after a restart of the broker.

        Repeating it is fine, and so is coming late, as long as nobody else was given the records meanwhile. In an
        ordered group it acks everything up to the highest offset.

        Returns:
            How many records were not acked before.

        Raises:
            StaleLeaseError: some were given to another consumer since, and are named; the others are acked.
        """
        return self._leases.ack([self.part(offsets)])

    def nack(
        self,
        delay: float = 0.0,
        offsets: Iterable[int] | None = None,
        *,
        dead_letter: bool = False,
        reason: str = "",
    ) -> int:
        """Gives records back.

        Args:
            delay: seconds until they may be given out again, at most 12 h; 0: at once.
            offsets: which; None: all. In an ordered group, the lowest is where the group goes on.
            dead_letter: send them to the dead-letter topic instead, for good.
            reason: why, for whoever looks there; at most 4,096 bytes.

        Returns:
            How many records were given back.

        Raises:
            StaleLeaseError: some were given to another consumer since, and are named; the others are given back.
        """
        return self._leases.nack(
            [self.part(offsets)],
            delay_ms=milliseconds("nack's delay", delay),
            dead_letter=dead_letter,
            reason=reason,
        )

    def extend(self, timeout: float | None = None) -> None:
        """Starts the visibility timeout anew, from now on.

        Args:
            timeout: its new length in seconds, at most 12 h; None: the length it has.

        Raises:
            StaleLeaseError: the lease had ended.
        """
        self._leases.extend([self._lease], self._timeout_ms(timeout))


@dataclass(frozen=True, slots=True)
class Page:
    """What ``Broker.read`` found: ranges of records without a lease, and where to read on.

    Iterating gives the ranges; there are several where offsets leave a gap. ``bool(page)`` is False at the end.
    """

    ranges: tuple[Records, ...]
    next: Offset
    """Where to read on: the next call's ``start``."""

    @property
    def values(self) -> list[bytes]:
        """The payloads of all ranges."""
        return [value for records in self.ranges for value in records.values]

    @property
    def offsets(self) -> list[int]:
        """The offsets of all ranges."""
        return [offset for records in self.ranges for offset in records.offsets]

    def __iter__(self) -> Iterator[Records]:
        return iter(self.ranges)

    def __len__(self) -> int:
        return sum(map(len, self.ranges))
