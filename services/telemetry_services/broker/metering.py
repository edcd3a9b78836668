"""What `/metrics` shows of a broker: what the core tells of itself, and who is connected to it."""

import threading

from telemetry_broker import _core
from telemetry_services.broker.grpc_front import GrpcFront
from telemetry_services.observability.metrics import ACTIVE_CONNECTIONS, CONNECTIONS, REFUSED


class FrontMetrics:
    """Who is connected to a gRPC port, and who was refused. Thread-safe."""

    def __init__(self, grpc_server: GrpcFront, service: str) -> None:
        self._grpc_server = grpc_server
        self._service = service
        self._lock = threading.Lock()
        self._carried_active = 0
        self._carried_refused: dict[str, int] = {}

    def render(self) -> bytes:
        """No page of its own: brings the process's metrics up to now."""
        with self._lock:
            active = self._grpc_server.active
            # Calls that are answered over HTTP count themselves.
            ACTIVE_CONNECTIONS.labels(self._service).inc(active - self._carried_active)
            self._carried_active = active
            refused = self._grpc_server.refused
            for reason, count in refused.items():
                REFUSED.labels(self._service, reason).inc(count - self._carried_refused.get(reason, 0))
            self._carried_refused = refused
        CONNECTIONS.labels(self._service).set(self._grpc_server.connections)
        return b""


class BrokerMetrics:
    """Thread-safe. The core counts and renders; here nothing is done for each topic, partition or record."""

    def __init__(self, core: _core.Broker, grpc_server: GrpcFront, service: str = "broker") -> None:
        self._core = core
        self._front = FrontMetrics(grpc_server, service)
        self._service = service

    def render(self) -> bytes:
        """The core's metrics as text, to be joined with those of the process, which are brought up to now."""
        self._front.render()
        return self._core.render_metrics(self._service)
