"""``topic``: what topics there are, and making, changing, emptying and deleting them."""

from __future__ import annotations

import argparse
from typing import Any, Final, get_args

from telemetry_broker.admin import Durability, FullPolicy, PartitionState, Topic, TopicConfig, TopicState
from telemetry_broker.broker import Broker
from telemetry_broker.cli import output, values
from telemetry_broker.cli.asking import add_yes_option, confirmed
from telemetry_broker.cli.connecting import add_broker_options, opened
from telemetry_broker.cli.output import age, duration, json_line, json_time, line, note, plural, size
from telemetry_broker.cli.parser import REFUSED, Command, Parser, Run, add_action
from telemetry_broker.errors import InvalidArgumentError, NotFoundError

_CONFIG_OPTIONS: Final = (
    "partitions",
    "durability",
    "retention",
    "retention_bytes",
    "max_partition_bytes",
    "full_policy",
    "segment_bytes",
    "max_attempts",
    "visibility_timeout",
)


def _add(topic: Parser) -> None:
    actions = topic.actions()

    def action(name: str, summary: str, run: Run, *, text: str = "", examples: tuple[str, ...] = ()) -> Parser:
        parser = add_action(actions, name, summary, run, text=text, examples=examples)
        if name != "list":
            parser.add_argument("topic", metavar="TOPIC", help="the topic")
        parser.add_argument("--json", action="store_true", help="JSON in place of a table")
        add_broker_options(parser)
        return parser

    action(
        "list",
        "list the topics, with how much is in them",
        _list,
        examples=("%(prog)s --broker grpc://127.0.0.1:9090", "%(prog)s --broker file:///var/lib/telemetry --json"),
    )
    create = action(
        "create",
        "make a topic, or leave one as it is that has this configuration",
        _create,
        text="What is not given has the broker's default.",
        examples=("%(prog)s telemetry --partitions 4", "%(prog)s alarms --durability fsync --retention 7d"),
    )
    _add_config(create)
    action(
        "describe",
        "show the configuration of a topic and the state of its partitions",
        _describe,
        text="RECORDS counts offsets from the oldest record kept to the newest, gaps included.",
    )
    configure = action(
        "configure",
        "change what is given of a topic's configuration",
        _configure,
        examples=("%(prog)s telemetry --retention 48h", "%(prog)s telemetry --partitions 8 --if-version 3"),
    )
    _add_config(configure)
    configure.add_argument(
        "--if-version", type=values.count, metavar="N", help="only if the configuration has this version"
    )
    add_yes_option(action("delete", "delete a topic with its records and groups, for good", _delete))
    purge = action("purge", "delete the records of a topic, for good; offsets go on", _purge)
    purge.add_argument(
        "--partition",
        dest="partitions",
        action="append",
        type=values.number,
        metavar="N",
        help="only of this partition; can be repeated",
    )
    add_yes_option(purge)


COMMAND: Final = Command("topic", "list, create, describe, configure, purge and delete topics", _add)


def _add_config(parser: Parser) -> None:
    options = parser.add_argument_group("configuration")
    options.add_argument("--partitions", type=values.number, metavar="N", help="1 to 4096; can only grow")
    options.add_argument(
        "--durability",
        choices=get_args(Durability),
        help="what a stored record survives: a clean stop, the broker's death, a power cut",
    )
    options.add_argument(
        "--retention",
        type=values.duration,
        metavar="DURATION",
        help="age at which acked records go, such as 48h; 0: none",
    )
    options.add_argument(
        "--retention-bytes", type=values.size, metavar="SIZE", help="size of a partition above which they go; 0: none"
    )
    options.add_argument(
        "--max-partition-bytes",
        type=values.size,
        metavar="SIZE",
        help="hard bound of a partition, such as 10GiB; 0: none",
    )
    options.add_argument("--full-policy", choices=get_args(FullPolicy), help="what happens at that bound")
    options.add_argument("--segment-bytes", type=values.size, metavar="SIZE", help="size of a log file, 1MiB to 1GiB")
    options.add_argument(
        "--max-attempts", type=values.number, metavar="N", help="deliveries before a record is a dead letter; 0: never"
    )
    options.add_argument(
        "--visibility-timeout",
        type=values.duration,
        metavar="DURATION",
        help="of a lease that asks for none, such as 30s",
    )


