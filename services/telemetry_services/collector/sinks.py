"""How a commit gets into each kind of store, and how the records are found that a store will never take.

A sink is used by several threads at once only where its store takes several writes in flight.
"""

import logging
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar, cast

import pyarrow as pa

from telemetry_broker import Batch, _core
from telemetry_services.collector.pending import MEASUREMENT, Builder, Pending
from telemetry_services.store import (
    ColumnStore,
    LineStore,
    OffsetRange,
    RefusedLine,
    StorePositionError,
    StoreSchemaError,
)

log = logging.getLogger(__name__)

T = TypeVar("T")

_NEVER_TAKEN: Final = (StoreSchemaError, pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError)
"""What says that rows, and not the store or its disk, are at fault."""


class Patience(Protocol):
    """Calls the store, again and again while it is away."""

    def __call__(self, call: Callable[[], T], /) -> T:
        """Gives what the call gives, or raises what waiting does not mend."""
        ...


Reject = Callable[[Batch, dict[int, str]], None]
"""Puts records of a batch, by offset with the reason, into the dead-letter topic."""


@dataclass(slots=True)
class Stored:
    """What a commit stored."""

    rows: int = 0
    samples: int = 0


class Sink(Protocol):
    """The store, as a collector uses it.

    Attributes:
        writes_in_flight: commits that may be under way at the same time.
        batch_bytes: how large a commit should be at most; None: as large as the collector likes.
        keeps_positions: whether the store says where a log is gone on with; else the group's own position counts.
    """

    writes_in_flight: int
    batch_bytes: int | None
    keeps_positions: bool

    def prepare(self) -> None:
        """Makes the store where there is none, and sees that it can be written; learns the names that it has."""
        ...

    def positions(self, log_ids: list[bytes]) -> dict[bytes, int]:
        """Where the store stands in these logs; one that it does not know is absent."""
        ...

    def new_builder(self) -> Builder:
        """An empty one of what the store takes."""
        ...

    def store(self, pending: Pending, patience: Patience, reject: Reject) -> Stored:
        """Stores a commit but for the records that the store will never take, which are rejected.

        Raises:
            StorePositionError: the store stands elsewhere.
        """
        ...


def sink_for(store: ColumnStore | LineStore) -> Sink:
    """The sink of a store, by what it takes."""
    return LineSink(store) if isinstance(store, LineStore) else ColumnSink(store)


class Names:
    """What the store calls a tag and what a metric: a record that has it the other way round cannot be stored."""

    def __init__(self, store: ColumnStore | LineStore) -> None:
        self._store = store
        self.tags: set[str] = set()
        self.fields: set[str] = set()

    def learn(self) -> None:
        """Asks the store; other collectors add names too."""
        self.tags.update(self._store.tags())
        self.fields.update(self._store.metrics())

    def add(self, columns: _core.ColumnBatch) -> None:
        """Takes in those that were stored just now."""
        self.tags.update(columns.tags)
        self.fields.update(columns.fields)


