"""``group``: how far the consumer groups of a topic are, and moving and deleting them."""

from __future__ import annotations

import argparse
from typing import Any, Final, get_args

from telemetry_broker.admin import GroupPartition, GroupState, Mode
from telemetry_broker.broker import Broker
from telemetry_broker.cli import output, values
from telemetry_broker.cli.asking import add_yes_option, confirmed
from telemetry_broker.cli.connecting import add_broker_options, opened
from telemetry_broker.cli.output import json_line, line, note, plural
from telemetry_broker.cli.parser import REFUSED, Command, Parser, Run, add_action
from telemetry_broker.errors import NotFoundError
from telemetry_broker.positions import START


def _add(group: Parser) -> None:
    actions = group.actions()

    def action(name: str, summary: str, run: Run, *, text: str = "", examples: tuple[str, ...] = ()) -> Parser:
        parser = add_action(actions, name, summary, run, text=text, examples=examples)
        parser.add_argument("topic", metavar="TOPIC", help="the topic")
        if name != "list":
            parser.add_argument("group", metavar="GROUP", help="the consumer group")
        parser.add_argument("--json", action="store_true", help="JSON in place of a table")
        add_broker_options(parser)
        return parser

    action(
        "list",
        "list the groups of a topic, with how far they are behind",
        _list,
        examples=("%(prog)s telemetry --broker grpc://127.0.0.1:9090",),
    )
    create = action(
        "create",
        "make a group before its first consumer does, or leave one of this mode as it is",
        _create,
        examples=("%(prog)s telemetry store --mode ordered --from end",),
    )
    create.add_argument(
        "--mode",
        choices=get_args(Mode),
        default="shared",
        help="shared (default): any consumer gets any record; ordered: one at a time has a partition, in order",
    )
    create.add_argument(
        "--from", dest="start", type=values.position, default=START, metavar="POSITION", help=values.POSITIONS
    )
    action("describe", "show where a group is in each partition", _describe, text=_COLUMNS)
    seek = action(
        "seek",
        "move a group, forwards or back; its leases there end",
        _seek,
        text="What its consumers have in their hands cannot be acked any more.",
        examples=("%(prog)s telemetry collector --to start", "%(prog)s telemetry collector --to 10m --partition 0"),
    )
    seek.add_argument(
        "--to", required=True, type=values.position, metavar="POSITION", help=f"where it goes on: {values.POSITIONS}"
    )
    seek.add_argument(
        "--partition",
        dest="partitions",
        action="append",
        type=values.number,
        metavar="N",
        help="only in this partition; can be repeated",
    )
    add_yes_option(action("delete", "delete a group with all that it had acked", _delete))


_COLUMNS: Final = """ACKED: all below is acked. NEXT: all from there on was never given out. LAG: records not acked yet,
leased (IN FLIGHT) or not. HOLDER: the consumer of an ordered group that has the partition."""

COMMAND: Final = Command("group", "list, create, describe, seek and delete consumer groups", _add)


def _list(parsed: argparse.Namespace) -> int:
    with opened(parsed) as broker:
        groups = broker.groups(parsed.topic)
        states = [state for group in groups if (state := _state(broker, parsed.topic, group.name)) is not None]
    if parsed.json:
        for state in states:
            json_line(_summary_object(parsed.topic, state))
    elif states:
        output.table(
            ("GROUP", "MODE", ">LAG", ">IN FLIGHT", ">REDELIVERED"),
            [
                (
                    state.group.name,
                    state.group.mode,
                    state.lag,
                    sum(each.in_flight for each in state.partitions),
                    sum(each.redelivered for each in state.partitions),
                )
                for state in states
            ],
        )
    else:
        note(f"{parsed.topic} has no groups; its first consumer makes one")
    return 0


def _state(broker: Broker, topic: str, group: str) -> GroupState | None:
    try:
        return broker.describe_group(topic, group)
    except NotFoundError:
        return None  # deleted since it was listed


