"""Records on their way into the store: decoded, and not committed yet."""

import time
from dataclasses import dataclass, field
from typing import Final

from telemetry_broker import Batch, _core
from telemetry_services.store import OffsetRange

MEASUREMENT: Final = "gpu"

Builder = _core.ColumnBuilder | _core.LineBuilder


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
        batches: in the order in which they were added to the builder.
        spans: what it stores of each log, by log id.
        started: when its first record was taken, by the monotonic clock.
    """

    builder: Builder
    batches: list[Batch] = field(default_factory=list)
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
        self.batches.append(batch)
        span = self.spans.get(batch.log_id)
        if span is None:
            span = self.spans[batch.log_id] = Span(first, batch.end.offset, [batch])
        else:
            span.next = batch.end.offset
            span.batches.append(batch)
        self.records += len(batch)
        self.nbytes += batch.nbytes
        rejected = {offset: reason for offset, _, reason in reversed(self.builder.rejected[seen:])}
        return self.note_rejected(span, rejected)

    def note_rejected(self, span: Span, rejected: dict[int, str]) -> list[tuple[int, str]]:
        """Counts records that are not stored; gives those that were not counted before, in their order."""
        new = {offset: reason for offset, reason in rejected.items() if offset not in span.rejected}
        span.rejected |= new.keys()
        self.rejected += len(new)
        return sorted(new.items())

    @property
    def age(self) -> float:
        """Seconds since the first record was taken; 0 without one."""
        return time.monotonic() - self.started if self.records else 0.0
