"""A grpc.aio server with health and reflection, and the one place where an error becomes a gRPC status."""

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from telemetry_broker.errors import BrokerError
from telemetry_broker.status_details import DETAILS_KEY
from telemetry_services.codes import status_of
from telemetry_services.serving.error_details import details_of

MAX_MESSAGE_BYTES: Final = 16 << 20
MAX_STREAMS: Final = 10_000
_OPTIONS: Final = (
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    # Clients may ping each 10 s, also without a call, so that a dead connection is noticed. On their way pings may come
    # closer to each other; three in less than this end the connection.
    ("grpc.http2.min_ping_interval_without_data_ms", 2_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # A client that is gone without a word is noticed after 30 s, and what it leased is given back.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # Who connects and says nothing.
    ("grpc.server_handshake_timeout_ms", 10_000),
    ("grpc.max_concurrent_streams", MAX_STREAMS),
    # Calls that Python has not taken up yet. By default those past 1,000 are cancelled, and one client that opens many
    # streams at once would have the calls of others cancelled.
    ("grpc.server.max_pending_requests", 2 * MAX_STREAMS),
    ("grpc.server.max_pending_requests_hard_limit", 4 * MAX_STREAMS),
)


def _is_no_gone_client(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith("ExecuteBatchError raised in core")


# gRPC tells, as an error with a traceback, of each client that went away while it was sent something.
logging.getLogger("grpc._cython.cygrpc").addFilter(_is_no_gone_client)


class GrpcServer:
    """A gRPC server on a Unix socket; ports are `GrpcFront`'s.

    Args:
        services: full names, for health and reflection.
    """

    def __init__(self, services: Sequence[str]) -> None:
        self._server = grpc.aio.server(options=_OPTIONS)
        self._health = health.aio.HealthServicer()
        self._services = ("", *services)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection((*services, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server)

    @property
    def server(self) -> grpc.aio.Server:
        """The server itself, for generated `add_..._to_server` functions."""
        return self._server

    def listen_unix(self, path: Path) -> None:
        """Binds a Unix socket, which must not be there."""
        self._server.add_insecure_port(f"unix:{path}")

    async def start(self) -> None:
        """Takes calls from here on, and says so to health checks."""
        await self._server.start()
        await self._set_health(health_pb2.HealthCheckResponse.SERVING)

    async def stop(self, grace: float) -> None:
        """Takes no new call, lets those under way finish for `grace` seconds, and ends."""
        await self._set_health(health_pb2.HealthCheckResponse.NOT_SERVING)
        await self._server.stop(grace)

    async def _set_health(self, status: int) -> None:
        await asyncio.gather(*(self._health.set(service, status) for service in self._services))


async def abort_with(context: grpc.aio.ServicerContext[Any, Any], error: BrokerError) -> NoReturn:
    """Ends a call with the status of an error's code; code, retry delay and wrong field travel as details."""
    status = status_of(error.code)
    trailers = ((DETAILS_KEY, details_of(error, status).SerializeToString()),)
    await context.abort(status, error.message, trailers)
    raise AssertionError("abort raises")  # for the type checker
