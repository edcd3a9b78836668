"""The store's disk fills up under the collector: it waits, and goes on by itself once there is room."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from pyarrow import parquet

import telemetry_broker as tb
from tests.conftest import require_tool
from tests.faults.fleet_pipeline import (
    LEASES,
    acked_ends,
    collector_command,
    in_topic,
    positions,
    rows,
    simulated_fleet,
)
from tests.integration.service_processes import BrokerProcess, Service

PATIENCE = 120.0
STORED = "Processed message"
REFUSED = "store.full"


@pytest.fixture
def full_disk(tmp_path: Path) -> dict[str, str]:
    """What a process with a disk for `tmp_path/store` gets; it is full while `tmp_path/full` exists."""
    compiler = require_tool("cc", "apt-get install -y gcc libc6-dev")
    library, source = tmp_path / "full_disk.so", Path(__file__).with_name("full_disk.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return {"LD_PRELOAD": str(library), "FULL_DISK": str(tmp_path / "full"), "FULL_DISK_ROOT": str(tmp_path / "store")}


def more(text: str, times: int) -> Callable[[str], bool]:
    """Whether it was printed more often than that."""
    return lambda printed: printed.count(text) > times


@pytest.mark.timeout(240)
def test_a_full_disk_is_waited_for_and_costs_no_record(full_disk: dict[str, str], tmp_path: Path) -> None:
    store, full = tmp_path / "store", tmp_path / "full"
    with BrokerProcess(tmp_path / "broker", environment=LEASES) as broker, tb.connect(broker.url) as client:
        command = collector_command(broker, store, tmp_path / "collector")
        with simulated_fleet(broker, PATIENCE) as sent, Service(*command, environment=full_disk) as collector:
            for times in (1, 2, 3):
                collector.wait_until(more(STORED, times))
                refused = collector.output.count(REFUSED)
                full.touch()
                collector.wait_until(more(REFUSED, refused + 1))
                acked = acked_ends(client)
                held = positions(store, acked)
                assert all(held.get(log_id, 0) >= end for log_id, end in acked.items()), (acked, held)
                assert len(rows(store)) == len(set(rows(store))) == sum(held.values())
                assert collector.process.poll() is None, collector.output
                full.unlink()
            collector.wait_until(more(STORED, collector.output.count(STORED)))
        with Service(*command) as last:
            while client.describe_group("telemetry", "telemetry_group").lag:
                assert last.process.poll() is None, last.output
            assert last.stop() == 0
        records = in_topic(client)
    assert len(records) == sent[0]
    assert rows(store) == records
    for file in store.rglob("*.parquet"):
        parquet.read_metadata(file)  # half a file is not left behind
