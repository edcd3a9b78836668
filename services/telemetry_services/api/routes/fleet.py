"""The fleet: GPUs, hosts, namespaces, metrics, and their samples."""

import time
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request, Response

from telemetry_services.api.catalogue import describe_metric
from telemetry_services.api.formats import RESPONSES, Format, answer_rows, answer_table, choose, json_columns
from telemetry_services.api.live.fleet import SILENT_AFTER_SECONDS, Value
from telemetry_services.api.models import (
    GpuDetails,
    Gpus,
    GpuState,
    Hosts,
    LatestValue,
    MetricOut,
    Namespaces,
    SampleOut,
    Series,
    Telemetry,
)
from telemetry_services.api.models import (
    Metrics as MetricsOut,
)
from telemetry_services.api.queries import DEFAULT_LIMIT, MAX_LIMIT, Direction, Queries, parse_window, refuse
from telemetry_services.api.routes.parameters import Between, Chosen, CursorText, FormatChoice, Metrics, WindowText
from telemetry_services.api.times import format_time
from telemetry_services.store import Gpu, HostCount, NamespaceCount
from telemetry_services.store.base import Aggregate, GroupBy

_SAMPLE_FIELDS: Final = tuple(SampleOut.model_fields)
_GPU_FIELDS: Final = (
    "device_id", "gpu_id", "uuid", "model_name", "hostname", "container", "pod", "namespace", "gpu_instance_id",
    "last_seen",
)  # fmt: skip
_Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT, description="At most so many rows.")]


def fleet_routes(queries: Queries) -> APIRouter:
    """The routes, without a check of who asks."""
    router = APIRouter(tags=["fleet"])
    _add_gpus(router, queries)
    _add_samples(router, queries)
    _add_names(router, queries)
    return router


def _add_gpus(router: APIRouter, queries: Queries) -> None:
    fleet = queries.fleet

    @router.get("/api/v1/gpus", summary="All GPUs", response_model=Gpus, responses=RESPONSES)
    async def list_gpus(
        request: Request,
        chosen: Chosen,
        limit: Annotated[int | None, Query(ge=1, le=MAX_LIMIT, description="GPUs of a page; default: all.")] = None,
        cursor: CursorText = None,
        wanted: FormatChoice = None,
    ) -> Response:
        """By host, device and uuid. With an `ETag` in `If-None-Match` the answer is empty (304) if nothing is new."""
        found = choose(request, wanted)
        page = queries.page_of_gpus(chosen, limit, cursor)
        headers = _cache_headers(f"{fleet.epoch}.{fleet.revision}", page.next_cursor)
        if request.headers.get("if-none-match") == headers["ETag"]:
            return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
        if found is Format.JSON:
            body = queries.listing.encode(page.numbers, page.total, page.next_cursor)
            return Response(body, media_type="application/json", headers=headers)
        rows = [_gpu_row(fleet.gpu(number)) for number in page.numbers]
        return answer_rows(found, _GPU_FIELDS, rows, headers)

    @router.get("/api/v1/gpus/{id}", summary="A GPU and its newest values", response_model=GpuDetails)
    async def show_gpu(id: str, hostname: str | None = None) -> Response:  # noqa: A002 (the name in the URL)
        """By its uuid, or by a device id such as `nvidia0`, which may name GPUs of several hosts."""
        found = queries.latest(id, hostname)
        if not found:
            shown = id if len(id) <= 100 else f"{id[:100]}..."
            raise refuse(
                f"there is no GPU called {shown!r}: GET /api/v1/gpus lists those that there are",
                "gpu.unknown",
                HTTPStatus.NOT_FOUND,
            )
        body = GpuDetails(gpu_id=id, count=len(found), gpus=[_state(gpu, values) for gpu, values in found])
        return Response(body.model_dump_json(), media_type="application/json")


