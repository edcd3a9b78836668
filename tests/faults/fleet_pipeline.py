"""A simulated fleet through a broker into a Delta table, and what is in the topic and the table by then."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deltalake import DeltaTable

import telemetry_broker as tb
from telemetry_services.store.delta import DeltaStore
from tests.integration.cli_runs import Cli
from tests.integration.service_processes import BrokerProcess

# What a collector that died had taken is free again when its leases end, not before.
LEASES = {"VISIBILITY_TIMEOUT": "2s"}
POWER = "DCGM_FI_DEV_POWER_USAGE"

Row = tuple[int, str, float]
"""A GPU's power at a time."""


def collector_command(broker: BrokerProcess, store: Path, data: Path) -> list[str]:
    """Of one that commits often."""
    return [
        *("collector", "--port", "0", "--grpc-port", "0", "--data", str(data)),
        *("--broker-url", broker.url, "--store", f"delta://{store}", "--collect-max-age", "20ms"),
    ]


@contextmanager
def simulated_fleet(broker: BrokerProcess, patience: float) -> Iterator[list[int]]:
    """Sends small batches inside the block; afterwards the list has the number of records that were stored."""
    sent: list[int] = []
    command = ("simulate", "--hosts", "1", "--interval", "20ms", "--json")
    with Cli(broker.url).begin(*command, patience=patience) as running:
        running.error_line()
        yield sent
        running.interrupt()
        _, printed, _ = running.end()
    sent.append(json.loads(printed)["records"])


def acked_ends(client: tb.Broker) -> dict[str, int]:
    """Per log, the offset below which everything is acked; nothing before there is a group."""
    try:
        group = client.describe_group("telemetry", "telemetry_group")
    except tb.NotFoundError:
        return {}
    return {partition.log_id.hex(): partition.acked_end_offset for partition in group.partitions}


def positions(store: Path, logs: dict[str, int]) -> dict[str, int]:
    """Per log, the offset below which everything is in the table."""
    if not store.exists():
        return {}
    opened = DeltaStore(store)
    try:
        return dict(opened.positions(list(logs)))
    finally:
        opened.close()


def rows(store: Path) -> list[Row]:
    """What the table has, sorted."""
    if not store.exists():
        return []
    table = DeltaTable(str(store)).to_pyarrow_table()
    if POWER not in table.column_names:
        return []
    times = (table["time"].cast("int64").to_pylist(), table["nanos"].to_pylist())
    times_ns = [micros * 1000 + (nanos or 0) for micros, nanos in zip(*times, strict=True)]
    return sorted(zip(times_ns, table["uuid"].to_pylist(), table[POWER].to_pylist(), strict=True))


def in_topic(client: tb.Broker) -> list[Row]:
    """What the topic has, sorted."""
    found: list[Row] = []
    for partition in range(len(client.describe_topic("telemetry").partitions)):
        page = client.read("telemetry", partition)
        while page:
            for value in page.values:
                series, fields, time_ns = value.decode().replace("\\ ", "_").split(" ")
                power = dict(pair.split("=") for pair in fields.split(","))[POWER]
                found.append((int(time_ns), series.rpartition("uuid=")[2], float(power)))
            page = client.read("telemetry", partition, page.next)
    return sorted(found)
