"""What every service stands on: sockets, an HTTP side port, a gRPC server, health, signals and a clean end."""

from telemetry_services.serving.grpc_server import GrpcServer, abort_with
from telemetry_services.serving.http_server import Health, HttpServer, side_port_routes
from telemetry_services.serving.lifetime import run_until_signalled
from telemetry_services.serving.sockets import listen

__all__ = ["GrpcServer", "Health", "HttpServer", "abort_with", "listen", "run_until_signalled", "side_port_routes"]