def _create(parsed: argparse.Namespace) -> int:
    with opened(parsed) as broker:
        group = broker.create_group(parsed.topic, parsed.group, parsed.mode, parsed.start)
    if parsed.json:
        json_line({"topic": parsed.topic, "group": group.name, "mode": group.mode})
    else:
        line(f"{group.name}: a group of {parsed.topic}, {group.mode}")
    return 0


def _describe(parsed: argparse.Namespace) -> int:
    with opened(parsed) as broker:
        state = broker.describe_group(parsed.topic, parsed.group)
    if parsed.json:
        json_line(_state_object(parsed.topic, state))
        return 0
    output.facts(
        (("group", state.group.name), ("topic", parsed.topic), ("mode", state.group.mode), ("lag", f"{state.lag:,}"))
    )
    line("")
    _show(state.partitions)
    output.note_missing(state.missing_brokers)
    for each in state.partitions:
        if each.journal_bad_bytes:
            line(
                f"partition {each.partition}: {output.size(each.journal_bad_bytes)} of its acks could not be read when "
                "the broker started; those records are given out again"
            )
    return 0


def _seek(parsed: argparse.Namespace) -> int:
    with opened(parsed) as broker:
        moved = broker.seek(parsed.topic, parsed.group, parsed.to, parsed.partitions or ())
    if parsed.json:
        partitions = [_partition_object(each) for each in moved]
        json_line({"topic": parsed.topic, "group": parsed.group, "partitions": partitions})
    else:
        _show(moved)
    return 0


def _delete(parsed: argparse.Namespace) -> int:
    with opened(parsed) as broker:
        state = broker.describe_group(parsed.topic, parsed.group)
        what = f"{plural(state.lag, 'record')} of its topic not acked"
        if not confirmed(parsed, f"Delete group {parsed.group} of {parsed.topic}, with {what}?"):
            return REFUSED
        broker.delete_group(parsed.topic, parsed.group)
    if parsed.json:
        json_line({"topic": parsed.topic, "group": parsed.group, "deleted": True})
    else:
        line(f"deleted {parsed.group} of {parsed.topic}")
    return 0


def _show(partitions: tuple[GroupPartition, ...]) -> None:
    has_brokers = any(each.broker for each in partitions)
    columns = (">PARTITION", ">ACKED", ">NEXT", ">LAG", ">IN FLIGHT", ">LEASES", ">REDELIVERED", "HOLDER")
    output.table(
        (*columns, *["BROKER"] * has_brokers),
        [
            (
                each.partition,
                each.acked_end_offset,
                each.next_offset,
                each.lag,
                each.in_flight,
                each.leases,
                each.redelivered,
                each.holder,
                *[each.broker] * has_brokers,
            )
            for each in partitions
        ],
    )


def _summary_object(topic: str, state: GroupState) -> dict[str, Any]:
    return {
        "topic": topic,
        "group": state.group.name,
        "mode": state.group.mode,
        "lag": state.lag,
        "in_flight": sum(each.in_flight for each in state.partitions),
        "redelivered": sum(each.redelivered for each in state.partitions),
    }


def _state_object(topic: str, state: GroupState) -> dict[str, Any]:
    return _summary_object(topic, state) | {"partitions": [_partition_object(each) for each in state.partitions]}


def _partition_object(partition: GroupPartition) -> dict[str, Any]:
    return {
        "partition": partition.partition,
        "log_id": partition.log_id.hex(),
        "acked_end_offset": partition.acked_end_offset,
        "next_offset": partition.next_offset,
        "lag": partition.lag,
        "in_flight": partition.in_flight,
        "leases": partition.leases,
        "holder": partition.holder,
        "redelivered": partition.redelivered,
        "journal_bad_bytes": partition.journal_bad_bytes,
    } | ({"broker": partition.broker} if partition.broker else {})
