"""`telemetry up --brokers`: its processes end with it, and are started again when they die."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

import httpx
import pytest
from deltalake import DeltaTable

import telemetry_broker as tb
from tests.integration.service_processes import Service, dump, row

PATIENCE = 60.0


def up(data: Path, *arguments: object) -> Service:
    return Service("up", "--data", data, "--port", 0, "--grpc-port", 0, "--brokers", 2, "--proxies", 2, *arguments)


def children(pid: int) -> dict[str, int]:
    """The services that a process runs, by name."""
    found: dict[str, int] = {}
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        words = Path(f"/proc/{child}/cmdline").read_text().split("\0")
        if "--brokers" in words:
            found[f"proxy {child}"] = int(child)
        elif "--broker-index" in words:
            found[f"broker {words[words.index('--broker-index') + 1]}"] = int(child)
    return found


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def wait_until_gone(pids: list[int]) -> None:
    end = time.monotonic() + PATIENCE
    while any(map(is_running, pids)):
        assert time.monotonic() < end, "a child outlived its parent"


@pytest.mark.timeout(240)
def test_the_dump_goes_through_all_of_it_and_a_second_run_adds_nothing(tmp_path: Path) -> None:
    with up(tmp_path, "--once") as first:
        assert first.wait(PATIENCE) == 0, first.output
        assert len(re.findall(r"^proxy http://\S+  gRPC \S+$", first.output, re.MULTILINE)) == 2
        assert first.output.splitlines()[-1].startswith("stored 2470 samples of 2470 from 247 GPUs on 31 hosts")
    assert {path.name for path in tmp_path.glob("broker-*")} == {"broker-0", "broker-1"}
    with up(tmp_path, "--once") as second:
        assert second.wait(PATIENCE) == 0, second.output
        assert "already stored" in second.output.splitlines()


@pytest.mark.timeout(240)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_children_end_with_their_parent_however_that_ends(tmp_path: Path, number: int) -> None:
    with up(tmp_path, "--no-csv") as running:
        running.wait_for(r"^collector gRPC ", PATIENCE)
        pids = list(children(running.process.pid).values())
        assert len(pids) == 4
        os.kill(running.process.pid, number)
        assert running.wait(PATIENCE) == (-number if number == signal.SIGKILL else 0)
        wait_until_gone(pids)


@pytest.mark.timeout(240)
def test_a_child_that_dies_is_started_again_at_its_address(tmp_path: Path) -> None:
    with up(tmp_path, "--no-csv") as running:
        (proxy,) = running.wait_for(r"^proxy http://(\S+)", PATIENCE).groups()
        running.wait_for(r"^collector gRPC ")
        before = children(running.process.pid)
        os.kill(before["broker 1"], signal.SIGKILL)
        running.wait_for(r"broker-1 ended \(signal 9\), and is started again")
        running.wait_for(r"broker-1 is there again", PATIENCE)
        for pid in [pid for name, pid in before.items() if name.startswith("proxy")]:
            os.kill(pid, signal.SIGKILL)
        for name in ("proxy-0", "proxy-1"):
            running.wait_for(rf"{name} is there again", PATIENCE)
        end = time.monotonic() + PATIENCE
        while httpx.get(f"http://{proxy}/health").json()["brokers_healthy"] < 2:
            assert time.monotonic() < end
        answer = httpx.post(f"http://{proxy}/produce?topic=telemetry", content="gpu,uuid=GPU-1 U=1", timeout=20)
        assert answer.status_code == 200, answer.text
        assert running.stop() == 0


@pytest.mark.timeout(240)
def test_a_broker_killed_in_the_middle_of_a_dump_costs_no_row_and_none_is_stored_twice(tmp_path: Path) -> None:
    rows = 60_000
    lines = (row(number // 50, gpu=number % 50, value=number) for number in range(rows))
    csv = dump(list(lines), tmp_path / "dump.csv")
    with up(tmp_path / "data", "--once", "--csv", csv, "--rate", 15_000) as running:
        (grpc,) = running.wait_for(r"^proxy \S+  gRPC (\S+)", PATIENCE).groups()
        with tb.connect(f"grpc://{grpc}") as broker:
            while sum(each.end_offset for each in broker.describe_topic("telemetry").partitions) < rows // 4:
                assert running.process.poll() is None, running.output
        os.kill(children(running.process.pid)["broker 1"], signal.SIGKILL)
        assert running.wait(PATIENCE * 2) == 0, running.output
        assert "broker-1 is there again" in running.output
        assert running.output.splitlines()[-1].startswith(f"stored {rows} samples of {rows} from 50 GPUs")
    column = DeltaTable(str(tmp_path / "data" / "store")).to_pyarrow_table(columns=["DCGM_FI_DEV_GPU_UTIL"])[0]
    assert sorted(column.drop_null().to_pylist()) == [float(number) for number in range(rows)]
