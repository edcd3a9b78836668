"""``consume``: records of a topic to standard output, read without a trace or leased for a group."""

from __future__ import annotations

import argparse
import heapq
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Final

from telemetry_broker.batch import Batch, Records
from telemetry_broker.broker import Broker
from telemetry_broker.cli import values
from telemetry_broker.cli.connecting import add_broker_options, opened
from telemetry_broker.cli.output import note, rfc3339, safe, safe_bytes
from telemetry_broker.cli.parser import Command, Parser, describe
from telemetry_broker.cli.records import as_objects, rows
from telemetry_broker.errors import InvalidArgumentError, NotFoundError, UnavailableError
from telemetry_broker.positions import END, START, Offset, Position
from telemetry_broker.receiving import Outage

_BATCH: Final = 500
_MAX_BYTES: Final = 1 << 20
_ALL_PAGES_BYTES: Final = 64 << 20  # a page of each partition is held at a time
_WRITE_BYTES: Final = 1 << 16
_LOOK_EVERY: Final = 0.25  # seconds; one call for all partitions, for a Read can wait for one of them only
_RECONNECT_TIMEOUT: Final = 120.0
_LEASE_EXTENSION: Final = 600.0  # a pager may take its time

_SUMMARY: Final = "print records: look at them, or take them for a group"
_TEXT: Final = """Without --group the records are only read: nothing is leased, no group sees a difference. They come in
the order in which they were appended, each partition in its own order, up to those that were there at the start;
--follow goes on.

With --group they are leased, and acked once standard output has taken them. What was not written is given back, also at
Ctrl-C and when the reader of a pipe has gone. A group that is not there is made, shared, at the oldest record. Without
--follow it ends when there is nothing to lease.

--format lines (default): a value a line; on a terminal, control characters are escaped.
--format json: an object a line, which `produce --format json` takes. Values, keys and headers are text where they are
  UTF-8, else {"base64": "..."}; times are RFC 3339 to the nanosecond.
--format pretty: for people, with offset, time, key and headers.
--format raw: values as they are, one after the other.

Exit status: 0 all is printed, 2 it could not be done, 130 at Ctrl-C."""

Show = Callable[[Records], Iterator[bytes]]
"""What is written for each of these records, in their order."""


def _add(parser: Parser) -> None:
    describe(
        parser,
        _SUMMARY,
        _run,
        text=_TEXT,
        examples=(
            "%(prog)s telemetry --from 10m --follow --broker grpc://127.0.0.1:9090",
            "%(prog)s telemetry --partition 0 --from 4711 --max-records 1 --format pretty",
            "%(prog)s telemetry --group export --format json > records.jsonl",
        ),
    )
    parser.add_argument("topic", metavar="TOPIC", help="what to read")
    parser.add_argument("--group", metavar="GROUP", help="lease the records for this group, and ack what was written")
    parser.add_argument(
        "--from", dest="start", type=values.position, metavar="POSITION", help=f"{values.POSITIONS}; default start"
    )
    parser.add_argument(
        "--partition",
        dest="partitions",
        action="append",
        type=values.number,
        metavar="N",
        help="only this partition; can be repeated",
    )
    parser.add_argument("--follow", "-f", action="store_true", help="go on with what comes, until Ctrl-C")
    parser.add_argument("--max-records", "-n", type=values.count, metavar="N", help="end after so many")
    parser.add_argument(
        "--format", choices=("lines", "json", "pretty", "raw"), default="lines", help="default %(default)s"
    )
    add_broker_options(parser)


COMMAND: Final = Command("consume", _SUMMARY, _add)


def _run(parsed: argparse.Namespace) -> int:
    if parsed.group is not None and parsed.start is not None:
        raise InvalidArgumentError(
            "--from is for reading without a group: a group goes on where it is; move it with "
            f"`{parsed.prog} group seek {parsed.topic} {parsed.group} --to ...`"
        )
    with opened(parsed) as broker:
        if parsed.follow and broker.url.startswith("file:"):
            note(f"nobody else can add records while this has {broker.url} open; `telemetry broker` shares a folder")
        show = _show(parsed.format)
        if parsed.group is not None:
            _take(broker, parsed, show)
        else:
            _Look(broker, parsed, show).run()
    return 0


def _write(shown: Iterable[bytes]) -> None:
    """Writes to standard output, and returns once that has taken all of it."""
    sys.stdout.buffer.write(b"".join(shown))
    sys.stdout.buffer.flush()


def _portions(shown: Iterable[bytes]) -> Iterator[list[bytes]]:
    """What is to be written at a time; the rest before an error too."""
    portion: list[bytes] = []
    nbytes = 0
    try:
        for each in shown:
            portion.append(each)
            nbytes += len(each)
            if nbytes >= _WRITE_BYTES:
                yield portion
                portion, nbytes = [], 0
    except UnavailableError:
        yield portion
        raise
    yield portion


def _take(broker: Broker, parsed: argparse.Namespace, show: Show) -> None:
    """Leases, writes, acks."""
    left: int | None = parsed.max_records
    modes = {group.name: group.mode for group in broker.groups(parsed.topic)}
    with broker.consumer(
        parsed.topic,
        parsed.group,
        mode=modes.get(parsed.group, "shared"),
        partitions=parsed.partitions,
        max_lease_extension=_LEASE_EXTENSION,
    ) as consumer:
        while left is None or left > 0:
            batch = consumer.receive(min(_BATCH, left or _BATCH), wait=None if parsed.follow else 0.0)
            if not batch:
                return
            _hand_over(batch, show)
            left = None if left is None else left - len(batch)


