"""`telemetry up` as a process: one command from a dump to answers."""

import os
import pty
import re
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
import pytest

import telemetry_broker as tb
from tests.integration.service_processes import SAMPLE, BrokerProcess, Service, dump, row

LAST_LINE = r"stored 2470 samples of 2470 from 247 GPUs on 31 hosts in \d+\.\d s \([\d,]+ samples/s\)"


def up(data: Path, *arguments: object, **environment: str) -> Service:
    return Service("up", "--data", data, "--port", 0, "--grpc-port", 0, *arguments, environment=environment)


def test_once_ends_when_all_is_stored_and_says_so_last(tmp_path: Path) -> None:
    with up(tmp_path, "--once") as first:
        assert first.wait() == 0, first.output
        assert re.fullmatch(LAST_LINE, first.output.splitlines()[-1]), first.output
        assert "\x1b" not in first.output
    with up(tmp_path, "--once") as second:
        assert second.wait() == 0
        *_, told, last = second.output.splitlines()
        assert told == "already stored"
        assert re.fullmatch(LAST_LINE, last)
    with tb.connect(f"file://{tmp_path}") as broker:
        ends = {state.partition: state.end_offset for state in broker.describe_topic("telemetry").partitions}
        assert len(ends) == 4
        assert broker.describe_group("telemetry", "telemetry_group").lag == 0


def test_the_printed_curl_line_works_and_grpc_is_open(tmp_path: Path) -> None:
    with up(tmp_path) as running:
        address, key = running.wait_for(r"^API (http://\S+)  API key: (\S+)$").groups()
        (header, url) = running.wait_for(r'^try: curl -H "([^"]+)" (\S+)$').groups()
        (grpc_address,) = running.wait_for(r"^gRPC (\S+)").groups()
        running.wait_for(LAST_LINE)
        name, _, value = header.partition(": ")
        assert httpx.get(url, headers={name: value}).json()["count"] == 247
        assert (tmp_path / "api-key").read_text().strip() == key
        health = httpx.get(f"{address}/health").json()
        assert {"status", "broker_index", "broker_count", "owned_partitions", "timestamp"} <= set(health)
        assert httpx.get(f"{address}/ready").status_code == 200
        with tb.connect(f"grpc://{grpc_address}") as broker:
            assert [topic.name for topic in broker.topics()] == ["telemetry"]
        metrics = httpx.get(f"{address}/metrics").text
        assert 'messages_produced_total{service="broker",topic="telemetry"}' in metrics
        assert 'telemetry_data_points_total{service="collector",type="stored"}' in metrics
        assert running.stop() == 0


def test_the_dump_goes_on_as_a_live_fleet(tmp_path: Path) -> None:
    with up(tmp_path) as running:
        address, key = running.wait_for(r"^API (http://\S+)  API key: (\S+)$").groups()
        running.wait_for(LAST_LINE)
        seen: set[str] = set()
        while len(seen) < 3:  # three scrapes, each with a time of its own
            gpus = httpx.get(f"{address}/api/v1/gpus", headers={"X-API-Key": key}).json()["gpus"]
            seen |= {gpu["last_seen"] for gpu in gpus if not gpu["last_seen"].startswith("2025-07-18")}
            assert len(gpus) == 247
        assert running.stop() == 0
    with up(tmp_path, "--once") as again:  # what the live fleet sent is outside of the dump's time range
        assert again.wait() == 0
        assert re.fullmatch(LAST_LINE, again.output.splitlines()[-1])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("arguments", [(), ("--once", "--rate", "100"), ("--no-csv",)])
def test_a_signal_ends_it_cleanly_and_nothing_stays(tmp_path: Path, number: int, arguments: tuple[str, ...]) -> None:
    with up(tmp_path, *arguments) as running:
        (address,) = running.wait_for(r"^API http://(\S+)").groups()
        (grpc_address,) = running.wait_for(r"^gRPC (\S+)").groups()
        assert running.stop(number, timeout=5) == 0, running.output
        assert "Traceback" not in running.output
    for taken in (address, grpc_address):
        host, _, port = taken.partition(":")
        socket.create_server((host, int(port))).close()
    with tb.connect(f"file://{tmp_path}"):  # the folder is free too
        pass


