"""``log verify``, ``log repair`` and ``log dump``: looking after a folder that no broker has open."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from telemetry_broker import _core
from telemetry_broker.cli import values
from telemetry_broker.cli.output import json_bytes, json_line, line, rfc3339, safe, safe_bytes
from telemetry_broker.cli.parser import REFUSED, Command, Parser, Run, add_action
from telemetry_broker.errors import NotFoundError

if TYPE_CHECKING:
    from telemetry_broker.cli.parser import Actions

_FINDING_FIELDS: Final = [
    "path",
    "topic",
    "partition",
    "kind",
    "position",
    "damaged_bytes",
    "lost",
    "what",
    "remedy",
    "mended",
]
_FRAME_FIELDS: Final = [
    "segment",
    "position",
    "nbytes",
    "base_offset",
    "count",
    "skipped",
    "append_ns",
    "producer_id",
    "sequence",
    "synced_end",
]

_VERIFY: Final = """Read every file of a broker's folder, or of one topic or partition, and list what is wrong.

Nothing is changed. Exit status: 0 nothing is wrong, 1 damage was found, 2 the folder could not be looked at."""
_REPAIR: Final = """Mend what verify finds.

A torn tail is cut. Damaged bytes inside a segment are taken out, and reading goes on behind them: every whole frame is
kept, and the damaged file beside the mended one as <name>.damaged. Repair can be interrupted and run again.
Exit status: 0 nothing is wrong any more, 1 something is left for you to do, 2 the folder could not be looked at."""
_DUMP: Final = """Print frames and records as they stand in the segments.