def _hand_over(batch: Batch, show: Show) -> None:
    written = 0
    try:
        for portion in _portions(show(batch)):
            _write(portion)
            written += len(portion)
    finally:
        # What was not taken is given back by the consumer when it is closed.
        if written:
            batch.ack(batch.offsets[:written])


class _Look:
    """Reads without a group: all partitions side by side, merged by when their records were appended."""

    def __init__(self, broker: Broker, parsed: argparse.Namespace, show: Show) -> None:
        self._broker = broker
        self._topic: str = parsed.topic
        self._chosen = frozenset(parsed.partitions or ())
        self._start: Position = START if parsed.start is None else parsed.start
        self._follow: bool = parsed.follow
        self._left: int | None = parsed.max_records
        self._show = show
        self._positions: dict[int, Position] = {}  # where to read on

    def run(self) -> None:
        """Writes what is there, and with ``--follow`` what comes."""
        ends = self._begin()
        outage = Outage(None, _RECONNECT_TIMEOUT)
        while True:
            try:
                written = self._pass(ends)
                if not self._follow or self._left == 0:
                    return
                ends = self._ends()
                outage.over()
                pause = 0.0 if written else _LOOK_EVERY
            except UnavailableError as error:
                if not self._follow:
                    raise
                pause = outage.pause(error)
            time.sleep(pause)

    def _begin(self) -> dict[int, int]:
        state = self._broker.describe_topic(self._topic)
        known = {each.partition: each for each in state.partitions}
        for partition in self._chosen - known.keys():
            raise NotFoundError(
                f"topic {self._topic} has partitions 0 to {len(known) - 1}, not {partition}; give one of these",
                code="partition.not_found",
            )
        chosen = [each for each in state.partitions if not self._chosen or each.partition in self._chosen]
        if isinstance(self._start, int) and len(chosen) > 1:
            raise InvalidArgumentError(
                f"an offset is a place in one partition, and topic {self._topic} has {len(known)}: add --partition N"
            )
        for each in chosen:
            self._positions[each.partition] = (
                Offset(each.log_id, each.end_offset) if self._start is END else self._start
            )
        return {each.partition: each.end_offset for each in chosen}

    def _ends(self) -> dict[int, int]:
        """The ends of the partitions now; one that was added is read from its start."""
        ends = {
            each.partition: each.end_offset
            for each in self._broker.describe_topic(self._topic).partitions
            if not self._chosen or each.partition in self._chosen
        }
        for partition in ends:
            self._positions.setdefault(partition, START)
        return ends

    def _is_behind(self, partition: int, end: int) -> bool:
        position = self._positions[partition]
        return not isinstance(position, Offset) or position.offset < end

    def _pass(self, ends: dict[int, int]) -> int:
        """Writes all records up to these ends, and returns how many."""
        written = 0
        behind = [partition for partition, end in ends.items() if self._is_behind(partition, end)]
        page_bytes = min(_MAX_BYTES, max(1, _ALL_PAGES_BYTES // max(1, len(behind))))
        merged = heapq.merge(*(self._read(partition, ends[partition], page_bytes) for partition in behind))
        for portion in _portions(shown for _, _, shown in islice(merged, self._left)):
            _write(portion)
            written += len(portion)
            if self._left is not None:
                self._left -= len(portion)
        return written

    def _read(self, partition: int, end: int, page_bytes: int) -> Iterator[tuple[int, int, bytes]]:
        """Append time, partition, and what is written. A record is behind us once the next one is asked for."""
        while True:
            most = _BATCH if self._left is None else min(_BATCH, self._left)
            page = self._broker.read(self._topic, partition, self._positions[partition], most, page_bytes)
            for records in page:
                for offset, append_ns, shown in zip(
                    records.offsets, records.append_times_ns, self._show(records), strict=True
                ):
                    yield append_ns, partition, shown
                    self._positions[partition] = Offset(records.log_id, offset + 1)
            self._positions[partition] = page.next
            if not page or page.next.offset >= end:
                return


def _show(name: str) -> Show:
    match name:
        case "lines":
            return _as_safe_lines if sys.stdout.isatty() else _as_lines
        case "json":
            return _as_json
        case "pretty":
            return _as_text
    return lambda records: iter(records.values)


def _as_lines(records: Records) -> Iterator[bytes]:
    return (value + b"\n" for value in records.values)


def _as_safe_lines(records: Records) -> Iterator[bytes]:
    return (f"{safe_bytes(value)}\n".encode() for value in records.values)


def _as_json(records: Records) -> Iterator[bytes]:
    return (json.dumps(shown).encode() + b"\n" for shown in as_objects(records))


def _as_text(records: Records) -> Iterator[bytes]:
    attempt = getattr(records, "attempt", 0)
    for offset, append_ns, timestamp_ns, key, value, headers in rows(records):
        head = [f"{records.topic}/{records.partition} offset {offset}", f"appended {rfc3339(append_ns)}"]
        if timestamp_ns:
            head.append(f"time {rfc3339(timestamp_ns)}")
        if key is not None:
            head.append(f"key {safe_bytes(key)}")
        if attempt > 1:
            head.append(f"attempt {attempt}")
        lines = [", ".join(head)]
        lines += [f"  {safe(name)}: {safe_bytes(content)}" for name, content in headers.items()]
        lines += [f"  {safe_bytes(each)}" for each in value.split(b"\n")]
        yield "".join(f"{each}\n" for each in lines).encode()