def test_after_a_stop_in_the_middle_the_same_command_goes_on(tmp_path: Path) -> None:
    with up(tmp_path, "--once", "--rate", 1000) as running:
        running.wait_for("^gRPC")
        with tb.connect("grpc://" + running.wait_for(r"^gRPC (\S+)").group(1)) as broker:
            while not any(state.end_offset for state in broker.describe_topic("telemetry").partitions):
                assert running.process.poll() is None
        assert running.stop(signal.SIGINT) == 0
    with up(tmp_path, "--once") as again:
        assert again.wait() == 0
        assert re.fullmatch(LAST_LINE, again.output.splitlines()[-1]), again.output


def test_the_next_free_ports_are_taken_unless_one_was_asked_for(tmp_path: Path) -> None:
    with ExitStack() as stack:
        for port in (8080, 9090):
            try:
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
            except OSError:
                continue  # somebody else has it: as good
        with Service("up", "--data", tmp_path, "--once") as running:
            (http_port,) = running.wait_for(r"^API http://127.0.0.1:(\d+)").groups()
            (grpc_port,) = running.wait_for(r"^gRPC 127.0.0.1:(\d+)").groups()
            assert (int(http_port) > 8080, int(grpc_port) > 9090) == (True, True)
            assert running.wait() == 0
        for flag, port in (("--port", 8080), ("--grpc-port", 9090)):
            with Service("up", "--data", tmp_path, flag, port, "--once") as refused:
                assert refused.wait() == 1
                assert f"port {port} on 127.0.0.1 is in use" in refused.output


def test_a_dump_of_ones_own_with_bad_rows(tmp_path: Path) -> None:
    csv = dump([row(0), row(1, value="bad"), row(2, gpu=1, host="h2")], tmp_path / "own.csv")
    with up(tmp_path / "data", "--once", "--csv", csv) as running:
        assert running.wait() == 0
        assert re.match(r"stored 2 samples of 2 from 2 GPUs on 2 hosts", running.output.splitlines()[-1])
        rejects = tmp_path / "data" / "rejects" / "own.csv"
        assert f"1 row cannot be used (number 1); it is kept in {rejects}" in running.output
        assert "bad" in rejects.read_text()
    with up(tmp_path / "data", "--once", "--csv", csv, "--again") as again:
        assert again.wait() == 0
        assert "stored 4 samples of 2" in again.output


@pytest.mark.parametrize("metric", ["X\0", "date", "uuid", "dcgm_fi_dev_fb_used"])
def test_a_metric_that_no_table_can_hold_costs_its_row_only(tmp_path: Path, metric: str) -> None:
    csv = tmp_path / "own.csv"
    csv.write_text(SAMPLE.read_text() + row(0, metric=metric) + "\n")
    for _ in range(2):
        with up(tmp_path / "data", "--once", "--csv", csv) as running:
            assert running.wait() == 0, running.output
            assert re.fullmatch(LAST_LINE, running.output.splitlines()[-1]), running.output
    assert (tmp_path / "data" / "rejects" / "own.csv").read_text().count(",metric,") == 1


def test_a_posted_metric_that_no_table_can_hold_is_refused_and_it_goes_on(tmp_path: Path) -> None:
    with up(tmp_path, "--no-csv", API_KEY="k") as running:
        (address,) = running.wait_for(r"^API (http://\S+)").groups()
        (grpc_address,) = running.wait_for(r"^gRPC (\S+)").groups()
        with httpx.Client(base_url=address, headers={"X-API-Key": "k"}) as client:
            refused = client.post("/telemetry", json={"uuid": "U", "metric": "m\0x", "value": 1})
            assert (refused.status_code, "m\\0x" in refused.json()["message"]) == (400, True)
            with tb.connect(f"grpc://{grpc_address}") as broker, broker.producer("telemetry") as producer:
                producer.send(b"gpu,uuid=U m\0x=1 1", partition=0)  # other producers are not asked
            assert client.post("/telemetry", json={"uuid": "U", "metric": "m", "value": 1}).status_code == 202
            while client.get("/api/v1/gpus/U/telemetry").json()["count"] == 0:
                assert running.process.poll() is None, running.output
        assert running.stop() == 0


def test_a_new_store_gets_all_that_the_topic_has(tmp_path: Path) -> None:
    with up(tmp_path, "--once") as first:
        assert first.wait() == 0
    with up(tmp_path, "--once", "--store", f"delta://{tmp_path / 'new'}") as second:
        assert second.wait() == 0
        assert "already stored" not in second.output
        assert re.fullmatch(LAST_LINE, second.output.splitlines()[-1]), second.output
    shutil.rmtree(tmp_path / "store")
    with up(tmp_path, "--once") as third:
        assert third.wait() == 0
        assert "already stored" not in third.output
        assert re.fullmatch(LAST_LINE, third.output.splitlines()[-1]), third.output