Exit status: 0 all frames shown are whole, 1 there is damage between them, 2 the folder could not be looked at."""


def _add_actions(log: Parser) -> None:
    actions = log.actions()
    _add(actions, "verify", "list what is wrong, and change nothing", _VERIFY, _verify)
    _add(actions, "repair", "mend what verify finds", _REPAIR, _repair)
    dump = _add(actions, "dump", "print frames and records", _DUMP, _dump)
    dump.add_argument(
        "--from", dest="start", type=values.offset, default=0, metavar="OFFSET", help="first offset; default 0"
    )
    dump.add_argument(
        "--to", dest="end", type=values.offset, metavar="OFFSET", help="behind the last offset; default the end"
    )
    dump.add_argument("--frames", action="store_true", help="frames only, no records")
    dump.add_argument("--values", action="store_true", help="values too, not only their sizes")


COMMAND: Final = Command("log", "verify, repair or dump a broker's folder that no broker has open", _add_actions)


def _add(actions: Actions, name: str, summary: str, text: str, run: Run) -> Parser:
    parser = add_action(actions, name, summary, run, text=text)
    parser.add_argument("dir", type=Path, metavar="DIR", help="the broker's folder")
    parser.add_argument("--topic", help="only this topic")
    parser.add_argument("--partition", type=values.number, metavar="N", help="only this partition")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    return parser


class _Progress:
    """How far the reading is, on one line of a terminal; silent where standard error is none."""

    def __init__(self, doing: str) -> None:
        self.doing = doing
        self.shown = False

    def __call__(self, done: int, total: int) -> None:
        if sys.stderr.isatty() and done < total:
            share = 100 * done // total
            sys.stderr.write(f"\r{self.doing}: {share} % of {total / (1 << 20):,.0f} MiB")
            sys.stderr.flush()
            self.shown = True

    def clear(self) -> None:
        if self.shown:
            sys.stderr.write("\r\x1b[K")


def _verify(parsed: argparse.Namespace) -> int:
    findings = _look(parsed, "verify", _core.log_verify)
    _report(parsed, findings)
    return REFUSED if findings else 0


def _repair(parsed: argparse.Namespace) -> int:
    findings = _look(parsed, "repair", _core.log_repair)
    _report(parsed, findings)
    return REFUSED if any(not finding.mended for finding in findings) else 0


def _look(
    parsed: argparse.Namespace, doing: str, work: Callable[..., list[_core.LogFinding]]
) -> list[_core.LogFinding]:
    progress = _Progress(doing)
    try:
        return work(parsed.dir, topic=parsed.topic, partition=parsed.partition, progress=progress)
    finally:
        progress.clear()


def _fields(shown: object, names: list[str]) -> dict[str, Any]:
    return {name: getattr(shown, name) for name in names}


def _report(parsed: argparse.Namespace, findings: list[_core.LogFinding]) -> None:
    if parsed.json:
        for finding in findings:
            json_line(_fields(finding, _FINDING_FIELDS))
        return
    for finding in findings:
        for each in _finding_lines(finding):
            line(safe(each))
    left = sum(not finding.mended for finding in findings)
    mended = len(findings) - left
    if not findings:
        line(f"{parsed.dir}: nothing is wrong")
    else:
        line(f"{parsed.dir}: {len(findings)} found" + (f", {mended} mended, {left} left to do" if mended else ""))


def _finding_lines(finding: _core.LogFinding) -> Iterator[str]:
    where = f" at byte {finding.position}" if finding.damaged_bytes or finding.position else ""
    yield f"{finding.path}: {finding.kind}{where}: {finding.what}"
    if finding.lost is not None:
        start, end = finding.lost
        yield f"    lost: offsets {start} to {end - 1}, at most"
    yield f"    {'mended' if finding.mended else 'to do'}: {finding.remedy}"


def _dump(parsed: argparse.Namespace) -> int:
    status = 0
    lines = _json_lines if parsed.json else _text_lines
    partitions = _partitions(parsed)
    sizes = {segment: segment.stat().st_size for one in partitions for segment in _segments(parsed.dir, *one)}
    progress, total, done = _Progress("dump"), sum(sizes.values()), 0
    try:
        for topic, partition in partitions:
            with closing(_core.LogDump(parsed.dir, topic, partition, start=parsed.start, end=parsed.end)) as dump:
                for batch in dump:
                    for shown in batch:
                        for each in lines(topic, partition, shown, parsed):
                            line(safe(each))
                        if isinstance(shown, _core.LogFinding):
                            status = REFUSED
                        else:
                            done += shown.nbytes
                    if not sys.stdout.isatty():  # on a terminal the lines themselves show how far it is
                        progress(done, total)
    finally:
        progress.clear()
    return status


def _segments(data_dir: Path, topic: str, partition: int) -> Iterator[Path]:
    return (data_dir / topic / f"partition-{partition}").glob("*.log")


def _partitions(parsed: argparse.Namespace) -> list[tuple[str, int]]:
    """The topics and partitions that were asked for, in order."""
    if parsed.topic is not None and parsed.partition is not None:
        return [(parsed.topic, parsed.partition)]
    found = []
    for folder in parsed.dir.glob("*/partition-*"):
        number = folder.name.removeprefix("partition-")
        if number.isdecimal() and not folder.parent.name.startswith("."):
            found.append((folder.parent.name, int(number)))
    wanted = [
        (topic, partition)
        for topic, partition in sorted(found)
        if parsed.topic in (None, topic) and parsed.partition in (None, partition)
    ]
    if not wanted:
        raise NotFoundError(f"{parsed.dir} has no partition that was asked for", code="partition.not_found")
    return wanted


def _json_lines(
    topic: str, partition: int, shown: _core.LogFrame | _core.LogFinding, parsed: argparse.Namespace
) -> Iterator[str]:
    if isinstance(shown, _core.LogFinding):
        yield json.dumps(_fields(shown, _FINDING_FIELDS))
        return
    frame = {"topic": topic, "partition": partition, **_fields(shown, _FRAME_FIELDS)}
    if not parsed.frames:
        frame["records"] = []
        for offset, timestamp_ns, key, value, value_bytes in shown.records(parsed.values):
            record = {
                "offset": offset,
                "timestamp_ns": timestamp_ns,
                "key": json_bytes(key),
                "value_bytes": value_bytes,
            }
            if parsed.values:
                record["value"] = json_bytes(value)
            frame["records"].append(record)
    yield json.dumps(frame)


def _text_lines(
    topic: str, partition: int, shown: _core.LogFrame | _core.LogFinding, parsed: argparse.Namespace
) -> Iterator[str]:
    if isinstance(shown, _core.LogFinding):
        yield from _finding_lines(shown)
        return
    last = shown.base_offset + shown.count - 1
    parts = [f"offsets {shown.base_offset} to {last}" if shown.count else f"no records, goes on at {shown.base_offset}"]
    if shown.skipped:
        parts.append(f"{shown.skipped} skipped before")
    if shown.producer_id:
        parts.append(f"producer {shown.producer_id:016x} sequence {shown.sequence}")
    where = f"{topic}/{partition} {Path(shown.segment).name} byte {shown.position}"
    yield f"{where}: {', '.join(parts)}, {shown.nbytes} bytes, appended {rfc3339(shown.append_ns)}"
    if parsed.frames:
        return
    for offset, timestamp_ns, key, value, value_bytes in shown.records(parsed.values):
        record = [f"  {offset}"]
        if timestamp_ns:
            record.append(rfc3339(timestamp_ns))
        if key is not None:
            record.append(f"key {safe_bytes(key)}")
        record.append(f"{value_bytes} bytes")
        if value is not None:
            record.append(safe_bytes(value))
        yield "  ".join(record)
