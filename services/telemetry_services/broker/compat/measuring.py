"""Counts the requests of the compatibility endpoints, and the time to their answers."""

import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from telemetry_services.observability import metrics


class MeasureRequests:
    """Counted when the answer begins: a stream that lives for hours is one request, and not a slow one."""

    def __init__(self, app: ASGIApp, service: str) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = time.perf_counter()
        method = metrics.method_label(scope["method"])
        endpoint = scope["path"]

        async def note(message: Message) -> None:
            if message["type"] == "http.response.start":
                seconds = time.perf_counter() - began
                metrics.HTTP_REQUESTS.labels(self._service, method, endpoint, str(message["status"])).inc()
                metrics.HTTP_REQUEST_SECONDS.labels(self._service, method, endpoint).observe(seconds)
            await send(message)

        with metrics.ACTIVE_CONNECTIONS.labels(self._service).track_inprogress():
            await self._app(scope, receive, note)
