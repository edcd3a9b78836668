"""Records on their way into the store: decoded, and not committed yet."""

import time
from dataclasses import dataclass, field
from typing import Final

from telemetry_broker import Batch, _core
from telemetry_services.store import OffsetRange

MEASUREMENT: Final = "gpu"


@dataclass(slots=True)
class Span:
    """The part of one log that a commit stores."""

    first: int
    next: int
    batches: list[Batch]
    rejected: set[int] = field(default_factory=set)
    """Offsets of records that are in the dead-letter topic already."""

    def as_range(self) -> OffsetRange:
        """As the store wants it."""
        return OffsetRange(self.first, self.next)


@dataclass(slots=True)
class Pending:
    """One commit in the making.

    Attributes:
        spans: what it stores of each log, by log id.
        started: when its first record was taken, by the monotonic clock.
    """

    builder: _core.ColumnBuilder
    spans: dict[bytes, Span] = field(default_factory=dict)
    records: int = 0
    nbytes: int = 0
    rejected: int = 0
    started: float = 0.0

    def add(self, batch: Batch, first: int) -> list[tuple[int, str]]:
        """Decodes a batch; gives (offset, reason) of the records that cannot be decoded, each once.

        Args:
            first: the position its log stands at; the batch may begin behind it, where the log has a gap.
        """
        if not self.records:
            self.started = time.monotonic()
        seen = len(self.builder.rejected)
        self.builder.append_records(batch.records, batch.base_offset)
        span = self.spans.get(batch.log_id)
        if span is None:
            span = self.spans[batch.log_id] = Span(first, batch.end.offset, [batch])
        else:
            span.next = batch.end.offset
            span.batches.append(batch)
        self.records += len(batch)
        self.nbytes += batch.nbytes
        rejected = {offset: reason for offset, _, reason in reversed(self.builder.rejected[seen:])}
        self.rejected += len(rejected)
        span.rejected |= rejected.keys()
        return sorted(rejected.items())

    @property
    def age(self) -> float:
        """Seconds since the first record was taken; 0 without one."""
        return time.monotonic() - self.started if self.records else 0.0