def _add_samples(router: APIRouter, queries: Queries) -> None:
    @router.get(
        "/api/v1/gpus/{id}/telemetry", summary="Samples of a GPU", response_model=Telemetry, responses=RESPONSES
    )
    async def list_gpu_telemetry(
        request: Request,
        id: str,  # noqa: A002 (the name in the URL)
        between: Between,
        limit: _Limit = DEFAULT_LIMIT,
        metric: Metrics = [],  # noqa: B006 (FastAPI copies it)
        hostname: Annotated[str | None, Query(description="Only GPUs of this host.")] = None,
        cursor: CursorText = None,
        wanted: FormatChoice = None,
    ) -> Response:
        """Samples of a GPU by its uuid, or by a device id such as `nvidia0`, which may name GPUs of several hosts.

        Without a range the newest ones, newest first; with one, oldest first, in pages.
        """
        found = choose(request, wanted)
        await queries.check_metrics(metric)
        answer = await queries.samples(
            id, hostname=hostname, metrics=metric, between=between, limit=limit, cursor=cursor
        )
        headers = _page_headers(answer.next_cursor)
        if found is not Format.JSON:
            rows = [[getattr(out, name) for name in _SAMPLE_FIELDS] for out in map(SampleOut.of, answer.samples)]
            return answer_rows(found, _SAMPLE_FIELDS, rows, headers)
        body = Telemetry(
            gpu_id=id,
            count=len(answer.samples),
            data=[SampleOut.of(sample) for sample in answer.samples],
            next_cursor=answer.next_cursor,
        )
        text = body.model_dump_json(exclude_none=True)
        return Response(text, media_type="application/json", headers=headers)

    @router.get("/api/v1/query", summary="Values over time, of many GPUs", response_model=Series, responses=RESPONSES)
    async def query_telemetry(
        request: Request,
        chosen: Chosen,
        between: Between,
        metric: Metrics = [],  # noqa: B006
        window: WindowText = None,
        agg: Annotated[Aggregate, Query(description="How the values of a window become one.")] = "mean",
        group_by: Annotated[GroupBy, Query(description="Whose values come together in one row.")] = "gpu",
        order: Annotated[Direction, Query(description="Oldest or newest first.")] = "asc",
        limit: _Limit = 10_000,
        cursor: CursorText = None,
        wanted: FormatChoice = None,
    ) -> Response:
        """As columns: the time, the names of whose values they are, and one column a metric.

        With `window`, and a `start`, the values of each window and group become one, as `agg` says. Without, each
        stored time stands for itself.
        """
        found = choose(request, wanted)
        await queries.check_metrics(metric)
        answer = await queries.series(
            selection=chosen,
            metrics=metric,
            between=between,
            window_ns=parse_window(window),
            aggregate=agg,
            group_by=group_by,
            order=order,
            limit=limit,
            cursor=cursor,
        )
        headers = _page_headers(answer.next_cursor)
        if found is not Format.JSON:
            return answer_table(found, answer.table, headers)
        body = Series(count=answer.table.num_rows, columns=json_columns(answer.table), next_cursor=answer.next_cursor)
        return Response(body.model_dump_json(), media_type="application/json", headers=headers)


def _add_names(router: APIRouter, queries: Queries) -> None:
    fleet = queries.fleet

    @router.get("/api/v1/metrics", summary="All metrics")
    async def list_metrics() -> MetricsOut:
        """Every metric that was ever stored, with its unit where that is known."""
        names = await queries.metrics()
        return MetricsOut(count=len(names), metrics=[MetricOut.of(describe_metric(name)) for name in names])

    @router.get("/api/v1/hosts", summary="All hosts", response_model=Hosts)
    async def list_hosts(request: Request) -> Response:
        def hosts() -> Hosts:
            return Hosts.of([HostCount(*count) for count in queries.listing.counts("hostnames")])

        return _answer_counts(request, hosts)

    @router.get("/api/v1/namespaces", summary="All namespaces", response_model=Namespaces)
    async def list_namespaces(request: Request) -> Response:
        def namespaces() -> Namespaces:
            return Namespaces.of([NamespaceCount(*count) for count in queries.listing.counts("namespaces")])

        return _answer_counts(request, namespaces)

    encoded: dict[str, tuple[int, str]] = {}  # by path, with the version that it is of

    def _answer_counts(request: Request, count: Callable[[], Hosts | Namespaces]) -> Response:
        path, version = request.url.path, fleet.version
        headers = _cache_headers(f"{fleet.epoch}.{version}", None)
        if request.headers.get("if-none-match") == headers["ETag"]:
            return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
        if path not in encoded or encoded[path][0] != version:
            encoded[path] = version, count().model_dump_json()
        return Response(encoded[path][1], media_type="application/json", headers=headers)


def _state(gpu: Gpu, values: Sequence[Value]) -> GpuState:
    age = time.time_ns() - gpu.last_seen_ns
    return GpuState(
        **GpuState.fields_of(gpu),
        state="silent" if age > SILENT_AFTER_SECONDS * 1_000_000_000 else "reporting",
        latest=[
            LatestValue(
                metric=value.metric,
                value=value.value,
                unit=describe_metric(value.metric).unit,
                time=format_time(value.time_ns),
            )
            for value in values
        ],
    )


def _gpu_row(gpu: Gpu) -> list[str]:
    return [
        gpu.device_id,
        gpu.gpu_id,
        gpu.uuid,
        gpu.model_name,
        gpu.hostname,
        gpu.container,
        gpu.pod,
        gpu.namespace,
        gpu.instance_id,
        format_time(gpu.last_seen_ns),
    ]


def _cache_headers(tag: str, next_cursor: str | None) -> dict[str, str]:
    return {"ETag": f'W/"{tag}"', "Cache-Control": "private, no-cache", "Vary": "Accept", **_page_headers(next_cursor)}


def _page_headers(next_cursor: str | None) -> dict[str, str]:
    return {"X-Next-Cursor": next_cursor} if next_cursor else {}
