"""``dlq``: what the groups of a topic gave up, and putting it back."""

from __future__ import annotations

import argparse
from itertools import chain
from typing import Any, Final

from telemetry_broker.admin import DeadLetter
from telemetry_broker.cli import output, values
from telemetry_broker.cli.connecting import add_broker_options, opened
from telemetry_broker.cli.output import age, json_bytes, json_line, json_time, line, note, plural, safe_bytes
from telemetry_broker.cli.parser import Command, Parser, Run, add_action
from telemetry_broker.errors import InvalidArgumentError

_SUFFIX: Final = ".dlq"
_PAGE: Final = 1000
_WIDTH: Final = 60


def _add(dlq: Parser) -> None:
    actions = dlq.actions()

    def action(name: str, summary: str, run: Run, *, text: str, examples: tuple[str, ...]) -> Parser:
        parser = add_action(actions, name, summary, run, text=text, examples=examples)
        parser.add_argument("topic", metavar="TOPIC", type=_source, help="the topic they come from")
        parser.add_argument("--partition", type=values.number, metavar="N", help="only of this partition")
        parser.add_argument("--group", metavar="GROUP", help="only what this group gave up")
        parser.add_argument("--json", action="store_true", help="JSON in place of a table")
        add_broker_options(parser)
        return parser

    listing = action(
        "list",
        "list the dead letters of a topic, with the reason",
        _list,
        text="Nothing is changed, and nothing is leased.",
        examples=("%(prog)s telemetry --broker grpc://127.0.0.1:9090", "%(prog)s telemetry --group collector --json"),
    )
    listing.add_argument(
        "--max-records", type=values.count, default=100, metavar="N", help="so many at most; default %(default)s"
    )
    redrive = action(
        "redrive",
        "put dead letters back to the end of their topic, for every group",
        _redrive,
        text="Mend first what made them dead letters. Without --partition, --group and --offset, all are put back.",
        examples=("%(prog)s telemetry --group collector", "%(prog)s telemetry --partition 0 --offset 7 --offset 9-12"),
    )
    redrive.add_argument(
        "--offset",
        dest="offsets",
        action="append",
        type=values.offsets,
        metavar="N[-M]",
        help="only these, as `list` shows them; can be repeated; needs --partition",
    )


COMMAND: Final = Command("dlq", "list and redrive dead letters", _add)


def _source(topic: str) -> str:
    # The broker wants the topic they come from; a dead-letter topic has none of its own, so who names it means this.
    return topic.removesuffix(_SUFFIX) or topic


def _list(parsed: argparse.Namespace) -> int:
    rows: list[tuple[str | int, ...]] = []
    shown = 0
    start: tuple[int, int, str] | None = None
    with opened(parsed) as broker:
        while True:
            page = broker.dead_letters(
                parsed.topic,
                partition=parsed.partition,
                group=parsed.group,
                start=start,
                max_records=min(_PAGE, parsed.max_records - shown),
            )
            shown += len(page)
            for letter in page:
                if parsed.json:
                    json_line(_letter_object(parsed.topic, letter))
                else:
                    rows.append(_row(letter))
            start = page.next
            if start is None or shown >= parsed.max_records:
                break
    if rows:
        output.table((">PARTITION", ">OFFSET", "GROUP", ">ATTEMPTS", ">GIVEN UP", "REASON", "VALUE"), rows)
    if not parsed.json:
        some = f"{shown:,} of " if shown != page.total else ""
        note(f"{some}{plural(page.total, 'dead letter')} in {parsed.topic}")
    return 0


def _row(letter: DeadLetter) -> tuple[str | int, ...]:
    return (
        letter.partition,
        letter.offset,
        letter.group,
        letter.attempts,
        age(letter.time_ns),
        _shortened(letter.reason.encode()),
        _shortened(letter.value),
    )


def _shortened(value: bytes) -> str:
    text = safe_bytes(value[: 4 * _WIDTH])
    return text if len(text) <= _WIDTH and len(value) <= 4 * _WIDTH else f"{text[:_WIDTH]}..."


def _redrive(parsed: argparse.Namespace) -> int:
    if parsed.offsets and parsed.partition is None:
        raise InvalidArgumentError("an offset is a place in one partition: add --partition N to --offset")
    offsets = None if parsed.offsets is None else chain.from_iterable(parsed.offsets)
    with opened(parsed) as broker:
        redriven = broker.redrive(parsed.topic, partition=parsed.partition, group=parsed.group, offsets=offsets)
    if parsed.json:
        json_line({"topic": parsed.topic, "redriven": redriven})
    else:
        line(f"redriven {plural(redriven, 'record')} of {parsed.topic}")
    return 0


def _letter_object(topic: str, letter: DeadLetter) -> dict[str, Any]:
    return {
        "topic": topic,
        "partition": letter.partition,
        "offset": letter.offset,
        "group": letter.group,
        "reason": letter.reason,
        "attempts": letter.attempts,
        "time": json_time(letter.time_ns),
        "origin_log_id": letter.origin_log_id.hex(),
        "origin_offset": letter.origin_offset,
        "timestamp": json_time(letter.timestamp_ns),
        "key": json_bytes(letter.key),
        "value": json_bytes(letter.value),
        "headers": {name: json_bytes(content) for name, content in letter.headers.items()},
    }