def test_a_run_that_only_stores_the_rest_does_not_say_that_it_was_stored(tmp_path: Path) -> None:
    with BrokerProcess(tmp_path) as broker:
        environment = {"BROKER_URL": broker.url, "CSV_DELAY_MS": "0"}
        with Service("streamer", "--port", 0, "--csv", SAMPLE, "--data", tmp_path, environment=environment) as streamer:
            assert streamer.wait() == 0
        assert broker.stop() == 0
    with up(tmp_path, "--once") as running:
        assert running.wait() == 0
        assert "already stored" not in running.output
        assert re.fullmatch(LAST_LINE, running.output.splitlines()[-1]), running.output


def test_once_fails_when_the_store_lacks_rows_of_the_dump(tmp_path: Path) -> None:
    with up(tmp_path, "--once") as first:
        assert first.wait() == 0
    with tb.connect(f"file://{tmp_path}") as broker:
        broker.purge_topic("telemetry")
    with up(tmp_path, "--once", "--store", f"delta://{tmp_path / 'new'}") as second:
        assert second.wait() == 1
        assert "already stored" not in second.output
        assert "source.incomplete: 2,470 samples of the dump's 2,470 are not in the store" in second.output
        assert "--again" in second.output


def test_once_fails_and_names_the_dead_letters_when_a_record_could_not_be_stored(tmp_path: Path) -> None:
    labelled = dump([row(0).removesuffix('""') + '"FOO=""x"""'], tmp_path / "labelled.csv")
    with up(tmp_path / "data", "--once", "--csv", labelled) as first:
        assert first.wait() == 0, first.output
    csv = dump([row(60, metric="FOO"), row(61)], tmp_path / "own.csv")
    urls = set()
    for _ in range(2):
        with up(tmp_path / "data", "--once", "--csv", csv) as running:
            assert running.wait() == 1
            assert "source.incomplete: 1 sample of the dump's 2 is not in the store: 1 record" in running.output
            urls |= set(re.findall(r"connect\('(\S+)'\)\.read\('telemetry\.dlq', 0\)", running.output))
    (url,) = urls
    with tb.connect(url) as broker:
        dead = [broker.read("telemetry.dlq", partition).values for partition in range(4)]
    assert sum(len(values) for values in dead) == 1


