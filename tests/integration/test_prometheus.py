"""What a real Prometheus has of the services: each metric that dashboards know, and each query that the pages print."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.conftest import require_tool
from tests.integration.prometheus_server import Prometheus
from tests.integration.service_processes import SAMPLE, BrokerProcess, Service

ROOT = Path(__file__).parents[2]
KEY = "open-sesame"
POINT = {"device_id": "nvidia0", "metric": "DCGM_FI_DEV_GPU_UTIL", "value": 1, "uuid": "GPU-1", "hostname": "h"}

PROCESS = ["process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds"]
# By service: the names that the older system's dashboards know, then ours.
EXPECTED = {
    "broker": [
        "http_requests_total{endpoint='/topics'}",
        "http_request_duration_seconds_bucket",
        "messages_produced_total{topic='telemetry'}",
        "messages_consumed_total{topic='telemetry'}",
        "message_queue_size{topic='telemetry',partition='0'}",
        "message_queue_bytes{topic='telemetry',partition='0'} > 0",
        "service_health == 1",
        "broker_health_status{broker='0'} == 1",
        "active_connections",
        "broker_connections > 0",
        "broker_group_lag_records{topic='telemetry',partition='0',group='telemetry_group'}",
        "broker_group_in_flight_records{topic='telemetry',partition='0',group='telemetry_group'}",
        "broker_group_oldest_unacked_age_seconds{topic='telemetry',partition='0',group='telemetry_group'}",
        "broker_group_delivered_records_total{topic='telemetry',group='telemetry_group'}",
        "broker_group_redelivered_records_total{topic='telemetry',group='telemetry_group'}",
        "broker_group_acked_records_total{topic='telemetry',group='telemetry_group'}",
        "broker_group_dead_lettered_records_total{topic='telemetry',group='telemetry_group'}",
        "broker_appended_bytes_total{topic='telemetry'}",
        "broker_dropped_records_total{topic='telemetry'}",
        "broker_forgotten_producers_total{topic='telemetry'}",
        "broker_recovery_cut_bytes_total{topic='telemetry'}",
        "broker_recovery_journal_bad_bytes_total{topic='telemetry'}",
        "broker_partitions{topic='telemetry'} == 4",
        "broker_poisoned_partitions{topic='telemetry'} == 0",
        "broker_disk_used_bytes > 0",
        "broker_disk_free_bytes > 0",
        "broker_disk_min_free_bytes",
        "broker_groups_expired_total",
        "broker_metrics_omitted_topics == 0",
        "broker_fsync_duration_seconds_bucket{durability='os',le='+Inf'}",
    ],
    "streamer": [
        "messages_produced_total{topic='telemetry'}",
        "telemetry_data_points_total{type='sent'}",
        "service_health == 1",
        "broker_health_status == 1",
    ],
    "collector": [
        "messages_consumed_total{topic='telemetry'}",
        "message_processing_duration_seconds_bucket{topic='telemetry'}",
        "telemetry_data_points_total{type='stored'}",
        "database_operations_total{operation='write',status='success'}",
        "database_operation_duration_seconds_bucket{operation='write'}",
        "service_health == 1",
        "broker_health_status == 1",
    ],
    "api": [
        "http_requests_total{endpoint='/api/v1/gpus',status='200'}",
        "http_request_duration_seconds_bucket",
        "messages_produced_total{topic='telemetry'}",
        "telemetry_data_points_total{type='accepted'}",
        "database_operations_total{operation='telemetry',status='success'}",
        "database_operation_duration_seconds_bucket{operation='telemetry'}",
        "service_health == 1",
        "broker_health_status == 1",
        "active_connections",
    ],
}
# In one process the services share its health, and need no connection to their broker.
NOT_IN_UP = ("service_health ==", "broker_health_status ==", "broker_connections >")
# As the older system's document prints them.
EXAMPLES = [
    "rate(http_requests_total[5m])",
    "message_processing_duration_seconds_bucket",
    "histogram_quantile(0.95, rate(message_processing_duration_seconds_bucket[5m]))",
]


def with_service(selector: str, service: str) -> str:
    """The selector, of this service only."""
    name, _, rest = selector.partition("{")
    if rest:
        return f"{name}{{service='{service}',{rest}"
    name, _, comparison = selector.partition(" ")
    return f"{name}{{service='{service}'}} {comparison}"


@pytest.fixture
def program() -> str:
    return require_tool("prometheus", "apt-get install -y prometheus")


def ask_api(address: str) -> None:
    """What makes each of the api's metrics: a list, a query of the store, and a point."""
    headers = {"X-API-Key": KEY}
    assert httpx.get(f"http://{address}/api/v1/gpus/nvidia0/telemetry", headers=headers, timeout=30).status_code == 200
    assert httpx.get(f"http://{address}/api/v1/gpus", headers=headers).status_code == 200
    assert httpx.post(f"http://{address}/telemetry", headers=headers, json=POINT, timeout=30).status_code == 202


