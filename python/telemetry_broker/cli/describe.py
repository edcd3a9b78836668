"""``describe``: the broker itself."""

from __future__ import annotations

import argparse
from typing import Final

from telemetry_broker.admin import Member
from telemetry_broker.cli import output
from telemetry_broker.cli.connecting import add_broker_options, opened
from telemetry_broker.cli.output import age, json_line, json_time, size
from telemetry_broker.cli.parser import Command, Parser, describe

_SUMMARY: Final = "show the broker itself: version, folder, disk"


def _add(parser: Parser) -> None:
    describe(parser, _SUMMARY, _run, examples=("%(prog)s --broker grpc://127.0.0.1:9090",))
    parser.add_argument("--json", action="store_true", help="one JSON object")
    add_broker_options(parser)


COMMAND: Final = Command("describe", _SUMMARY, _add)


def _run(parsed: argparse.Namespace) -> int:
    with opened(parsed) as broker:
        state = broker.describe()
        topics = len(broker.topics())
    if parsed.json:
        json_line(
            {
                "broker_id": state.broker_id.hex(),
                "version": state.version,
                "started": json_time(state.started_ns),
                "data_dir": state.data_dir,
                "free_bytes": state.free_bytes,
                "min_free_bytes": state.min_free_bytes,
                "draining": state.draining,
                "name": state.name,
                "members": [
                    {
                        "name": member.name,
                        "address": member.address,
                        "healthy": member.healthy,
                        "draining": member.draining,
                        "broker_id": member.broker_id.hex(),
                        "version": member.version,
                        "error": member.error,
                    }
                    for member in state.members
                ],
                "topics": topics,
                "partitions": state.partitions,
            }
        )
        return 0
    output.facts(
        (
            ("broker", f"{state.name} {state.broker_id.hex()} at {broker.url}".strip()),
            ("version", state.version),
            ("started", age(state.started_ns)),
            ("folder", state.data_dir),
            ("free", f"{size(state.free_bytes)}; producing stops below {size(state.min_free_bytes)}"),
            ("takes records", "no, it is draining" if state.draining else "yes"),
            ("topics", f"{topics:,} with {state.partitions:,} partitions"),
        )
    )
    if state.is_many:
        output.line("")
        output.table(
            ("BROKER", "ADDRESS", "STATE", "ID", "VERSION"),
            [
                (each.name, each.address, _state(each), each.broker_id.hex() or "-", each.version or "-")
                for each in state.members
            ],
        )
    return 0


def _state(member: Member) -> str:
    if not member.healthy:
        return f"away: {member.error}" if member.error else "away"
    return "draining" if member.draining else "healthy"
