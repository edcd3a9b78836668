"""What the API answers beyond the shapes that older clients know: filters, pages, windows, formats, and refusals."""

import gzip
import io
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pytest

from tests.integration.up_process import POWER, TEMP, UTIL, Up, line, running_up, send, wait_for_gpus

GPUS = 16


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """16 GPUs on 2 hosts; GPU n has utilisation n, ten seconds ago, and n + 1, now."""
    with running_up(tmp_path_factory.mktemp("up")) as up:
        now = time.time_ns()
        send(up.grpc, [line(gpu, gpu, now - 10_000_000_000) for gpu in range(GPUS)])
        send(up.grpc, [line(gpu, gpu + 1, now) for gpu in range(GPUS)])
        wait_for_gpus(up, GPUS)
        yield up


@pytest.fixture
def client(up: Up) -> Iterator[httpx.Client]:
    with up.client() as client:
        yield client


def uuids(answer: dict[str, Any]) -> list[str]:
    return [gpu["uuid"] for gpu in answer["gpus"]]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"hostname": "host-01"}, range(8, 16)),
        ({"namespace": "training"}, range(8)),
        ({"pod": "job-1"}, range(8, 16)),
        ({"model": "H100"}, range(16)),
        ({"model": "A100"}, range(0)),
        ({"id": ["GPU-0003", "GPU-0009"]}, [3, 9]),
        ({"id": "nvidia3"}, [3, 11]),
        ({"id": "nvidia3", "hostname": "host-01"}, [11]),
    ],
)
def test_gpus_are_chosen_by_their_names(client: httpx.Client, query: dict[str, Any], expected: Any) -> None:
    answer = client.get("/api/v1/gpus", params=query).json()
    assert uuids(answer) == [f"GPU-{gpu:04d}" for gpu in expected]


def test_gpus_come_in_pages_that_together_are_all(client: httpx.Client) -> None:
    found: list[str] = []
    cursor = None
    while True:
        parameters = {"limit": 5} | ({"cursor": cursor} if cursor else {})
        page = client.get("/api/v1/gpus", params=parameters).json()
        assert page["count"] == len(page["gpus"]) <= 5
        assert page["total"] == GPUS
        found += uuids(page)
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert found == uuids(client.get("/api/v1/gpus").json())


def test_a_gpu_has_its_newest_values_with_units(client: httpx.Client) -> None:
    answer = client.get("/api/v1/gpus/GPU-0003").json()
    assert answer["count"] == 1
    gpu = answer["gpus"][0]
    assert (gpu["hostname"], gpu["device_id"], gpu["state"]) == ("host-00", "nvidia3", "reporting")
    latest = {one["metric"]: (one["value"], one["unit"]) for one in gpu["latest"]}
    assert latest == {UTIL: (4, "%"), TEMP: (32, "°C"), POWER: (120, "W")}
    assert client.get("/api/v1/gpus/nvidia3").json()["count"] == 2


def test_windows_over_many_gpus(client: httpx.Client) -> None:
    asked: dict[str, Any] = {"metric": [UTIL, POWER], "start": "-1h", "window": "1h", "group_by": "host", "agg": "max"}
    columns = client.get("/api/v1/query", params=asked).json()["columns"]
    found: dict[str, float] = {}
    for host, value in zip(columns["hostname"], columns[UTIL], strict=True):  # an hour may end between the two times
        found[host] = max(found.get(host, 0), value)
    assert found == {"host-00": 8, "host-01": 16}
    assert list(columns) == ["time", "hostname", UTIL, POWER]


def test_a_series_comes_in_pages_that_together_are_all(client: httpx.Client) -> None:
    asked: dict[str, Any] = {"metric": UTIL, "start": "-1h"}
    whole = client.get("/api/v1/query", params=asked).json()
    assert whole["count"] == 2 * GPUS
    assert whole["next_cursor"] is None
    rows: list[tuple[Any, ...]] = []
    cursor = None
    while True:
        page = client.get("/api/v1/query", params={**asked, "limit": 7} | ({"cursor": cursor} if cursor else {})).json()
        rows += zip(*page["columns"].values(), strict=True)
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert rows == list(zip(*whole["columns"].values(), strict=True))


def test_samples_come_in_pages_that_together_are_all(client: httpx.Client) -> None:
    asked = {"start": "-1h"}
    whole = client.get("/api/v1/gpus/GPU-0001/telemetry", params=asked).json()
    assert whole["count"] == 6
    for limit in (1, 2, 4, 5):
        data: list[dict[str, Any]] = []
        cursor = None
        while True:
            parameters = {**asked, "limit": limit} | ({"cursor": cursor} if cursor else {})
            page = client.get("/api/v1/gpus/GPU-0001/telemetry", params=parameters).json()
            data += page["data"]
            cursor = page.get("next_cursor")
            if cursor is None:
                break
        assert data == whole["data"]


def test_answers_are_json_csv_or_arrow(client: httpx.Client) -> None:
    path, asked = "/api/v1/query", {"metric": UTIL, "start": "-1h"}
    rows = client.get(path, params=asked).json()
    arrow = client.get(path, params=asked, headers={"Accept": "application/vnd.apache.arrow.stream"})
    table = pa.ipc.open_stream(arrow.content).read_all()
    assert table[UTIL].to_pylist() == rows["columns"][UTIL]
    assert table.schema.field("time").type == pa.timestamp("ns", tz="UTC")
    text = client.get(path, params={**asked, "format": "csv"})
    assert text.headers["content-type"].startswith("text/csv")
    lines = text.text.splitlines()
    assert (lines[0].split(",")[0], len(lines)) == ("time", 2 * GPUS + 1)
    assert (
        client.get("/api/v1/gpus", headers={"Accept": "text/csv"}).text.splitlines()[1].startswith("nvidia0,0,GPU-0000")
    )
    telemetry = client.get("/api/v1/gpus/GPU-0001/telemetry", headers={"Accept": "text/csv;q=0.9, image/png"})
    assert telemetry.text.startswith("device_id,metric,value,time,")
    refused = client.get(path, params=asked, headers={"Accept": "image/png"})
    assert (refused.status_code, refused.json()["error"]) == (406, "not_acceptable")


