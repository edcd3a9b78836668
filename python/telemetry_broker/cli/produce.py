"""``produce``: standard input into a topic."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from typing import BinaryIO, Final

from telemetry_broker.broker import Broker
from telemetry_broker.cli import records, values
from telemetry_broker.cli.connecting import add_broker_options, opened
from telemetry_broker.cli.output import json_line, line, note, plural
from telemetry_broker.cli.parser import REFUSED, Command, Parser, describe
from telemetry_broker.cli.records import Record
from telemetry_broker.errors import InvalidArgumentError, NotFoundError
from telemetry_broker.producer import Producer

_MAX_RECORD: Final = 1 << 20
_MAX_JSON: Final = 8 << 20  # a record as JSON: base64 takes a third more, escaped characters up to six times as much
_READ: Final = 1 << 18
_WINDOW: Final = 10_000
"""Records between two flushes: so exactly can be said which lines the records of a batch came from."""

_DELIVERY_TIMEOUT: Final = 120.0

_SUMMARY: Final = "store records from standard input, one a line"
_TEXT: Final = """--format lines (default): a line is a value, as it is; the line feed is no part of it.
--format json: a line is an object with value, and key, headers and timestamp as needed. Text is UTF-8, other bytes
  are {"base64": "..."}; timestamp is a time in RFC 3339, or nanoseconds since the epoch. It is what `consume --format
  json` prints; the fields that say where a record was are passed over.
--format raw: all of standard input is one record.

A line that is no record is told, counted and passed over; what the broker does not store ends the reading.

