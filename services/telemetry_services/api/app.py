"""The REST API as an ASGI app."""

import asyncio
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from itertools import islice
from typing import Annotated, Any, Final, TypeVar

from fastapi import APIRouter, Depends, FastAPI, Query, Response
from fastapi_offline import FastAPIOffline

from telemetry_services import __version__
from telemetry_services.api.keys import KeyCheck, api_key_header, bearer
from telemetry_services.api.middleware import LimitBody, MeasureRequests
from telemetry_services.api.models import (
    Accepted,
    GpuOut,
    Gpus,
    Hosts,
    Namespaces,
    Problem,
    SampleOut,
    Telemetry,
    TelemetryPoint,
)
from telemetry_services.api.problems import ApiError, add_problem_handlers
from telemetry_services.api.publishing import Publisher
from telemetry_services.api.times import parse_time
from telemetry_services.observability import metrics
from telemetry_services.serving.http_server import METRICS_CONTENT_TYPE, Health
from telemetry_services.store import Store

MAX_LIMIT: Final = 100_000
MAX_POINTS: Final = 10_000
MAX_BODY_BYTES: Final = 16 << 20
_DESCRIPTION: Final = """
The telemetry of a GPU fleet. Send the API key with every call under `/api` and to `/telemetry`, as `X-API-Key: KEY` or
`Authorization: Bearer KEY`. Errors are problem+json, with a stable code in `error` and a sentence in `message`.
"""

T = TypeVar("T")


class _Reader:
    """Calls the store in a thread, and measures it."""

    def __init__(self, store: Store, service: str) -> None:
        self._store = store
        self._service = service

    async def __call__(self, operation: str, read: Callable[[Store], T]) -> T:
        outcome = "error"
        with metrics.DATABASE_SECONDS.labels(self._service, operation).time():
            try:
                result = await asyncio.to_thread(read, self._store)
                outcome = "success"
            finally:
                metrics.DATABASE_OPERATIONS.labels(self._service, operation, outcome).inc()
        return result


def build_app(store: Store, publisher: Publisher, key: KeyCheck, health: Health, *, service: str = "api") -> FastAPI:
    """The app.

    Args:
        key: lets in who may call.
        health: answers for `/health`, `/ready` and `/metrics`.
        service: label of the metrics.
    """
    app: FastAPI = FastAPIOffline(
        title="telemetry-broker",
        version=__version__,
        description=_DESCRIPTION,
        docs_url="/swagger/",
        redoc_url=None,
        openapi_url="/swagger/openapi.json",
        static_url="/swagger/static",
    )
    app.add_middleware(LimitBody, limit=MAX_BODY_BYTES)
    app.add_middleware(MeasureRequests, service=service)
    add_problem_handlers(app)
    app.include_router(_open_routes(health))
    app.include_router(_protected_routes(_Reader(store, service), publisher, key))
    return app


def _open_routes(health: Health) -> APIRouter:
    router = APIRouter(tags=["service"])

    @router.get("/health", summary="Whether the process lives")
    async def show_health() -> dict[str, Any]:
        return health.health()

    @router.get("/ready", summary="Whether it can work now", responses={503: {"description": "Not now."}})
    async def show_ready(response: Response) -> dict[str, Any]:
        response.status_code, body = await health.ready()
        return body

    @router.get("/metrics", summary="Metrics for Prometheus", response_class=Response)
    async def show_metrics() -> Response:
        return Response(await health.metrics(), media_type=METRICS_CONTENT_TYPE)

    return router


def _protected_routes(read: _Reader, publisher: Publisher, check: Callable[..., Awaitable[None]]) -> APIRouter:
    router = APIRouter(
        # The first one checks; the others are there so that the documentation has its "Authorize" button.
        dependencies=[Depends(check), Depends(api_key_header), Depends(bearer)],
        responses={code: {"model": Problem, "content": {"application/problem+json": {}}} for code in (400, 401, 503)},
    )

    @router.get("/api/v1/gpus", summary="All GPUs", tags=["fleet"], response_model_exclude_none=True)
    async def list_gpus() -> Gpus:
        gpus = await read("gpus", lambda store: store.gpus())
        return Gpus(count=len(gpus), gpus=[GpuOut.of(gpu) for gpu in gpus])

    @router.get("/api/v1/gpus/{id}/telemetry", summary="Samples of a GPU", tags=["fleet"])
    async def gpu_telemetry(
        id: str,  # noqa: A002 (the name in the URL)
        start: Annotated[str | None, Query(description="First time, RFC 3339.")] = None,
        end: Annotated[str | None, Query(description="Last time, RFC 3339, included.")] = None,
        start_time: Annotated[str | None, Query(description="The same as `start`.")] = None,
        end_time: Annotated[str | None, Query(description="The same as `end`.")] = None,
        limit: Annotated[int, Query(ge=1, le=MAX_LIMIT, description="At most so many samples.")] = 100,
        metric: Annotated[list[str], Query(description="Only these metrics.")] = [],  # noqa: B006 (FastAPI copies it)
        hostname: Annotated[str | None, Query(description="Only GPUs of this host.")] = None,
    ) -> Telemetry:
        """Samples of a GPU by its uuid, or by a device id such as `nvidia0`, which may name GPUs of several hosts.

        Without a range the newest ones, newest first; with one, oldest first.
        """
        start_ns = _time("start", start or start_time)
        last_ns = _time("end", end or end_time)
        samples = await read(
            "telemetry",
            lambda store: list(
                islice(
                    store.telemetry(
                        id,
                        hostname=hostname,
                        metrics=metric,
                        start_ns=start_ns,
                        end_ns=None if last_ns is None else last_ns + 1,
                        limit=limit,
                    ),
                    limit,
                )
            ),
        )
        return Telemetry(gpu_id=id, count=len(samples), data=[SampleOut.of(sample) for sample in samples])

    @router.get("/api/v1/hosts", summary="All hosts", tags=["fleet"])
    async def list_hosts() -> Hosts:
        return Hosts.of(await read("hosts", lambda store: store.hosts()))

    @router.get("/api/v1/namespaces", summary="All namespaces", tags=["fleet"])
    async def list_namespaces() -> Namespaces:
        return Namespaces.of(await read("namespaces", lambda store: store.namespaces()))

    @router.post("/telemetry", summary="Submit samples", tags=["ingest"], status_code=HTTPStatus.ACCEPTED)
    @router.post("/api/v1/telemetry", summary="Submit samples", tags=["ingest"], status_code=HTTPStatus.ACCEPTED)
    async def submit(points: TelemetryPoint | list[TelemetryPoint]) -> Accepted:
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


def _time(name: str, text: str | None) -> int | None:
    if not text:
        return None
    try:
        # A "+" of an offset arrives as a space when a client does not escape it.
        return parse_time(text.replace(" ", "+") if text[10:11] in "Tt" else text)
    except ValueError as err:
        raise ApiError(HTTPStatus.BAD_REQUEST, "invalid.request", f"{name}: {err}") from err
