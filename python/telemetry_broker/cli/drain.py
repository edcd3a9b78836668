"""``drain``: letting a broker run empty, so that it can be taken away."""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from typing import Final

from telemetry_broker.broker import Broker
from telemetry_broker.cli import output
from telemetry_broker.cli.connecting import add_broker_options, broker_url, opened
from telemetry_broker.cli.output import json_line, note, plural
from telemetry_broker.cli.parser import REFUSED, Command, Parser, describe
from telemetry_broker.errors import InvalidArgumentError, NotFoundError

_SUMMARY: Final = "let a broker take no new records, and run empty"
_LOOK_SECONDS: Final = 1.0
_REDRIVE_SUFFIX: Final = ".dlq"


@dataclass(frozen=True, slots=True)
class _Left:
    """What a group, or nobody, still has to take from a topic of the broker.

    Attributes:
        group: empty: no group reads the topic.
        is_waited_for: somebody may take it; dead letters, and topics without a group, are for a person.
    """

    topic: str
    group: str
    records: int
    in_flight: int
    is_waited_for: bool


def _add(parser: Parser) -> None:
    describe(
        parser,
        _SUMMARY,
        _run,
        text="Producers go on at the other brokers; what this one has is consumed and acked as before. Once it is\n"
        "empty it can be taken away without a loss. Dead letters, and topics that no group reads, stay in its folder:\n"
        "they are told, and the exit status is 1.",
        examples=(
            "%(prog)s msg-queue-2 --wait --broker grpc://proxy:9090",
            "%(prog)s --undo --broker grpc://127.0.0.1:9090",
        ),
    )
    parser.add_argument("name", metavar="NAME", nargs="?", default="", help="behind a proxy, which broker")
    parser.add_argument("--wait", action="store_true", help="end when every group has acked what it has")
    parser.add_argument("--undo", action="store_true", help="let it take records again")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--url", dest="broker", metavar="URL", help="the same as --broker")
    add_broker_options(parser)


COMMAND: Final = Command("drain", _SUMMARY, _add)


def _run(parsed: argparse.Namespace) -> int:
    if parsed.wait and parsed.undo:
        raise InvalidArgumentError("--wait waits for an empty broker, and --undo fills it again: leave one of them out")
    url = broker_url(parsed)
    if url.startswith("file:"):
        raise InvalidArgumentError(
            f"{url}: no broker has the folder open, so there is none to drain; give the grpc:// URL of one that runs",
            code="invalid.url",
        )
    with opened(parsed) as broker:
        name = _name(broker, parsed.name)
        broker.drain(parsed.name, undo=parsed.undo)
        if parsed.undo:
            _tell(parsed, name, [], draining=False)
            return 0
        left = _left(broker, parsed.name)
        told = -1
        while parsed.wait and (waiting := sum(each.records for each in left if each.is_waited_for)):
            if waiting != told:
                note(f"{name}: {plural(waiting, 'record')} to be acked, {_groups(left)}")
                told = waiting
            time.sleep(_LOOK_SECONDS)
            left = _left(broker, parsed.name)
    _tell(parsed, name, left, draining=True)
    return REFUSED if parsed.wait and left else 0


def _name(broker: Broker, given: str) -> str:
    """What the broker is called in what is told.

    Raises:
        InvalidArgumentError: it is one of several, and which one was not said.
    """
    state = broker.describe()
    if state.is_many and not given:
        names = ", ".join(member.name for member in state.members)
        raise InvalidArgumentError(f"{broker.url} has several brokers: say which one, of {names}")
    return given or state.name or "the broker"


def _left(broker: Broker, name: str) -> list[_Left]:
    """What the broker has that is not acked.

    Args:
        name: behind a proxy, of which broker; empty: of the one that is connected to.
    """
    left: list[_Left] = []
    for topic in broker.topics():
        try:
            groups = broker.groups(topic.name)
            states = [broker.describe_group(topic.name, group.name) for group in groups]
            if not groups:
                partitions = [each for each in broker.describe_topic(topic.name).partitions if each.broker == name]
                records = sum(each.end_offset - each.start_offset for each in partitions)
                left.append(_Left(topic.name, "", records, 0, is_waited_for=False))
        except NotFoundError:  # deleted meanwhile
            continue
        is_waited_for = not topic.name.endswith(_REDRIVE_SUFFIX)
        for state in states:
            own = [each for each in state.partitions if each.broker == name]
            records, in_flight = sum(each.lag for each in own), sum(each.in_flight for each in own)
            left.append(_Left(topic.name, state.group.name, records, in_flight, is_waited_for))
    return [each for each in left if each.records]


def _groups(left: list[_Left]) -> str:
    waiting = [f"{each.topic} by {each.group}" for each in left if each.is_waited_for]
    return f"of {waiting[0]}" + (f" and {len(waiting) - 1:,} more" if len(waiting) > 1 else "")


def _tell(parsed: argparse.Namespace, name: str, left: list[_Left], *, draining: bool) -> None:
    if parsed.json:
        shown = [
            {"topic": each.topic, "group": each.group or None, "records": each.records, "in_flight": each.in_flight}
            for each in left
        ]
        json_line({"broker": name, "draining": draining, "left": shown})
        return
    output.line(f"{name} {'takes no new records' if draining else 'takes records'}")
    if left:
        output.line("")
        output.table(
            ("TOPIC", "GROUP", ">RECORDS", ">IN FLIGHT"),
            [(each.topic, each.group or "(none reads it)", each.records, each.in_flight) for each in left],
        )
    elif draining:
        output.line("it is empty")