Exit status: 0 all is stored, 1 some of it is not, 2 it could not be done, 130 at Ctrl-C."""


def _add(parser: Parser) -> None:
    describe(
        parser,
        _SUMMARY,
        _run,
        text=_TEXT,
        examples=(
            "tail -F app.log | %(prog)s logs --broker grpc://127.0.0.1:9090",
            "%(prog)s telemetry --key GPU-1 --header source=test < lines.txt",
            """echo '{"key": "GPU-1", "value": "util=87"}' | %(prog)s telemetry --format json""",
        ),
    )
    parser.add_argument("topic", metavar="TOPIC", help="where they go; it must exist")
    parser.add_argument("--format", choices=("lines", "json", "raw"), default="lines", help="default %(default)s")
    parser.add_argument("--key", help="of every record that has none: one key, one partition, in order")
    parser.add_argument("--partition", type=values.number, metavar="N", help="of every record; wins over the key")
    parser.add_argument(
        "--header",
        dest="headers",
        action="append",
        type=values.header,
        metavar="NAME=VALUE",
        help="of every record that has none of that name; can be repeated",
    )
    parser.add_argument("--json", action="store_true", help="tell the counts as one JSON object")
    add_broker_options(parser)


COMMAND: Final = Command("produce", _SUMMARY, _add)


def _run(parsed: argparse.Namespace) -> int:
    with opened(parsed) as broker:
        work = _Import(parsed, broker)
        if sys.stdin.isatty():
            note("reading records; Ctrl-D at the beginning of a line ends")
        return work.run(sys.stdin.buffer)


class _Import:
    """One run of the command: what was read, what became of it."""

    def __init__(self, parsed: argparse.Namespace, broker: Broker) -> None:
        self._topic: str = parsed.topic
        self._json: bool = parsed.json
        self._format: str = parsed.format
        self._partition: int | None = parsed.partition
        self._key: bytes | None = None if parsed.key is None else parsed.key.encode(errors="surrogateescape")
        self._headers: dict[str, bytes] = dict(parsed.headers or ())
        self._refused = 0
        self._line = 0
        self._flushed_line = 0
        self._sent = 0
        self._flushed = 0  # of those that were sent
        self._told_failed = 0
        # A batch that is given up is told at once: the next line may be long in coming.
        self._producer: Producer = broker.producer(
            self._topic,
            max_block=_DELIVERY_TIMEOUT,
            delivery_timeout=_DELIVERY_TIMEOUT,
            on_error=lambda error: note(str(error)),
        )
        known = self._producer.sequences
        if self._partition is not None and self._partition not in known:
            raise NotFoundError(
                f"topic {self._topic} has partitions 0 to {len(known) - 1}, not {self._partition}; give one of these",
                code="partition.not_found",
            )

    def run(self, stream: BinaryIO) -> int:
        """Reads to the end, tells what became of it, and returns the exit status."""
        interrupted = False
        try:
            try:
                self._read(stream)
                self._flush()
            except KeyboardInterrupt:
                interrupted = True
                note("interrupted: storing what was read; Ctrl-C again gives it up")
                self._flush()
        finally:
            self._producer.close(flush=False)
            self._tell()
        if interrupted:
            raise KeyboardInterrupt
        return REFUSED if self._refused or self._producer.failed_records else 0

    def _read(self, stream: BinaryIO) -> None:
        if self._format == "raw":
            self._line = 1
            value = stream.read(_MAX_RECORD + 1)
            self._send(None if len(value) > _MAX_RECORD else Record(value))
            return
        for group in _lines(stream, _MAX_JSON if self._format == "json" else _MAX_RECORD):
            if self._format == "json":
                self._send_objects(group)
            else:
                self._send_values(group)
            if self._sent - self._flushed >= _WINDOW:
                self._flush()
            if self._producer.failed_records:
                return

    def _send_objects(self, group: Sequence[bytes | None]) -> None:
        for each in group:
            self._line += 1
            if each is None:
                self._refuse(f"it is longer than a line may be, {_MAX_JSON:,} bytes")
            elif each.strip():
                try:
                    record = records.from_json(each)
                except ValueError as error:
                    self._refuse(str(error))
                else:
                    self._send(record)

    def _send_values(self, group: Sequence[bytes | None]) -> None:
        small = [each for each in group if each is not None and len(each) <= _READ]
        if len(small) == len(group) and self._partition is None and not self._headers:
            self._producer.send_many(small, None if self._key is None else [self._key] * len(small))
            self._sent += len(small)
            self._line += len(small)
            return
        for each in group:
            self._line += 1
            self._send(None if each is None else Record(each))

    def _send(self, record: Record | None) -> None:
        if record is None:
            self._refuse(f"it is longer than a record may be, {_MAX_RECORD:,} bytes with its key and headers")
            return
        try:
            self._producer.send(
                record.value,
                self._key if record.key is None else record.key,
                partition=self._partition,
                timestamp_ns=record.timestamp_ns,
                headers=self._headers | record.headers,
            )
        except InvalidArgumentError as error:
            self._refuse(str(error))
        else:
            self._sent += 1

    def _refuse(self, why: str) -> None:
        self._refused += 1
        note(f"line {self._line}: {why}")

    def _flush(self) -> None:
        """Waits for what was sent; where batches were given up, says which lines they came from."""
        self._producer.flush()
        failed = self._producer.failed_records
        if failed > self._told_failed:
            note(f"what was not stored is among the lines {self._flushed_line + 1:,} to {self._line:,}; reading ended")
        self._flushed_line, self._flushed, self._told_failed = self._line, self._sent, failed

    def _tell(self) -> None:
        stored = self._producer.stored_records
        # A second Ctrl-C may have come where a record was in no book of the producer.
        failed = max(self._producer.failed_records, self._sent - stored)
        if self._json:
            json_line({"topic": self._topic, "stored": stored, "refused": self._refused, "failed": failed})
        else:
            line(f"stored {plural(stored, 'record')} in {self._topic}")
        sys.stdout.flush()
        if self._refused:
            note(f"refused {plural(self._refused, 'line')}")
        if failed:
            note(f"{plural(failed, 'record')} not stored, or nobody knows whether")


def _lines(stream: BinaryIO, most: int) -> Iterator[list[bytes | None]]:
    """Lines as they come, without their line feeds; None for one of more than ``most`` bytes, which is not kept."""
    rest, is_too_long = b"", False
    while read := stream.read1(_READ):  # type: ignore[attr-defined]
        *whole, rest = (rest + read).split(b"\n")
        group: list[bytes | None] = [each if len(each) <= most else None for each in whole]
        if whole and is_too_long:
            group[0], is_too_long = None, False
        if len(rest) > most:
            rest, is_too_long = b"", True
        if group:
            yield group
    if rest or is_too_long:
        yield [None if is_too_long else rest]
