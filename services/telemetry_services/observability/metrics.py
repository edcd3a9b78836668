"""Every Prometheus metric of the services, with the names and labels that dashboards in the field know."""

from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

REGISTRY: Final = CollectorRegistry()
"""The registry of this process; `/metrics` shows it."""

ProcessCollector(registry=REGISTRY)
PlatformCollector(registry=REGISTRY)

_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

HTTP_REQUESTS: Final = Counter(
    "http_requests", "HTTP requests answered.", ("service", "method", "endpoint", "status"), registry=REGISTRY
)
HTTP_REQUEST_SECONDS: Final = Histogram(
    "http_request_duration_seconds",
    "Time from an HTTP request to the end of its answer.",
    ("service", "method", "endpoint"),
    registry=REGISTRY,
    buckets=_SECONDS,
)
MESSAGES_PRODUCED: Final = Counter(
    "messages_produced",
    "Records that the broker stored for this service.",
    ("service", "topic"),
    registry=REGISTRY,
)
MESSAGES_CONSUMED: Final = Counter(
    "messages_consumed", "Records taken from the broker and done with.", ("service", "topic"), registry=REGISTRY
)
MESSAGE_PROCESSING_SECONDS: Final = Histogram(
    "message_processing_duration_seconds",
    "Time from taking a batch of records to its ack.",
    ("service", "topic"),
    registry=REGISTRY,
    buckets=(*_SECONDS, 30.0, 60.0),
)
DATA_POINTS: Final = Counter(
    "telemetry_data_points",
    "Samples by what became of them: sent, stored, accepted, rejected, duplicate (a later row counts), or missing.",
    ("service", "type"),
    registry=REGISTRY,
)
REJECTS: Final = Counter(
    "telemetry_rejects", "Rows or records that could not be used, by reason.", ("service", "reason"), registry=REGISTRY
)
DATABASE_OPERATIONS: Final = Counter(
    "database_operations", "Calls of the store, by outcome.", ("service", "operation", "status"), registry=REGISTRY
)
DATABASE_SECONDS: Final = Histogram(
    "database_operation_duration_seconds",
    "Time a call of the store took.",
    ("service", "operation"),
    registry=REGISTRY,
    buckets=(*_SECONDS, 30.0, 60.0),
)
SERVICE_HEALTH: Final = Gauge("service_health", "1 when the service is ready, else 0.", ("service",), registry=REGISTRY)
BROKER_HEALTH: Final = Gauge(
    "broker_health_status", "1 while the broker answers, else 0.", ("service", "broker"), registry=REGISTRY
)
ACTIVE_CONNECTIONS: Final = Gauge(
    "active_connections", "Calls being answered now, long polls and streams included.", ("service",), registry=REGISTRY
)

SECURITY_FILES: Final = Gauge(
    "security_files_current",
    "1 while the tokens or certificates in use are those of their files, 0 after a change that cannot be used.",
    ("service", "files"),
    registry=REGISTRY,
)

QUEUE_SIZE: Final = Gauge(
    "message_queue_size",
    "Records of a partition that some group has not acked.",
    ("service", "topic", "partition"),
    registry=REGISTRY,
)
QUEUE_BYTES: Final = Gauge(
    "message_queue_bytes", "Bytes of a partition's log.", ("service", "topic", "partition"), registry=REGISTRY
)


class PartitionMetrics(NamedTuple):
    """State of one partition; counts are since the broker started."""

    topic: str
    partition: int
    queued: int
    nbytes: int
    appended: int
    leased: int


class BrokerMetrics:
    """Carries what the core counts over into the metrics, whenever they are asked for.

    Args:
        read: gives the partitions as they are now.
        active: gives the gRPC calls that the core answers now.
    """

    def __init__(self, service: str, read: Callable[[], Iterable[PartitionMetrics]], active: Callable[[], int]) -> None:
        self._service = service
        self._read = read
        self._active = active
        self._carried_active = 0
        self._carried: dict[tuple[str, int], tuple[int, int]] = {}

    def refresh(self) -> None:
        """Brings gauges and counters up to now."""
        active = self._active()
        # Those that are answered over HTTP count themselves.
        ACTIVE_CONNECTIONS.labels(self._service).inc(active - self._carried_active)
        self._carried_active = active
        QUEUE_SIZE.clear()
        QUEUE_BYTES.clear()
        for now in self._read():
            QUEUE_SIZE.labels(self._service, now.topic, str(now.partition)).set(now.queued)
            QUEUE_BYTES.labels(self._service, now.topic, str(now.partition)).set(now.nbytes)
            appended, leased = self._carried.get((now.topic, now.partition), (0, 0))
            # A topic that was deleted and made again counts from 0: what was carried over stays.
            MESSAGES_PRODUCED.labels(self._service, now.topic).inc(max(0, now.appended - appended))
            MESSAGES_CONSUMED.labels(self._service, now.topic).inc(max(0, now.leased - leased))
            self._carried[now.topic, now.partition] = (now.appended, now.leased)


def render() -> bytes:
    """The text that Prometheus scrapes."""
    return generate_latest(REGISTRY)