def test_a_csv_cell_is_no_formula_of_a_spreadsheet(tmp_path: Path) -> None:
    with running_up(tmp_path) as up, up.client() as client:
        point = {"uuid": "GPU-formula", "hostname": "=1+1", "metric": UTIL, "value": 1}
        assert client.post("/telemetry", json=point).status_code == 202
        end = time.monotonic() + 20
        while "GPU-formula" not in (text := client.get("/api/v1/gpus?format=csv").text):
            assert time.monotonic() < end
        assert "'=1+1" in text


def test_a_list_that_is_the_same_is_not_sent_again(client: httpx.Client) -> None:
    for path in ("gpus", "hosts", "namespaces"):
        first = client.get(f"/api/v1/{path}")
        again = client.get(f"/api/v1/{path}", headers={"If-None-Match": first.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")


def test_answers_are_compressed_for_who_asks(up: Up, client: httpx.Client) -> None:
    with client.stream("GET", "/api/v1/gpus", headers={"Accept-Encoding": "gzip"}) as answer:
        raw = b"".join(answer.iter_raw())
    assert answer.headers["content-encoding"] == "gzip"
    with gzip.open(io.BytesIO(raw)) as file:
        assert b"GPU-0003" in file.read()
    plain = client.get("/api/v1/gpus", headers={"Accept-Encoding": "identity"})
    assert "content-encoding" not in plain.headers


@pytest.mark.parametrize(
    ("path", "status", "code", "says"),
    [
        ("gpus/nobody", 404, "gpu.unknown", "there is no GPU called 'nobody'"),
        ("gpus/GPU-0001/telemetry?metric=gpu_util", 404, "metric.unknown", f"did you mean {UTIL}?"),
        ("gpus/GPU-0001/telemetry?metric=zzz", 404, "metric.unknown", "GET /api/v1/metrics lists"),
        (
            "gpus/GPU-0001/telemetry?start=2025-01-02T00:00:00Z&end=2025-01-01T00:00:00Z",
            400,
            "invalid.request",
            "after",
        ),
        ("gpus/GPU-0001/telemetry?start=2001-01-01T00:00:00Z", 400, "invalid.request", "longer than 31 days"),
        ("gpus/GPU-0001/telemetry?start=yesterday", 400, "invalid.request", "expected RFC 3339"),
        ("gpus/GPU-0001/telemetry?start=-1y", 400, "invalid.request", "such as -1h"),
        ("gpus/GPU-0001/telemetry?start=-1h&cursor=WyJxIl0", 400, "invalid.cursor", "send next_cursor as it came"),
        ("gpus?cursor=%00%ff&limit=3", 400, "invalid.cursor", "send next_cursor as it came"),
        ("query?window=fast&start=-1h", 400, "invalid.request", "send one such as 30s"),
        ("query?window=1ns&start=-1h", 400, "invalid.request", "out of bounds"),
        ("query?window=1s", 400, "invalid.request", "windows need a range"),
        ("query?window=1ms&start=-1h", 400, "invalid.request", "windows are too many"),
        ("query?start=-1h&agg=median", 400, "invalid.request", "agg"),
        ("query?start=-1h&group_by=rack", 400, "invalid.request", "group_by"),
        ("query?limit=0", 400, "invalid.request", "limit"),
        ("live?metric=nothing", 200, "", ""),
        ("pipeline/dead-letters?topic=none", 404, "topic.not_found", "none"),
        ("pipeline/dead-letters?topic=telemetry&after=x", 400, "invalid.cursor", "send it as it came"),
    ],
)
def test_what_makes_no_sense_is_told_with_what_to_send_instead(
    client: httpx.Client, path: str, status: int, code: str, says: str
) -> None:
    if status == 200:
        with client.stream("GET", f"/api/v1/{path}") as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
        return
    answer = client.get(f"/api/v1/{path}")
    body = answer.json()
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert body["error"] == code
    assert says in body["message"]
    assert body["detail"] == body["message"]


def test_metrics_have_titles_and_units(client: httpx.Client) -> None:
    metrics = {metric["name"]: metric for metric in client.get("/api/v1/metrics").json()["metrics"]}
    assert (metrics[UTIL]["title"], metrics[UTIL]["unit"], metrics[UTIL]["scale"]) == ("GPU utilisation", "%", [0, 100])


def test_an_empty_store_is_no_error(tmp_path_factory: pytest.TempPathFactory) -> None:
    with running_up(tmp_path_factory.mktemp("empty")) as up, up.client() as client:
        assert client.get("/api/v1/gpus").json() == {"count": 0, "gpus": []}
        assert client.get("/api/v1/hosts").json()["count"] == 0
        assert client.get("/api/v1/metrics").json() == {"count": 0, "metrics": []}
        assert client.get("/api/v1/query?start=-1h").json()["count"] == 0
        assert client.get("/api/v1/fleet").json()["count"] == 0
        assert client.get("/api/v1/pipeline").json()["topics"][0]["dead_letters"] == 0
