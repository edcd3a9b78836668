"""Counts and times HTTP requests, by the route's template: a path of a million GPUs is one endpoint."""

import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from telemetry_services.observability import metrics

_UNMATCHED = "unmatched"


class MeasureRequests:
    """ASGI middleware for http_requests_total, http_request_duration_seconds and active_connections."""

    def __init__(self, app: ASGIApp, service: str) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 500
        started = time.perf_counter()

        async def note_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        with metrics.ACTIVE_CONNECTIONS.labels(self._service).track_inprogress():
            try:
                await self._app(scope, receive, note_status)
            finally:
                endpoint = getattr(scope.get("route"), "path", _UNMATCHED)
                seconds = time.perf_counter() - started
                metrics.HTTP_REQUESTS.labels(self._service, scope["method"], endpoint, str(status)).inc()
                metrics.HTTP_REQUEST_SECONDS.labels(self._service, scope["method"], endpoint).observe(seconds)