@pytest.fixture
def targets(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Side ports of a broker, a streamer, a collector and an api at work on the sample."""
    store = f"delta://{tmp_path / 'store'}"
    with BrokerProcess(tmp_path / "broker") as broker:
        common = ("--port", 0, "--broker-url", broker.url)
        stored = ("--store", store, "--data", tmp_path / "data")
        with (
            Service("collector", *common, *stored, "--grpc-port", 0) as collector,
            Service("api", *common, *stored, environment={"API_KEY": KEY}) as api,
            Service("streamer", *common, "--csv", SAMPLE, "--rate", 5000, "--loop", "--data", tmp_path) as streamer,
        ):
            targets = {
                "broker": broker.http,
                "streamer": streamer.wait_for(r"Starting streamer http=(\S+)")[1],
                "collector": collector.wait_for(r"Starting collector .*http=(\S+)")[1],
                "api": api.wait_for(r"Starting api http=(\S+)")[1],
            }
            collector.wait_for(r"Processed message")
            httpx.get(f"http://{broker.http}/topics")
            ask_api(targets["api"])
            yield targets


def test_prometheus_lint_finds_nothing(targets: dict[str, str]) -> None:
    promtool = require_tool("promtool", "apt-get install -y prometheus")
    for address in targets.values():
        page = httpx.get(f"http://{address}/metrics").content
        checked = subprocess.run([promtool, "check", "metrics"], input=page, capture_output=True, check=False)
        assert (checked.returncode, checked.stdout + checked.stderr) == (0, b"")


def test_prometheus_has_every_metric_of_every_service(program: str, targets: dict[str, str], tmp_path: Path) -> None:
    with Prometheus(program, tmp_path / "prometheus", targets) as prometheus:
        for service, selectors in EXPECTED.items():
            prometheus.wait_for(f"up{{job='{service}'}} == 1")
            for selector in PROCESS:
                prometheus.wait_for(f"{selector}{{job='{service}'}}")
            for selector in selectors:
                prometheus.wait_for(with_service(selector, service))
        for example in EXAMPLES:
            prometheus.wait_for(f"({example}) >= 0")  # a number, and not NaN
        page = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
        queries = [
            query
            for block in re.findall(r"```promql\n(.*?)```", page, re.DOTALL)
            for query in block.splitlines()
            if query and not query.startswith("#")
        ]
        assert len(queries) > 10
        for query in queries:
            prometheus.query(query)  # taken, whether or not it gives something now


def test_prometheus_has_every_metric_of_up(program: str, tmp_path: Path) -> None:
    command = ("up", "--csv", SAMPLE, "--data", tmp_path / "data", "--port", 0, "--grpc-port", 0)
    with Service(*command, environment={"API_KEY": KEY}) as running:
        address = running.wait_for(r"^API http://(\S+)")[1]
        running.wait_for(r"samples stored|live")
        httpx.get(f"http://{address}/topics")
        ask_api(address)
        with Prometheus(program, tmp_path / "prometheus", {"up": address}) as prometheus:
            prometheus.wait_for("up{job='up'} == 1")
            prometheus.wait_for("service_health{service='up'} == 1")
            for service, selectors in EXPECTED.items():
                for selector in selectors:
                    if not selector.startswith(NOT_IN_UP):
                        prometheus.wait_for(with_service(selector, service))
