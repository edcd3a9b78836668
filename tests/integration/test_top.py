"""`telemetry top` over a running API."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.service_processes import Service
from tests.integration.up_process import READ_KEY, Up, line, running_up, send, wait_for_gpus


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    with running_up(tmp_path_factory.mktemp("up")) as up:
        send(up.grpc, [line(99, 1, time_ns=1_700_000_000_000_000_000)])
        send(up.grpc, [line(gpu, gpu * 4) for gpu in range(16)])
        wait_for_gpus(up, 16)
        yield up


def top(up: Up, *arguments: object, key: str = READ_KEY) -> tuple[int, str]:
    with Service(
        "top", "--once", "--url", up.url, *arguments, environment={"API_KEY": key, "COLUMNS": "140"}
    ) as service:
        status = service.wait()
        return status, service.output


def test_the_fleet_is_printed_with_those_that_lead_first(up: Up) -> None:
    send(up.grpc, [line(gpu, gpu * 4) for gpu in range(16)])  # who sent nothing for a minute would be silent
    status, output = top(up)
    assert status == 0
    lines = output.splitlines()
    assert lines[0].startswith("16 GPUs of 17 report · 1 silent · 30 % mean utilisation · 4.0 kW")
    rows = [text.split() for text in lines[lines.index(next(text for text in lines if text.startswith("GPU "))) + 1 :]]
    assert rows[0][:4] == ["host-01", "nvidia7", "60", "%"]
    assert "×" in output
    assert "silent for" in output


def test_a_filter_and_another_order(up: Up) -> None:
    status, output = top(up, "--filter", "host-00", "--sort", "name")
    assert status == 0
    assert "host-01" not in output
    assert output.splitlines()[-1].startswith("host-00 nvidia7")


def test_what_is_wrong_is_said_in_one_sentence(up: Up, tmp_path: Path) -> None:
    status, output = top(up, key="wrong")
    assert (status, output) == (
        1,
        f"telemetry: auth.unauthenticated: {up.url}: the API key is not valid; give another one",
    )
    with Service("top", "--url", "http://127.0.0.1:1", environment={"API_KEY": "x"}) as service:
        assert service.wait() == 1
        assert "http://127.0.0.1:1 does not answer" in service.output
    with Service("top", "--data", tmp_path, environment={"API_KEY": ""}) as service:
        assert service.wait() == 2
        assert "there is no API key" in service.output
