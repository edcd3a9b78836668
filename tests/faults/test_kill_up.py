"""kill -9 at any moment, then the same command again: each row is in the store exactly once."""

import random
import re
from pathlib import Path

import pyarrow.compute as pc
import pytest
from deltalake import DeltaTable

import telemetry_broker as tb
from tests.integration.service_processes import BrokerProcess, Service, dump, row

ROWS = 60_000


@pytest.fixture(scope="module")
def csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows that are all different, several blocks of them."""
    padding = "x" * 200
    rows = [
        row(number // 50, gpu=number % 50, value=number).replace('""', f'"note=""{padding}"""')
        for number in range(ROWS)
    ]
    rows = [line.replace("H100", f"H100 {padding}") for line in rows]
    return dump(rows, tmp_path_factory.mktemp("dump") / "dump.csv")


def values(store: Path) -> list[float]:
    """Every value in the store, sorted."""
    column = DeltaTable(str(store)).to_pyarrow_table(columns=["DCGM_FI_DEV_GPU_UTIL"])["DCGM_FI_DEV_GPU_UTIL"]
    return sorted(pc.drop_null(column).to_pylist())


@pytest.mark.timeout(240)
def test_up_killed_at_random_moments_stores_each_row_once(csv: Path, tmp_path: Path) -> None:
    chance = random.Random(7)
    data = tmp_path / "data"
    command = ("up", "--once", "--csv", csv, "--data", data, "--port", 0, "--grpc-port", 0)
    kills = 0
    while kills < 4:
        with Service(*command, "--rate", 40_000) as running:
            (grpc,) = running.wait_for(r"^gRPC (\S+)").groups()
            with tb.connect(f"grpc://{grpc}") as broker:
                before = _stored(broker)
                goal = before + chance.randrange(1, ROWS // 8)
                while running.process.poll() is None and _stored(broker) < min(goal, ROWS):
                    pass
            running.kill()
            kills += 1
    with Service(*command) as last:
        assert last.wait(120) == 0, last.output
        assert re.match(rf"stored {ROWS} samples of {ROWS} from 50 GPUs on 1 host", last.output.splitlines()[-1])
    assert values(data / "store") == [float(number) for number in range(ROWS)]


def _stored(broker: tb.Broker) -> int:
    try:
        return sum(state.end_offset for state in broker.describe_topic("telemetry").partitions)
    except tb.BrokerError:
        return 0


@pytest.mark.timeout(240)
def test_services_killed_one_by_one_store_each_row_once(csv: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    # What a killed collector had taken is free again when its leases end, not before.
    leases = {"VISIBILITY_TIMEOUT": "2s"}
    with BrokerProcess(tmp_path / "broker", environment=leases) as first:
        port = int(first.grpc.rpartition(":")[2])
        environment = {"BROKER_URL": first.url, "STORE": f"delta://{store}", "DATA_DIR": str(tmp_path / "d")}
        streamer = ("streamer", "--port", 0, "--csv", csv, "--rate", 20_000)
        collector = ("collector", "--port", 0, "--grpc-port", 0, "--collect-max-age", "100ms")
        with Service(*streamer, environment=environment) as one, Service(*collector, environment=environment) as two:
            two.wait_for("Processed message")
            one.kill()
            two.kill()
        with Service(*streamer, environment=environment) as one, Service(*collector, environment=environment) as two:
            two.wait_for("Processed message")
            first.kill()
            with BrokerProcess(tmp_path / "broker", grpc_port=port, environment=leases) as broker:
                assert one.wait(120) == 0, one.output
                with tb.connect(broker.url) as client:
                    while client.describe_group("telemetry", "telemetry_group").lag:
                        assert two.process.poll() is None, two.output
                assert two.stop() == 0
    assert values(store) == [float(number) for number in range(ROWS)]
