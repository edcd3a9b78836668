"""What became of a dump's rows."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from telemetry_services.text import counted

if TYPE_CHECKING:
    from telemetry_broker._core import CsvBlock


@dataclass(slots=True)
class Progress:
    """Counts of one run, all passes together: `rows = samples + duplicates + missing + resumed + rejected`.

    Attributes:
        size: bytes of the dump.
        position: bytes of it that are in the topic, of the pass under way.
        passes: passes that are finished, those of earlier runs included.
        rows: rows read.
        samples: values sent.
        points: records sent.
        duplicates: rows replaced by a later one of the same time, tags and metric.
        missing: rows without a value.
        resumed: rows left out because the topic has them from an earlier run.
        rejected: rows that cannot be used, by reason.
        rejects_path: where those are kept; None when there are none.
        first_ns: least time of a sample sent, nanoseconds since the epoch; None before the first one.
        last_ns: the greatest.
        from_start: whether this run read the dump from its beginning; otherwise the counts lack what is before.
    """

    size: int = 0
    position: int = 0
    passes: int = 0
    rows: int = 0
    samples: int = 0
    points: int = 0
    duplicates: int = 0
    missing: int = 0
    resumed: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    rejects_path: Path | None = None
    first_ns: int | None = None
    last_ns: int | None = None
    from_start: bool = True

    def add(self, block: "CsvBlock") -> None:
        """Counts a block."""
        self.rows += block.rows
        self.samples += block.samples
        self.points += block.points
        self.duplicates += block.duplicates
        self.missing += block.missing
        self.resumed += block.resumed
        self.rejected.update(block.rejected)
        if block.times_ns is not None:
            first, last = block.times_ns
            self.first_ns = first if self.first_ns is None else min(self.first_ns, first)
            self.last_ns = last if self.last_ns is None else max(self.last_ns, last)

    def describe_rejects(self) -> str:
        """`3 rows cannot be used (number 2, short 1); they are kept in PATH`; empty when all can be used."""
        if not self.rejected:
            return ""
        count = self.rejected.total()
        reasons = ", ".join(f"{reason} {rows:,}" for reason, rows in self.rejected.most_common())
        kept = f"; {'it is' if count == 1 else 'they are'} kept in {self.rejects_path}" if self.rejects_path else ""
        return f"{counted(count, 'row')} cannot be used ({reasons}){kept}"

    def describe_left_out(self) -> str:
        """`3 rows repeat ..., 4 rows have no value`: good rows that are no sample; empty when there are none."""
        parts = []
        if self.duplicates:
            repeat = "repeats" if self.duplicates == 1 else "repeat"
            parts.append(
                f"{counted(self.duplicates, 'row')} {repeat} time, tags and metric of a later one, whose value counts"
            )
        if self.missing:
            parts.append(f"{counted(self.missing, 'row')} {'has' if self.missing == 1 else 'have'} no value")
        return ", ".join(parts)