def _config(parsed: argparse.Namespace) -> dict[str, Any]:
    return {name: getattr(parsed, name) for name in _CONFIG_OPTIONS}


def _list(parsed: argparse.Namespace) -> int:
    with opened(parsed) as broker:
        states = [state for topic in broker.topics() if (state := _state(broker, topic.name)) is not None]
        if parsed.json:
            for state in states:
                json_line(_summary_object(state))
        elif states:
            output.table(
                ("TOPIC", ">PARTITIONS", ">RECORDS", ">SIZE", "DURABILITY", "RETENTION", ">LAST RECORD"),
                [
                    (
                        state.topic.name,
                        state.topic.config.partitions,
                        _records(state),
                        size(_bytes(state)),
                        state.topic.config.durability,
                        _retention(state.topic.config),
                        age(_last_append_ns(state)),
                    )
                    for state in states
                ],
            )
        else:
            note(f"{broker.url} has no topics; make one with `{parsed.prog} topic create NAME`")
    return 0


def _state(broker: Broker, name: str) -> TopicState | None:
    try:
        return broker.describe_topic(name)
    except NotFoundError:
        return None  # deleted since it was listed


def _create(parsed: argparse.Namespace) -> int:
    with opened(parsed, makes_folder=True) as broker:
        _tell(parsed, broker.create_topic(parsed.topic, **_config(parsed)))
    return 0


def _configure(parsed: argparse.Namespace) -> int:
    changes = _config(parsed)
    if all(value is None for value in changes.values()):
        options = ", ".join(f"--{name.replace('_', '-')}" for name in _CONFIG_OPTIONS)
        raise InvalidArgumentError(f"nothing of {parsed.topic} is to be changed: give one of {options}")
    with opened(parsed) as broker:
        _tell(parsed, broker.configure_topic(parsed.topic, if_version=parsed.if_version, **changes))
    return 0


def _tell(parsed: argparse.Namespace, topic: Topic) -> None:
    if parsed.json:
        json_line(_topic_object(topic))
        return
    config = topic.config
    line(
        f"{topic.name}: {plural(config.partitions, 'partition')}, durability {config.durability}, "
        f"retention {_retention(config)}, version {topic.config_version}"
    )


def _describe(parsed: argparse.Namespace) -> int:
    with opened(parsed) as broker:
        state = broker.describe_topic(parsed.topic)
    if parsed.json:
        json_line(_summary_object(state) | {"partition_states": [_partition_object(each) for each in state.partitions]})
        return 0
    config = state.topic.config
    bound = config.max_partition_bytes
    output.facts(
        (
            ("topic", state.topic.name),
            ("configuration", f"version {state.topic.config_version}"),
            ("durability", config.durability),
            ("retention", _retention(config)),
            ("partition bound", "none" if bound is None else f"{size(bound)}, then {config.full_policy}"),
            ("segments", size(config.segment_bytes)),
            ("max attempts", f"{config.max_attempts}" if config.max_attempts else "none"),
            ("visibility timeout", duration(config.visibility_timeout)),
        )
    )
    line("")
    has_brokers = any(each.broker for each in state.partitions)
    output.table(
        (">PARTITION", ">START", ">END", ">RECORDS", ">SYNCED", ">SIZE", ">LAST RECORD", *["BROKER"] * has_brokers),
        [
            (
                each.partition,
                each.start_offset,
                each.end_offset,
                each.end_offset - each.start_offset,
                each.synced_end_offset,
                size(each.bytes),
                age(each.last_append_time_ns),
                *[each.broker] * has_brokers,
            )
            for each in state.partitions
        ],
    )
    output.note_missing(state.missing_brokers)
    for each in state.partitions:
        for remark in _remarks(each):
            line(f"partition {each.partition}{f' at {each.broker}' * has_brokers}: {output.safe(remark)}")
    return 0


