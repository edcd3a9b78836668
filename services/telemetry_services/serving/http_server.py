"""HTTP: uvicorn on a socket that is already bound, and the routes that every service answers."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable, Iterator
from typing import Any, Final

import uvicorn
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from telemetry_services.observability import metrics
from telemetry_services.serving.http_connection import HttpConnection
from telemetry_services.serving.sockets import address

METRICS_CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_DRAIN_SECONDS: Final = 3
_READY_SECONDS: Final = 2.0  # below the three seconds after which a probe gives up


class Health:
    """Whether a service is alive and ready, and what it says about itself.

    Args:
        details: gives the fields of `/health` beside `status`.
        ready: says why the service is not ready, or gives an empty text. It may block: it is called in a thread.
        more_metrics: a page of metrics that the process does not keep itself. It may block: it is called in a thread.
    """

    def __init__(
        self,
        service: str,
        *,
        details: Callable[[], dict[str, Any]] = dict,
        ready: Callable[[], str] = str,
        more_metrics: Callable[[], bytes] = bytes,
    ) -> None:
        self._service = service
        self._details = details
        self._ready = ready
        self._more_metrics = more_metrics
        self.draining = False

    def health(self) -> dict[str, Any]:
        """Body of `/health`: the process lives."""
        return {"status": "healthy", "service": self._service, **self._details()}

    async def ready(self) -> tuple[int, dict[str, Any]]:
        """Status and body of `/ready`: work can be given to it now."""
        reason = "draining" if self.draining else await self._reason()
        metrics.SERVICE_HEALTH.labels(self._service).set(0 if reason else 1)
        return (503, {"status": "unready", "reason": reason}) if reason else (200, {"status": "ready"})

    async def _reason(self) -> str:
        try:
            async with asyncio.timeout(_READY_SECONDS):
                return await asyncio.to_thread(self._ready)
        except TimeoutError:
            return f"the check takes longer than {_READY_SECONDS:g} s"

    async def metrics(self) -> bytes:
        """Body of `/metrics`."""
        await self.ready()
        return await asyncio.to_thread(lambda: metrics.render(self._more_metrics()))


def side_port_routes(health: Health) -> list[Route]:
    """`/health`, `/ready` and `/metrics`: always open, without credentials."""

    async def show_health(_: Request) -> Response:
        return JSONResponse(health.health())

    async def show_ready(_: Request) -> Response:
        status, body = await health.ready()
        return JSONResponse(body, status_code=status)

    async def show_metrics(_: Request) -> Response:
        return Response(await health.metrics(), media_type=METRICS_CONTENT_TYPE)

    return [Route("/health", show_health), Route("/ready", show_ready), Route("/metrics", show_metrics)]


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leaves the signals to the service."""
        yield


class HttpServer:
    """An ASGI app on a bound socket, from `start` to `stop`.

    Args:
        tls: None: in plain text.
        max_connections: at the same time; on further ones a request is answered 503.
    """

    def __init__(
        self,
        app: ASGIApp,
        listener: socket.socket,
        *,
        tls: ssl.SSLContext | None = None,
        max_connections: int | None = None,
    ) -> None:
        self._listener = listener
        self._tls = tls
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=_DRAIN_SECONDS,
            server_header=False,
            http=HttpConnection,
            limit_concurrency=max_connections,
        )
        config.load()
        config.ssl = tls  # uvicorn takes files of its own only
        self._server = _Server(config)
        self._task: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """`http://host:port`, or `https://...`."""
        return f"{'http' if self._tls is None else 'https'}://{self.address}"

    @property
    def address(self) -> str:
        """`host:port`."""
        return address(self._listener)

    async def start(self) -> None:
        """Takes requests from here on."""
        self._task = asyncio.create_task(self._server.serve(sockets=[self._listener]))

    async def stop(self) -> None:
        """Finishes the requests under way, for at most 3 s, and closes the socket."""
        self._server.should_exit = True
        if self._task is not None:
            await self._task
