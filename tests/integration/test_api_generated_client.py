"""A client that openapi-python-client makes of the API's document: its functions give what the API has, as types."""

import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import require_tool
from tests.integration.up_process import KEY, UTIL, Up, line, running_up, send, wait_for_gpus

NAME = "generated_fleet_client"
GPUS = 4
SECOND = int(time.time())

Call = Callable[..., Any]


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    with running_up(tmp_path_factory.mktemp("up")) as up:
        send(up.grpc, [line(gpu, 10 * gpu, SECOND * 1_000_000_000 + 1) for gpu in range(GPUS)])
        wait_for_gpus(up, GPUS)
        yield up


@pytest.fixture(scope="module")
def document(up: Up) -> dict[str, Any]:
    with up.client() as client:
        found: dict[str, Any] = client.get("/swagger/openapi.json").json()
        return found


@pytest.fixture(scope="module")
def generated(document: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the package is, which can be imported."""
    folder = tmp_path_factory.mktemp("generated")
    (folder / "openapi.json").write_text(json.dumps(document))
    tools = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", tools)  # it formats what it wrote with ruff
        generator = require_tool("openapi-python-client", "pip install openapi-python-client")
        command = [generator, "generate", "--path", "openapi.json", "--output-path", NAME, "--meta", "none"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "WARNING" not in done.stdout + done.stderr, "it leaves out what it cannot make something of"
        patch.syspath_prepend(folder)
        yield folder / NAME


@pytest.fixture
def call(generated: Path, up: Up) -> Iterator[Call]:
    """Calls an operation by its tag and its name and gives the whole response."""
    modules = importlib.import_module(f"{generated.name}.client")

    with modules.AuthenticatedClient(base_url=up.url, token=KEY) as client:

        def of(tag: str, name: str, *words: Any, **named: Any) -> Any:
            operation = importlib.import_module(f"{generated.name}.api.{tag}.{name}")
            return operation.sync_detailed(*words, client=client, **named)

        yield of


def test_operations_have_the_names_that_one_would_give_them(document: dict[str, Any]) -> None:
    operations = [
        operation["operationId"] for operations in document["paths"].values() for operation in operations.values()
    ]
    assert len(set(operations)) == len(operations)
    assert {"list_gpus", "show_gpu", "list_gpu_telemetry", "query_telemetry", "submit_telemetry"} <= set(operations)


def test_gpus_hosts_and_values_are_types_with_what_was_sent(call: Call) -> None:
    gpus = call("fleet", "list_gpus").parsed
    assert gpus.count == GPUS
    assert [gpu.uuid for gpu in gpus.gpus] == [f"GPU-{number:04d}" for number in range(GPUS)]
    assert call("fleet", "list_hosts").parsed.count == len(call("fleet", "list_hosts").parsed.hosts) > 0
    assert UTIL in [metric.name for metric in call("fleet", "list_metrics").parsed.metrics]
    (gpu,) = call("fleet", "show_gpu", "GPU-0003").parsed.gpus
    assert {latest.metric: latest.value for latest in gpu.latest}[UTIL] == 30.0


def test_a_series_and_its_nanoseconds_come_back(call: Call) -> None:
    series = call("fleet", "list_gpu_telemetry", "GPU-0002", metric=[UTIL]).parsed
    stored = datetime.fromtimestamp(SECOND, UTC).strftime("%Y-%m-%dT%H:%M:%S.000000001Z")
    assert [(sample.value, sample.time) for sample in series.data] == [(20.0, stored)]


def test_what_is_submitted_is_stored(call: Call, generated: Path, up: Up) -> None:
    models = importlib.import_module(f"{generated.name}.models")
    point = models.TelemetryPoint(device_id="nvidia0", metric=UTIL, value=5.0, uuid="GPU-submitted")
    accepted = call("ingest", "submit_telemetry", body=point)
    assert (accepted.status_code, accepted.parsed.accepted) == (HTTPStatus.ACCEPTED, 1)
    wait_for_gpus(up, GPUS + 1)


def test_a_refusal_is_a_problem_that_says_what_to_do(call: Call) -> None:
    answer = call("fleet", "show_gpu", "GPU-99")
    assert answer.status_code == HTTPStatus.NOT_FOUND
    assert answer.parsed.status == HTTPStatus.NOT_FOUND
    assert "GPU-99" in answer.parsed.detail
