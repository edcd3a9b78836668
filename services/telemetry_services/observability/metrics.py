"""Every Prometheus metric that the services keep, with the names and labels that dashboards in the field know.

Those of a broker are kept by the core, which renders them itself (`Broker.render_metrics`).
"""

from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

REGISTRY: Final = CollectorRegistry()
"""The registry of this process; `/metrics` shows it."""

# A series beside each counter that says when it began: nobody asks.
disable_created_metrics()  # type: ignore[no-untyped-call]

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
STORE_HEALTH: Final = Gauge(
    "store_health_status", "1 when the store took what it was last given, else 0.", ("service",), registry=REGISTRY
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
    "1 while the tokens, certificates or brokers in use are those of their files, 0 after a change that cannot be "
    "used.",
    ("service", "files"),
    registry=REGISTRY,
)
REFUSED: Final = Counter(
    "broker_refused",
    "What was refused, by reason: calls without a valid token (unauthenticated), without the role (denied) or beyond "
    "the bound of their client (limited), and connections beyond that of the port (connections).",
    ("service", "reason"),
    registry=REGISTRY,
)
CONNECTIONS: Final = Gauge(
    "broker_connections", "Connections of gRPC clients that are open.", ("service",), registry=REGISTRY
)

PROXY_REQUESTS: Final = Counter(
    "proxy_requests",
    "HTTP requests to the proxy, by what was asked for and outcome.",
    ("service", "request_type", "status"),
    registry=REGISTRY,
)
PROXY_REQUEST_SECONDS: Final = Histogram(
    "proxy_request_duration_seconds",
    "Time from an HTTP request to the proxy to the beginning of its answer.",
    ("service", "request_type"),
    registry=REGISTRY,
    buckets=_SECONDS,
)
PROXY_BROKER_REQUESTS: Final = Counter(
    "proxy_broker_requests",
    "Requests that the proxy sent to a broker, over gRPC and for HTTP, by outcome.",
    ("service", "broker", "status"),
    registry=REGISTRY,
)
PROXY_BROKER_HEALTH: Final = Gauge(
    "proxy_broker_health",
    "1 while the proxy sends requests to the broker, else 0.",
    ("service", "broker"),
    registry=REGISTRY,
)
PROXY_BROKER_BREAKER: Final = Gauge(
    "proxy_broker_breaker",
    "1 for the state that the broker's circuit breaker is in: closed (requests go there), open (none do) or half-open "
    "(one tries).",
    ("service", "broker", "state"),
    registry=REGISTRY,
)
PROXY_BROKER_DRAINING: Final = Gauge(
    "proxy_broker_draining",
    "1 while the broker takes no new records, else 0.",
    ("service", "broker"),
    registry=REGISTRY,
)
PROXY_BROKER_FAILURES: Final = Counter(
    "proxy_broker_failures_detected",
    "Times that the proxy found a broker to be away.",
    ("service", "broker"),
    registry=REGISTRY,
)
PROXY_HEALTH_CHECKS: Final = Counter(
    "proxy_health_checks", "Checks whether a broker answers.", ("service",), registry=REGISTRY
)

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"})


def method_label(method: str) -> str:
    """The method of an HTTP request, or `other`: clients may send any word, and each would be a series for ever."""
    return method if method in _METHODS else "other"


def render(*others: bytes) -> bytes:
    """The page that Prometheus scrapes: the metrics that this process keeps, and pages with others.

    A family that is on several pages is on the joined one once, with the samples of all.
    """
    families: dict[bytes, list[bytes]] = {}
    for page in (generate_latest(REGISTRY), *others):
        # No label's value can hold a line feed, so this begins a family wherever it stands.
        for family in (b"\n" + page).split(b"\n# HELP ")[1:]:
            parts = family.rstrip(b"\n").split(b"\n", 2)  # help, type, samples if there are any
            families.setdefault(family.partition(b" ")[0], parts[:2]).extend(parts[2:])
    return b"".join(b"# HELP " + b"\n".join(parts) + b"\n" for parts in families.values())