def _remarks(partition: PartitionState) -> list[str]:
    """What is out of the ordinary."""
    remarks = []
    if partition.poisoned:
        remarks.append(f"stopped by a failure, restart the broker: {partition.poisoned}")
    if partition.recovered_cut_bytes:
        remarks.append(f"{size(partition.recovered_cut_bytes)} of a torn tail were cut when the broker started")
    if partition.dropped_records:
        remarks.append(f"{plural(partition.dropped_records, 'record')} dropped at the partition's bound")
    if partition.forgotten_producers:
        remarks.append(f"{plural(partition.forgotten_producers, 'named producer')} forgotten before their time")
    return remarks


def _delete(parsed: argparse.Namespace) -> int:
    with opened(parsed) as broker:
        state = broker.describe_topic(parsed.topic)
        groups = broker.groups(parsed.topic)
        what = f"{plural(_records(state), 'record')} and {plural(len(groups), 'group')}"
        if not confirmed(parsed, f"Delete topic {parsed.topic} with {what}, for good?"):
            return REFUSED
        broker.delete_topic(parsed.topic)
    if parsed.json:
        json_line({"topic": parsed.topic, "deleted": True})
    else:
        line(f"deleted {parsed.topic}")
    return 0


def _purge(parsed: argparse.Namespace) -> int:
    chosen = frozenset(parsed.partitions or ())
    with opened(parsed) as broker:
        state = broker.describe_topic(parsed.topic)
        where = f" in {plural(len(chosen), 'partition')}" if chosen else ""
        count = sum(
            each.end_offset - each.start_offset for each in state.partitions if not chosen or each.partition in chosen
        )
        question = f"Delete the records of topic {parsed.topic}{where}, {count:,} at most, for good?"
        if not confirmed(parsed, question):
            return REFUSED
        purged = broker.purge_topic(parsed.topic, sorted(chosen))
    if parsed.json:
        json_line({"topic": parsed.topic, "purged": purged})
    else:
        line(f"purged {plural(purged, 'record')} of {parsed.topic}")
    return 0


def _records(state: TopicState) -> int:
    return sum(each.end_offset - each.start_offset for each in state.partitions)


def _bytes(state: TopicState) -> int:
    return sum(each.bytes for each in state.partitions)


def _last_append_ns(state: TopicState) -> int:
    return max((each.last_append_time_ns for each in state.partitions), default=0)


def _retention(config: TopicConfig) -> str:
    bounds = []
    if config.retention:
        bounds.append(duration(config.retention))
    if config.retention_bytes:
        bounds.append(size(config.retention_bytes))
    return ", ".join(bounds) or "none"


def _topic_object(topic: Topic) -> dict[str, Any]:
    config = topic.config
    return {
        "topic": topic.name,
        "config_version": topic.config_version,
        "partitions": config.partitions,
        "durability": config.durability,
        "retention_seconds": config.retention,
        "retention_bytes": config.retention_bytes,
        "max_partition_bytes": config.max_partition_bytes,
        "full_policy": config.full_policy,
        "segment_bytes": config.segment_bytes,
        "max_attempts": config.max_attempts,
        "visibility_timeout_seconds": config.visibility_timeout,
    }


def _summary_object(state: TopicState) -> dict[str, Any]:
    return _topic_object(state.topic) | {
        "records": _records(state),
        "bytes": _bytes(state),
        "last_append_time": json_time(_last_append_ns(state)),
    }


def _partition_object(partition: PartitionState) -> dict[str, Any]:
    return {
        "partition": partition.partition,
        "log_id": partition.log_id.hex(),
        "start_offset": partition.start_offset,
        "end_offset": partition.end_offset,
        "synced_end_offset": partition.synced_end_offset,
        "bytes": partition.bytes,
        "last_append_time": json_time(partition.last_append_time_ns),
        "poisoned": partition.poisoned,
        "recovered_cut_bytes": partition.recovered_cut_bytes,
        "dropped_records": partition.dropped_records,
        "forgotten_producers": partition.forgotten_producers,
    } | ({"broker": partition.broker} if partition.broker else {})
