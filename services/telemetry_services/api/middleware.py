"""What happens to every HTTP request: it is counted and timed, and its body is bounded."""

import time
from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from telemetry_services.api.problems import problem
from telemetry_services.observability import metrics

_UNMATCHED = "unmatched"


class MeasureRequests:
    """Counts and times requests by the route's template: the paths of a million GPUs are one endpoint."""

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
                method = metrics.method_label(scope["method"])
                metrics.HTTP_REQUESTS.labels(self._service, method, endpoint, str(status)).inc()
                metrics.HTTP_REQUEST_SECONDS.labels(self._service, method, endpoint).observe(seconds)


class LimitBody:
    """Refuses a request (413) whose body is longer than `limit` bytes, before it is in memory."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        received = 0

        async def bounded() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._limit:
                raise self._too_large()
            return message

        announced = dict(scope["headers"]).get(b"content-length", b"0")
        if announced.isdigit() and int(announced) > self._limit:
            answer = problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "request.too_large", self._too_large().detail)
            await answer(scope, receive, send)
            return
        await self._app(scope, bounded, send)

    def _too_large(self) -> HTTPException:
        # Of this kind only, FastAPI lets an error pass that comes while it reads a body.
        message = f"the body is longer than {self._limit:,} bytes: send it in parts"
        return HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, message)
