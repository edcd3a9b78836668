"""Logs of real services whose names, files, rows and records try to forge lines and to steer the terminal."""

import json
import re
from pathlib import Path

import pytest

import telemetry_broker as tb
from tests.integration.service_processes import BrokerProcess, Service, dump, row

FORGED = "2026-01-02T03:04:05.678Z ERROR broker: forged"
HOSTILE = f"x\n{FORGED}\r\x1b[2J\x1b]0;owned\x07\u2028{FORGED}\u202e level=ERROR"
LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (DEBUG|INFO|WARNING) (\w+): \S.*")


def check(output: str, form: str, service: str) -> None:
    """Each line is one of the service's own."""
    lines = output.split("\n")
    assert len(lines) > 3
    for line in lines:
        assert line.isprintable(), ascii(line)
        if form == "json":
            assert json.loads(line)["service"] == service
        else:
            matched = LINE.fullmatch(line)
            assert matched is not None, line
            assert matched[2] == service


@pytest.mark.parametrize("form", ["text", "json"])
def test_what_others_name_and_send_forges_no_line(tmp_path: Path, form: str) -> None:
    environment = {
        "LOG_FORMAT": form,
        "LOG_LEVEL": "DEBUG",
        "MSG_QUEUE_CONSUMER_NAME": HOSTILE,
        "MSG_QUEUE_PRODUCER_NAME": HOSTILE,
    }
    good, folder = row(), tmp_path / "of\nothers\x1b[31m"
    folder.mkdir()
    bad_name = good.replace("DCGM_FI_DEV_GPU_UTIL", HOSTILE)
    bad_value = row(value=HOSTILE)
    path = dump([good, bad_name, bad_value, HOSTILE.replace("\n", " ")], folder / f"{FORGED.replace('/', ' ')}\n.csv")
    with BrokerProcess(tmp_path / "broker") as broker:
        common = ("--broker-url", broker.url, "--port", 0, "--data", tmp_path / "data")
        with Service("streamer", *common, "--csv", path, "--rate", 1e6, environment=environment) as streamer:
            assert streamer.wait() == 0, streamer.output
        with tb.connect(broker.url) as client, client.producer("telemetry") as producer:
            producer.send(HOSTILE.encode(), partition=0, headers={"h": HOSTILE.encode()}, key=HOSTILE.encode())
            producer.send(f"gpu,uuid=GPU-1,{FORGED.replace(' ', '')}\x1b=1 U=1".encode(), partition=0)
        store = f"delta://{tmp_path / 'store'}"
        options = ("--grpc-port", 0, "--store", store)
        with Service("collector", *common, *options, environment=environment) as collector:
            collector.wait_for("records cannot be decoded")
            collector.wait_for("Processed message")
            assert collector.stop() == 0
    check(streamer.output, form, "streamer")
    check(collector.output, form, "collector")
    assert "level=ERROR" in collector.output, "the name is told all the same"