@pytest.mark.parametrize("arguments", [(), ("--once",)])
def test_a_pipe_is_refused_and_does_not_hang(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    pipe = tmp_path / "pipe.csv"
    os.mkfifo(pipe)
    with up(tmp_path / "data", "--csv", pipe, *arguments) as running:
        assert running.wait() == 1
        assert f"{pipe}: not a regular file" in running.output


def test_a_second_run_without_a_good_row_fails_too(tmp_path: Path) -> None:
    csv = dump([row(0, value="many")], tmp_path / "own.csv")
    for _ in range(2):
        with up(tmp_path / "data", "--csv", csv) as running:
            assert running.wait() == 1
            assert "source.no_rows" in running.output
            assert "already stored" not in running.output


def test_what_is_left_out_and_what_else_is_there_is_told(tmp_path: Path) -> None:
    rows = [row(0, value=1), row(0, value=2), row(1, value=""), row(2)]
    csv = dump(rows, tmp_path / "own.csv")
    with up(tmp_path / "data", "--once", "--csv", csv) as first:
        assert first.wait() == 0
        assert "1 row repeats time, tags and metric of a later one" in first.output
        assert "1 row has no value" in first.output
        assert first.output.splitlines()[-1].startswith("stored 2 samples of 2 from 1 GPU on 1 host in ")
    with up(tmp_path / "data", "--once", "--csv", csv, "--again") as again:
        assert again.wait() == 0
        assert "the store holds 2 samples more within the times of this dump" in again.output


def test_an_existing_topic_keeps_its_partitions_and_that_is_said(tmp_path: Path) -> None:
    with up(tmp_path, "--once") as first:
        assert first.wait() == 0
        assert "PARTITIONS_PER_TOPIC" not in first.output
    with up(tmp_path, "--once", PARTITIONS_PER_TOPIC="8") as second:
        assert second.wait() == 0
        assert second.output.count("the topic telemetry has 4 partitions and keeps them") == 1


@pytest.mark.parametrize("content", [None, "", "a,b\n1,2\n"])
def test_a_dump_that_is_none_ends_with_a_sentence(tmp_path: Path, content: str | None) -> None:
    csv = tmp_path / "own.csv"
    if content is not None:
        csv.write_text(content)
    with up(tmp_path / "data", "--csv", csv) as running:
        assert running.wait() == 1
        assert str(csv) in running.output
        assert "Traceback" not in running.output


def test_no_csv_waits_for_what_others_send(tmp_path: Path) -> None:
    with up(tmp_path, "--no-csv", "--store", f"delta://{tmp_path / 'elsewhere'}", API_KEY="mine") as running:
        running.wait_for("API key: as in API_KEY")
        (address,) = running.wait_for(r"^API (http://\S+)").groups()
        client = httpx.Client(base_url=address, headers={"X-API-Key": "mine"})
        with client:
            point = {"uuid": "U", "metric": "m", "value": 1}
            assert client.post("/telemetry", json=point).status_code == 202
            while client.get("/api/v1/gpus/U/telemetry").json()["count"] == 0:
                assert running.process.poll() is None
        assert running.stop() == 0
        assert not (tmp_path / "api-key").exists()
    assert (tmp_path / "elsewhere" / "_delta_log").is_dir()


def test_a_loop_goes_on_with_shifted_times(tmp_path: Path) -> None:
    csv = dump([row(0), row(1)], tmp_path / "own.csv")
    with up(tmp_path / "data", "--csv", csv, "--loop", "--rate", 200) as running:
        address, key = running.wait_for(r"^API (http://\S+)  API key: (\S+)$").groups()
        data: list[dict[str, str]] = []
        while len(data) < 6:
            answer = httpx.get(f"{address}/api/v1/gpus/GPU-0/telemetry", headers={"X-API-Key": key}).json()
            data = answer["data"]
        assert len({sample["time"] for sample in data}) == len(data)
        assert running.stop() == 0


@pytest.mark.parametrize("columns", [80, 160])
def test_on_a_terminal_there_is_a_progress_bar_with_rates(tmp_path: Path, columns: int) -> None:
    primary, secondary = pty.openpty()
    command = [
        sys.executable,
        "-c",
        "from telemetry_services.cli import main; main()",
        "up",
        "--once",
        "--rate",
        "2000",
    ]
    arguments = ["--data", str(tmp_path), "--port", "0", "--grpc-port", "0"]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": str(columns)}
    with subprocess.Popen([*command, *arguments], stdout=secondary, stderr=secondary, env=environment) as process:
        os.close(secondary)
        shown = b""
        while True:
            try:
                piece = os.read(primary, 65_536)
            except OSError:  # the other end was closed
                break
            shown += piece
        assert process.wait(30) == 0
    os.close(primary)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    assert "samples stored" in text
    assert re.search(r"━{10,} +100%", text)
    assert re.search(LAST_LINE, text.splitlines()[-1])


def test_on_a_narrow_terminal_the_live_line_is_shown_to_its_end(tmp_path: Path) -> None:
    primary, secondary = pty.openpty()
    script = "from telemetry_services.cli import main; main()"
    arguments = ["up", "--data", str(tmp_path), "--port", "0", "--grpc-port", "0"]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80"}
    command = [sys.executable, "-c", script, *arguments]
    with subprocess.Popen(command, stdout=secondary, stderr=secondary, env=environment) as process:
        os.close(secondary)
        shown, text = b"", ""
        while not re.search(r"lag [\d,]+ · dead letters 0 · Ctrl-C ends", text):
            shown += os.read(primary, 65_536)  # fails when the other end is closed
            plain = re.sub(rb"\x1b\[[0-9;?]*[A-Za-z]", b"", shown).decode(errors="replace")
            text = " ".join(plain.split())
        process.send_signal(signal.SIGINT)
        with suppress(OSError):
            while os.read(primary, 65_536):
                pass
        assert process.wait(30) == 0
    os.close(primary)


def test_a_folder_in_use_is_said(tmp_path: Path) -> None:
    with up(tmp_path, "--no-csv") as first:
        first.wait_for("^API")
        with up(tmp_path, "--no-csv") as second:
            assert second.wait() == 1
            assert "data.in_use" in second.output
        assert first.stop() == 0


def test_the_sample_is_the_one_that_is_shipped() -> None:
    assert SAMPLE.read_bytes().count(b"\n") == 2471