class ColumnSink:
    """Columns with positions, one commit at a time."""

    writes_in_flight: int = 1
    batch_bytes: int | None = None
    keeps_positions: bool = True

    def __init__(self, store: ColumnStore) -> None:
        self._store = store
        self._names = Names(store)

    def prepare(self) -> None:
        self._store.positions(())
        self._names.learn()

    def positions(self, log_ids: list[bytes]) -> dict[bytes, int]:
        found = self._store.positions([log_id.hex() for log_id in log_ids])
        return {bytes.fromhex(log_id): position for log_id, position in found.items()}

    def new_builder(self) -> _core.ColumnBuilder:
        return _core.ColumnBuilder(MEASUREMENT, tags=sorted(self._names.tags), fields=sorted(self._names.fields))

    def store(self, pending: Pending, patience: Patience, reject: Reject) -> Stored:
        columns = cast("_core.ColumnBatch", pending.builder.finish())  # new_builder made it
        spans = {log_id: span.as_range() for log_id, span in pending.spans.items()}
        try:
            rows = self._write(columns, spans, patience)
        except _NEVER_TAKEN as error:
            log.warning("the store refuses a commit, looking for the records that it refuses: %s", error)
            return self._store_apart(pending, patience, reject)
        self._names.add(columns)
        return Stored(rows, _count_values(columns))

    def _write(self, columns: _core.ColumnBatch | None, spans: Mapping[bytes, OffsetRange], patience: Patience) -> int:
        """One commit; gives the rows stored."""
        positions = {log_id.hex(): span for log_id, span in spans.items()}
        try:
            return patience(lambda: self._store.write([columns] if columns else [], positions))
        except StorePositionError as error:
            if any(error.positions.get(log_id) != span.next for log_id, span in positions.items()):
                raise
            return len(columns or ())  # an earlier attempt stored all of it, and only its answer was lost

    def _store_apart(self, pending: Pending, patience: Patience, reject: Reject) -> Stored:
        """Stores in parts what the store refused as a whole; exactly the records it will never take are rejected."""
        patience(self._names.learn)  # another collector may have added columns meanwhile
        stored = Stored()
        for log_id, span in pending.spans.items():
            stored_to = span.first
            for batch in span.batches:
                # Halves that are refused are cut again, the first one on top.
                parts = [(0, len(batch))]
                while parts:
                    start, end = parts.pop()
                    columns, rejected = self._decode(batch, start, end)
                    next_offset = batch.base_offset + end if end < len(batch) else batch.end.offset
                    try:
                        stored.rows += self._write(columns, {log_id: OffsetRange(stored_to, next_offset)}, patience)
                        stored.samples += _count_values(columns)
                        stored_to = next_offset
                        self._names.add(columns)
                    except _NEVER_TAKEN as error:
                        if end - start > 1:
                            middle = (start + end) // 2
                            parts += [(middle, end), (start, middle)]
                            continue
                        # The position is moved over it by the next commit.
                        rejected = {batch.base_offset + start: str(error)}
                    reject(batch, rejected)
            if stored_to < span.next:
                self._write(None, {log_id: OffsetRange(stored_to, span.next)}, patience)
        return stored

    def _decode(self, batch: Batch, start: int, end: int) -> tuple[_core.ColumnBatch, dict[int, str]]:
        """Decodes some records of a batch; gives the reasons of those that cannot be decoded, by offset."""
        builder = self.new_builder()
        builder.append_values(batch.values[start:end], batch.base_offset + start)
        rejected = {offset: reason for offset, _, reason in reversed(builder.rejected)}
        return builder.finish(), rejected


class LineSink:
    """Lines that overwrite themselves, several commits at a time."""

    keeps_positions: bool = False

    def __init__(self, store: LineStore) -> None:
        self._store = store
        self._names = Names(store)
        self.writes_in_flight = store.writes_in_flight
        self.batch_bytes: int | None = store.batch_bytes

    def prepare(self) -> None:
        self._store.prepare()
        self._names.learn()

    def positions(self, log_ids: list[bytes]) -> dict[bytes, int]:  # noqa: ARG002 (part of the signature)
        return {}

    def new_builder(self) -> _core.LineBuilder:
        return _core.LineBuilder(MEASUREMENT, tags=sorted(self._names.tags), fields=sorted(self._names.fields))

    def store(self, pending: Pending, patience: Patience, reject: Reject) -> Stored:
        lines = cast("_core.LineBatch", pending.builder.finish())  # new_builder made it
        refused = patience(lambda: self._store.write_lines(lines)) if len(lines) else []
        if refused:
            self._reject(pending, lines, refused, reject)
            patience(self._names.learn)  # what is refused is most often a name that is known as something else
        lost = sum(_samples_of(lines, line.line) for line in refused)
        return Stored(len(lines) - len(refused), lines.samples - lost)

    def _reject(self, pending: Pending, lines: _core.LineBatch, refused: list[RefusedLine], reject: Reject) -> None:
        """Rejects the records of refused lines; other lines of such a record are stored, and again by a redrive."""
        by_batch: defaultdict[int, dict[int, str]] = defaultdict(dict)
        for line in refused:
            index, offset = lines.place(line.line)
            by_batch[index].setdefault(offset, line.reason)
        for index, reasons in sorted(by_batch.items()):
            reject(pending.batches[index], reasons)


def _count_values(columns: _core.ColumnBatch) -> int:
    """Values that are there: fields that are not null."""
    batch = pa.record_batch(columns)
    return sum(batch.num_rows - batch.column(name).null_count for name in columns.fields)


def _samples_of(lines: _core.LineBatch, line: int) -> int:
    builder = _core.LineBuilder(MEASUREMENT)
    builder.append_values([lines.lines(line, line + 1)])
    return builder.finish().samples
