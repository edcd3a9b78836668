"""A collector loses power, again and again: what was acked is in the table, and each record is there once."""

import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import telemetry_broker as tb
from tests.faults import power_loss
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

LIVES = 8
PATIENCE = 60.0


@pytest.mark.timeout(300)
def test_what_was_acked_survives_every_power_loss_and_each_record_is_there_once(tmp_path: Path) -> None:
    chance = random.Random(11)
    disk, kept, store = tmp_path / "disk", tmp_path / "kept", tmp_path / "disk" / "store"
    disk.mkdir()
    with BrokerProcess(tmp_path / "broker", environment=LEASES) as broker, tb.connect(broker.url) as client:
        command = collector_command(broker, store, tmp_path / "collector")
        acked_once = False
        with simulated_fleet(broker, LIVES * PATIENCE) as sent:
            for _ in range(LIVES):
                live_until_the_power_goes(disk, kept, chance.randrange(1, 50), command)
                power_loss.restore(disk, kept)
                acked = acked_ends(client)
                held = positions(store, acked)
                assert all(held.get(log_id, 0) >= end for log_id, end in acked.items()), (acked, held)
                assert len(rows(store)) == len(set(rows(store))) == sum(held.values())
                acked_once = acked_once or any(acked.values())
        assert acked_once, "the lives were too short"
        with Service(*command) as last:
            while client.describe_group("telemetry", "telemetry_group").lag:
                assert last.process.poll() is None, last.output
            assert last.stop() == 0
        records = in_topic(client)
    assert len(records) == sent[0]
    assert rows(store) == records


def live_until_the_power_goes(folder: Path, kept: Path, crash_at: int, command: list[str]) -> None:
    program = [sys.executable, power_loss.__file__, str(folder), str(kept), str(crash_at), *command]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == -signal.SIGKILL, output
