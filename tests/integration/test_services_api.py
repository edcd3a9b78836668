"""`telemetry api` as a process, over a store that a collector filled: the shapes that clients in the field know."""

import json
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import telemetry_broker as tb
from telemetry_services.api.models import TelemetryPoint
from telemetry_services.api.publishing import encode, parse_labels
from tests.integration.service_processes import SAMPLE, BrokerProcess, Service

KEY = "k-1"
GPU = "GPU-5fd4f087-86f3-7a43-b711-4771313afc50"
POINT: dict[str, Any] = {
    "device_id": "gpu-001",
    "metric": "temperature",
    "value": 75.5,
    "time": "2025-09-25T10:30:00.000000001Z",
    "gpu_id": "0",
    "uuid": "12345678-1234-1234-1234-123456789012",
    "model_name": "NVIDIA RTX 4090",
    "hostname": "worker-node-1",
    "container": "gpu-workload",
    "pod": "gpu-pod-1",
    "namespace": "default",
    "labels_raw": "app=ml-training",
}


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Broker, collector and api as processes of their own, with the sample dump stored."""
    folder = tmp_path_factory.mktemp("fleet")
    with BrokerProcess(folder / "broker") as broker:
        environment = {"BROKER_URL": broker.url, "STORE": f"delta://{folder / 'store'}", "DATA_DIR": str(folder / "d")}
        with (
            Service("streamer", "--port", 0, "--csv", SAMPLE, "--csv-delay-ms", 0, environment=environment) as streamer,
            Service("collector", "--port", 0, "--grpc-port", 0, environment=environment) as collector,
            Service("api", "--port", 0, environment={**environment, "API_KEY": KEY}) as api,
        ):
            assert streamer.wait() == 0, streamer.output
            (address,) = api.wait_for(r"Starting api http=(\S+)").groups()
            collector.wait_for("Processed message")
            with tb.connect(broker.url) as client:
                while client.describe_group("telemetry", "telemetry_group").lag:
                    assert collector.process.poll() is None, collector.output
            yield {"url": f"http://{address}", "api": api, "broker": broker}


@pytest.fixture
def client(fleet: dict[str, Any]) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=fleet["url"], headers={"X-API-Key": KEY}, timeout=30) as client:
        yield client


def test_the_service_pages_are_open(fleet: dict[str, Any]) -> None:
    url = fleet["url"]
    assert httpx.get(f"{url}/health").json() == {"status": "healthy", "service": "api"}
    assert httpx.get(f"{url}/ready").json() == {"status": "ready"}
    page = httpx.get(f"{url}/swagger/")
    assert page.status_code == 200
    assert "//cdn" not in page.text
    for part in ("swagger-ui-bundle.js", "swagger-ui.css"):
        assert f"/swagger/static/{part}" in page.text
        assert httpx.get(f"{url}/swagger/static/{part}").status_code == 200
    paths = httpx.get(f"{url}/swagger/openapi.json").json()["paths"]
    assert {"/api/v1/gpus", "/api/v1/gpus/{id}/telemetry", "/api/v1/hosts", "/api/v1/namespaces"} <= set(paths)


@pytest.mark.parametrize("path", ["gpus", "hosts", "namespaces", f"gpus/{GPU}/telemetry"])
def test_the_api_is_closed_without_the_key(fleet: dict[str, Any], path: str) -> None:
    url = f"{fleet['url']}/api/v1/{path}"
    wrong = [("X-API-Key", b"wrong"), ("Authorization", f"Basic {KEY}".encode()), ("Authorization", b"Bearer \xff")]
    for headers in ([], *([header] for header in wrong)):
        answer = httpx.get(url, headers=[(name.encode(), value) for name, value in headers])
        assert answer.status_code == 401
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["error"] == "unauthorized"
    for name, value in (("X-API-Key", KEY), ("Authorization", f"Bearer {KEY}")):
        assert httpx.get(url, headers={name: value}).status_code == 200


def test_gpus_hosts_and_namespaces_have_their_shapes(client: httpx.Client) -> None:
    gpus = client.get("/api/v1/gpus").json()
    of_dump = [gpu for gpu in gpus["gpus"] if gpu["uuid"].startswith("GPU-")]
    assert gpus["count"] == len(gpus["gpus"])
    assert len(of_dump) == 247
    assert {
        "device_id": "nvidia0",
        "gpu_id": "0",
        "uuid": GPU,
        "model_name": "NVIDIA H100 80GB HBM3",
        "hostname": "mtv5-dgx1-hgpu-031",
        "container": "",
        "pod": "",
        "namespace": "",
        "last_seen": "2025-07-18T20:42:37Z",
    } in of_dump
    hosts = client.get("/api/v1/hosts").json()
    assert hosts["count"] == len(hosts["hosts"]) >= 31
    assert {"hostname": "mtv5-dgx1-hgpu-031", "gpu_count": 8} in hosts["hosts"]
    assert set(client.get("/api/v1/namespaces").json()) == {"count", "namespaces"}


def test_telemetry_of_a_gpu_newest_first_without_a_range(client: httpx.Client) -> None:
    answer = client.get(f"/api/v1/gpus/{GPU}/telemetry").json()
    assert (answer["gpu_id"], answer["count"]) == (GPU, 10)
    times = [sample["time"] for sample in answer["data"]]
    assert times == sorted(times, reverse=True)
    assert set(answer["data"][0]) == {
        *("device_id", "metric", "value", "time", "gpu_id", "uuid", "model_name", "hostname"),
        *("container", "pod", "namespace", "labels_raw"),
    }
    assert 'DCGM_FI_DRIVER_VERSION="535.129.03"' in answer["data"][0]["labels_raw"]


@pytest.mark.parametrize(("first", "last"), [("start", "end"), ("start_time", "end_time")])
def test_telemetry_is_chosen_by_range_metric_limit_and_host(client: httpx.Client, first: str, last: str) -> None:
    path = f"/api/v1/gpus/{GPU}/telemetry"
    one = client.get(path, params={first: "2025-07-18T20:42:34Z", last: "2025-07-18T20:42:34Z"}).json()
    assert {sample["time"] for sample in one["data"]} == {"2025-07-18T20:42:34Z"}
    between = {first: "2025-07-18T20:42:34.000000001Z", last: "2025-07-18T22:42:34.9+02:00"}
    none = client.get(path, params=between).json()
    assert none["count"] == 0
    metric = client.get(path, params={"metric": "DCGM_FI_DEV_GPU_UTIL"}).json()
    assert [(sample["metric"], sample["value"]) for sample in metric["data"]] == [("DCGM_FI_DEV_GPU_UTIL", 0.0)]
    assert client.get(path, params={"limit": 3}).json()["count"] == 3
    device = client.get("/api/v1/gpus/nvidia0/telemetry", params={"hostname": "mtv5-dgx1-hgpu-031"}).json()
    assert {sample["uuid"] for sample in device["data"]} == {GPU}
    assert client.get("/api/v1/gpus/nvidia0/telemetry", params={"limit": 1000}).json()["count"] == 310


@pytest.mark.parametrize(
    "params", [{"start": "yesterday"}, {"end": "2025-07-18"}, {"limit": "0"}, {"limit": "many"}, {"limit": "1000001"}]
)
def test_a_wrong_question_is_a_problem_that_says_what_is_expected(client: httpx.Client, params: dict[str, str]) -> None:
    answer = client.get(f"/api/v1/gpus/{GPU}/telemetry", params=params)
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["error"] == "invalid.request"
    assert next(iter(params)) in body["message"]
    assert body["detail"] == body["message"]


def test_an_unknown_path_is_a_problem_too(client: httpx.Client) -> None:
    assert client.get("/api/v1/nothing").json()["error"] == "not_found"
    assert client.delete("/api/v1/gpus").json()["error"] == "method_not_allowed"


@pytest.mark.parametrize("path", ["/telemetry", "/api/v1/telemetry"])
def test_a_posted_point_is_stored_in_the_broker_and_then_in_the_store(client: httpx.Client, path: str) -> None:
    gpu = f"GPU-posted{path.count('/')}"
    older = {**POINT, "uuid": gpu, "modelName": POINT["model_name"], "Hostname": POINT["hostname"]}
    del older["model_name"], older["hostname"]
    assert client.post(path, json=older).json() == {"accepted": 1, "status": "accepted"}
    answer = client.post(path, json=[{**POINT, "uuid": gpu, "metric": name} for name in ("power", "clock")])
    assert (answer.status_code, answer.json()["accepted"]) == (202, 2)
    data: list[dict[str, Any]] = []
    while len(data) < 3:
        data = client.get(f"/api/v1/gpus/{gpu}/telemetry").json()["data"]
    expected = {**POINT, "uuid": gpu, "labels_raw": 'app="ml-training"'}
    temperature = next(sample for sample in data if sample["metric"] == "temperature")
    assert expected.items() <= {**temperature, "labels_raw": expected["labels_raw"]}.items()
    assert 'app="ml-training"' in temperature["labels_raw"]
    assert client.get("/api/v1/gpus/gpu-001/telemetry").json()["count"] >= 3
    namespaces = client.get("/api/v1/namespaces").json()["namespaces"]
    assert [namespace["namespace"] for namespace in namespaces] == ["default"]


@pytest.mark.parametrize(
    "body",
    [
        {**POINT, "value": "hot"},
        {**POINT, "value": 1e999},
        {**POINT, "time": "now"},
        {**POINT, "metric": ""},
        {**POINT, "uuid": "", "device_id": ""},
        {**POINT, "labels_raw": "no pairs here"},
        {**POINT, "metric": "m\0x"},
        {**POINT, "metric": "date"},
        {**POINT, "metric": "Nanos"},
        {**POINT, "metric": "uuid"},
        {**POINT, "metric": "dcgm_fi_dev_gpu_util"},
        {**POINT, "metric": "instance"},
        {**POINT, "metric": "app"},
        {**POINT, "labels_raw": "date=x"},
        {**POINT, "labels_raw": "a=1,A=2"},
        {**POINT, "labels_raw": 'JOB="x"'},
        {"metric": "x"},
        [],
        "text",
    ],
)
def test_a_wrong_point_is_refused_and_nothing_is_stored(client: httpx.Client, body: Any) -> None:
    content = json.dumps(body).encode()
    answer = client.post("/telemetry", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"].startswith("invalid.")


def test_a_refusal_names_the_value(client: httpx.Client) -> None:
    for metric, words in (("m\0x", ["m\\0x", "control character"]), ("date", ["date", "nanos"]), ("uuid", ["uuid"])):
        message = client.post("/telemetry", json={**POINT, "metric": metric}).json()["message"]
        for word in words:
            assert word in message
    message = client.post("/telemetry", json={**POINT, "metric": "dcgm_fi_dev_gpu_util"}).json()["message"]
    assert "'dcgm_fi_dev_gpu_util'" in message
    assert "'DCGM_FI_DEV_GPU_UTIL'" in message


def test_the_slices_of_a_gpu_are_told_apart(client: httpx.Client) -> None:
    points = [{"uuid": "MIG", "metric": "power", "value": 1, "labels_raw": f"GPU_I_ID={slice_}"} for slice_ in (1, 2)]
    assert (
        client.post("/telemetry", json=[*points, {"uuid": "whole", "metric": "power", "value": 1}]).status_code == 202
    )
    found: dict[str, list[Any]] = {}
    while len(found.get("MIG", [])) < 2 or "whole" not in found:
        found = {}
        for gpu in client.get("/api/v1/gpus").json()["gpus"]:
            found.setdefault(gpu["uuid"], []).append(gpu.get("gpu_instance_id", "none"))
    assert found["MIG"] == ["1", "2"]
    assert found["whole"] == ["none"]


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_without_end_is_refused(client: httpx.Client, chunked: bool) -> None:
    body = b"x" * (1 << 20)
    content: Any = (body for _ in range(17)) if chunked else body * 17
    answer = client.post("/telemetry", content=content)
    assert (answer.status_code, answer.json()["error"]) == (413, "request.too_large")


def test_too_many_points_are_refused(client: httpx.Client) -> None:
    answer = client.post("/telemetry", json=[{"uuid": "U", "metric": "m", "value": 1}] * 10_001)
    assert (answer.status_code, answer.json()["error"]) == (413, "request.too_large")


def test_requests_are_counted_by_route_and_not_by_path(client: httpx.Client) -> None:
    client.get(f"/api/v1/gpus/{GPU}/telemetry")
    client.get("/nowhere/at/all")
    text = client.get("/metrics").text
    route = 'endpoint="/api/v1/gpus/{id}/telemetry",method="GET",service="api"'
    assert f'http_requests_total{{{route},status="200"}}' in text
    assert f"http_request_duration_seconds_count{{{route}}}" in text
    assert 'http_requests_total{endpoint="unmatched",method="GET",service="api",status="404"}' in text
    assert GPU not in text
    assert 'database_operations_total{operation="telemetry",service="api",status="success"}' in text


def test_a_key_that_was_not_given_is_made_kept_and_shown(tmp_path: Path) -> None:
    environment = {"BROKER_URL": "grpc://127.0.0.1:1", "DATA_DIR": str(tmp_path)}
    keys = set()
    for _ in range(2):
        with Service("api", "--port", 0, environment=environment) as api:
            (address,) = api.wait_for(r"Starting api http=(\S+)").groups()
            (file,) = api.wait_for(r"the API key was made for you, .* file=(\S+)").groups()
            key = Path(file).read_text().strip()
            assert key not in api.output
            assert httpx.get(f"http://{address}/api/v1/gpus", headers={"X-API-Key": key}).json()["count"] == 0
            ready = httpx.get(f"http://{address}/ready")
            assert (ready.status_code, "the broker does not answer" in ready.text) == (503, True)
            posted = httpx.post(f"http://{address}/telemetry", json=POINT, headers={"X-API-Key": key}, timeout=30)
            assert posted.status_code == 503
            assert int(posted.headers["Retry-After"]) >= 1
            keys.add(key)
            assert api.stop() == 0
    assert len(keys) == 1
    path = tmp_path / "api-key"
    assert {path.read_text().strip()} == keys
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_labels_are_read_with_and_without_quotes() -> None:
    assert parse_labels('a="1, \\"x\\"\\n", b=two words ,c=') == {"a": '1, "x"\n', "b": "two words", "c": ""}
    assert parse_labels("") == {}
    with pytest.raises(tb.InvalidArgumentError, match="labels_raw at character 4"):
        parse_labels("a=1,nothing")


def test_a_column_wins_over_the_label_that_repeats_it() -> None:
    labels = 'UUID="V",Hostname="h",x="1"'
    point = TelemetryPoint(metric="m", value=1, time="1970-01-01T00:00:01Z", uuid="U", labels_raw=labels)
    assert encode(point, 0) == (b"gpu,hostname=h,uuid=U,x=1 m=1 1000000000", b"U")
