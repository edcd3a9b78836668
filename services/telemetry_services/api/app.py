"""The REST API and the web page as an ASGI app."""

from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Any, Final

from fastapi import APIRouter, Body, Depends, FastAPI, Response
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi_offline import FastAPIOffline
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware

from telemetry_services import __version__
from telemetry_services.api.access import COOKIE, Access
from telemetry_services.api.headers import SecurityHeaders
from telemetry_services.api.live.fleet import Fleet
from telemetry_services.api.live.frames import Frames
from telemetry_services.api.live.streams import Live
from telemetry_services.api.middleware import LimitBody, MeasureRequests
from telemetry_services.api.models import Accepted, Problem, TelemetryPoint
from telemetry_services.api.pipeline import Pipeline
from telemetry_services.api.problems import CONTENT_TYPE as PROBLEM_TYPE
from telemetry_services.api.problems import ApiError, add_problem_handlers
from telemetry_services.api.publishing import Publisher
from telemetry_services.api.queries import Queries
from telemetry_services.api.routes.fleet import fleet_routes
from telemetry_services.api.routes.live import live_routes
from telemetry_services.api.routes.pipeline import pipeline_routes
from telemetry_services.api.session import OneTimeTokens, session_routes
from telemetry_services.api.web import page_routes
from telemetry_services.serving.http_server import METRICS_CONTENT_TYPE, Health

MAX_POINTS: Final = 10_000
MAX_BODY_BYTES: Final = 16 << 20
_GZIP_LEVEL: Final = 1  # a fifth of the time of the usual level, for answers a tenth larger
_DESCRIPTION: Final = f"""
The telemetry of a GPU fleet. Send an API key with every call under `/api` and to `/telemetry`, as `X-API-Key: KEY` or
`Authorization: Bearer KEY`; the page at `/` keeps one in the cookie `{COOKIE}`. A key has roles: `read`, `write` for
`POST /telemetry`, `admin` for what moves things in the broker. Times are RFC 3339 with nanoseconds, UTC. Errors are
problem+json, with a stable code in `error` and a sentence in `message`.
"""
_PROBLEMS: Final[dict[int | str, dict[str, Any]]] = {
    code: {"model": Problem, "content": {PROBLEM_TYPE: {}}, "description": text}
    for code, text in (
        (400, "The request makes no sense; the message says what to send instead."),
        (401, "No valid API key."),
        (403, "The key has not the role."),
        (404, "There is no such thing."),
        (406, "None of the formats in Accept."),
        (409, "It is not in a state in which this can be done."),
        (413, "The body is too long; send it in parts."),
        (429, "Too many requests; `Retry-After` says when to try again."),
        (501, "Not here; the message says where."),
        (503, "Not now; `Retry-After` says when to try again."),
    )
}


@dataclass(frozen=True, slots=True)
class Parts:
    """What the app answers from.

    Attributes:
        health: answers for `/health`, `/ready` and `/metrics`.
        cors_origins: web pages of these may use the API; ``["*"]``: of all.
    """

    fleet: Fleet
    frames: Frames
    live: Live
    queries: Queries
    pipeline: Pipeline
    publisher: Publisher
    access: Access
    tokens: OneTimeTokens
    health: Health
    cors_origins: tuple[str, ...] = ()


def build_app(parts: Parts, *, service: str = "api") -> FastAPI:
    """The app; `service` is the label of its metrics."""
    app: FastAPI = FastAPIOffline(
        title="telemetry-broker",
        version=__version__,
        description=_DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        openapi_url="/swagger/openapi.json",
        static_url="/swagger/static",
        generate_unique_id_function=lambda route: route.name,  # what a generated client calls it
    )
    app.add_middleware(GZipMiddleware, minimum_size=1024, compresslevel=_GZIP_LEVEL)
    app.add_middleware(LimitBody, limit=MAX_BODY_BYTES)
    if parts.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(parts.cors_origins),
            allow_methods=["GET", "HEAD", "POST"],
            allow_headers=["X-API-Key", "Authorization", "Content-Type", "Last-Event-ID", "If-None-Match"],
            expose_headers=["ETag", "Retry-After", "RateLimit", "RateLimit-Policy", "X-Next-Cursor"],
            max_age=600,
        )
    app.add_middleware(MeasureRequests, service=service)
    app.add_middleware(SecurityHeaders)
    add_problem_handlers(app)
    access, reader = parts.access, Depends(parts.access.requires("read"))
    app.include_router(_open_routes(parts.health))
    app.include_router(session_routes(access, parts.tokens), responses=_responses(400, 401, 403, 413, 429))
    app.include_router(fleet_routes(parts.queries), dependencies=[reader], responses=_PROBLEMS)
    app.include_router(
        live_routes(parts.fleet, parts.frames, parts.live, access), dependencies=[reader], responses=_PROBLEMS
    )
    app.include_router(pipeline_routes(parts.pipeline, access), responses=_PROBLEMS)
    app.include_router(_ingest_routes(parts.publisher, access), responses=_PROBLEMS)
    app.router.routes.extend(page_routes())
    _mend_document(app)
    return app


def _mend_document(app: FastAPI) -> None:
    """Has it promise what is answered, and nothing else.

    FastAPI adds its own answer for what makes no sense, in place of which ours is a problem with 400, and JSON to what
    is none.
    """
    make = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = make()
            for operations in document["paths"].values():
                for operation in operations.values():
                    operation["responses"].pop("422", None)
                    for answer in operation["responses"].values():
                        _mend_content(answer.get("content", {}))
            for name in ("HTTPValidationError", "ValidationError"):
                document["components"]["schemas"].pop(name, None)
        return app.openapi_schema or make()

    app.openapi = openapi  # type: ignore[method-assign]


def _mend_content(content: dict[str, Any]) -> None:
    if PROBLEM_TYPE in content:
        content[PROBLEM_TYPE] = content.pop("application/json")
    if "text/event-stream" in content:
        del content["application/json"]


def _responses(*codes: int) -> dict[int | str, dict[str, Any]]:
    return {code: _PROBLEMS[code] for code in codes}


def _open_routes(health: Health) -> APIRouter:
    router = APIRouter(tags=["service"])

    @router.get("/health", summary="Whether the process lives")
    async def show_health() -> dict[str, Any]:
        return health.health()

    @router.get("/ready", summary="Whether it can work now", responses={503: {"description": "Not now."}})
    async def show_ready(response: Response) -> dict[str, Any]:
        response.status_code, body = await health.ready()
        return body

    @router.get(
        "/metrics",
        summary="Metrics for Prometheus",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    async def show_metrics() -> Response:
        return Response(await health.metrics(), media_type=METRICS_CONTENT_TYPE)

    @router.get("/swagger/", include_in_schema=False)
    async def show_documentation() -> Response:
        page = get_swagger_ui_html(
            openapi_url="/swagger/openapi.json",
            title="telemetry-broker API",
            swagger_js_url="/swagger/static/swagger-ui-bundle.js",
            swagger_css_url="/swagger/static/swagger-ui.css",
            swagger_favicon_url="/web/icon.svg",
        )
        text = bytes(page.body).decode()
        # Its script stands in the page, where our policy lets none run: ours is a file.
        head, _, rest = text.partition("<!-- `SwaggerUIBundle` is now available on the page -->")
        _, _, tail = rest.partition("</script>")
        return Response(f'{head}<script src="/web/swagger.js"></script>{tail}', media_type="text/html")

    return router


def _ingest_routes(publisher: Publisher, access: Access) -> APIRouter:
    router = APIRouter(tags=["ingest"], dependencies=[Depends(access.requires("write"))])

    @router.post("/telemetry", name="submit", summary="Submit samples", status_code=HTTPStatus.ACCEPTED)
    @router.post("/api/v1/telemetry", summary="Submit samples", status_code=HTTPStatus.ACCEPTED)
    async def submit_telemetry(points: Annotated[TelemetryPoint | list[TelemetryPoint], Body()]) -> Accepted:
        """One point or a list of 1 to 10,000. Answered once the broker has stored them; the store follows."""
        given = points if isinstance(points, list) else [points]
        if not given:
            raise ApiError(HTTPStatus.BAD_REQUEST, "invalid.request", "the list is empty: give one point at least")
        if len(given) > MAX_POINTS:
            raise ApiError(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                "request.too_large",
                f"{len(given):,} points in one request: expected at most {MAX_POINTS:,}; split them",
            )
        return Accepted(accepted=await publisher.publish(given))

    return router
