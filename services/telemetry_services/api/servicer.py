"""QueryService: what the REST API answers, over gRPC, for the same keys."""

from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from http import HTTPStatus
from typing import Any, Final, NoReturn

import grpc
import pyarrow as pa

from telemetry_broker.errors import BrokerError
from telemetry_broker.status_details import DETAILS_KEY
from telemetry_broker.v1 import query_pb2 as pb
from telemetry_broker.v1 import query_pb2_grpc
from telemetry_services.api.access import Access, Asker
from telemetry_services.api.live.selection import Selection
from telemetry_services.api.live.streams import Live, Points, Wish, parse_positions
from telemetry_services.api.live.viewers import Event
from telemetry_services.api.problems import ApiError
from telemetry_services.api.queries import (
    DEFAULT_LIMIT,
    MAX_LIMIT,
    MAX_WINDOW_SECONDS,
    Queries,
    TimeRange,
    refuse,
)
from telemetry_services.security.api_keys import ApiKey
from telemetry_services.serving.error_details import details_of
from telemetry_services.serving.grpc_server import abort_with
from telemetry_services.store import Aggregate, Gpu, Sample

SERVICE: Final = pb.DESCRIPTOR.services_by_name["QueryService"].full_name
_DEFAULT_PAGE: Final = 1000
_MAX_PAGE: Final = 10_000
_PART_SAMPLES: Final = 2000
_DEFAULT_RANGE_LIMIT: Final = 1_000_000
_PAGE_ROWS: Final = 10_000
_STATUS: Final = {
    HTTPStatus.BAD_REQUEST: grpc.StatusCode.INVALID_ARGUMENT,
    HTTPStatus.UNAUTHORIZED: grpc.StatusCode.UNAUTHENTICATED,
    HTTPStatus.FORBIDDEN: grpc.StatusCode.PERMISSION_DENIED,
    HTTPStatus.NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    HTTPStatus.TOO_MANY_REQUESTS: grpc.StatusCode.RESOURCE_EXHAUSTED,
    HTTPStatus.SERVICE_UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
}
_AGGREGATES: Final[dict[int, Aggregate]] = {
    pb.AGGREGATION_UNSPECIFIED: "mean",
    pb.AGGREGATION_MEAN: "mean",
    pb.AGGREGATION_MIN: "min",
    pb.AGGREGATION_MAX: "max",
    pb.AGGREGATION_LAST: "last",
    pb.AGGREGATION_P95: "p95",
}

Context = grpc.aio.ServicerContext[Any, Any]


class QueryServicer(query_pb2_grpc.QueryServiceServicer):
    """Wire to questions and back."""

    def __init__(self, queries: Queries, live: Live, access: Access) -> None:
        self._queries = queries
        self._live = live
        self._access = access

    async def ListGpus(self, request: pb.ListGpusRequest, context: Context) -> pb.ListGpusResponse:  # noqa: N802
        await self._admit(context, "ListGpus")
        try:
            size = _bounded("page_size", request.page_size or _DEFAULT_PAGE, _MAX_PAGE)
            page = self._queries.page_of_gpus(_selection(request.filter), size, request.page_token or None)
        except ApiError as error:
            await _abort(context, error)
        fleet = self._queries.fleet
        return pb.ListGpusResponse(
            gpus=[_gpu(fleet.gpu(number)) for number in page.numbers], next_page_token=page.next_cursor or ""
        )

    async def Latest(self, request: pb.LatestRequest, context: Context) -> pb.LatestResponse:  # noqa: N802
        await self._admit(context, "Latest")
        try:
            await self._queries.check_metrics(request.metrics)
        except ApiError as error:
            await _abort(context, error)
        found = self._queries.latest_of(_selection(request.filter), frozenset(request.metrics))
        return pb.LatestResponse(
            gpus=[_gpu(gpu) for gpu, _ in found],
            samples=[
                pb.Sample(uuid=gpu.uuid, metric=value.metric, time_ns=value.time_ns, value=value.value)
                for gpu, values in found
                for value in values
            ],
        )

    async def GetTelemetry(  # noqa: N802
        self, request: pb.GetTelemetryRequest, context: Context
    ) -> AsyncIterator[pb.GetTelemetryResponse]:
        await self._admit(context, "GetTelemetry")
        between = TimeRange(request.start_ns or None, request.end_ns or None)
        limit = request.limit or (DEFAULT_LIMIT if between == TimeRange() else _DEFAULT_RANGE_LIMIT)
        told: set[str] = set()
        try:
            _bounded("window_ms", request.window_ms, round(MAX_WINDOW_SECONDS * 1000))
            await self._queries.check_metrics(request.metrics)
            answers = (
                self._windows(request, between, limit) if request.window_ms else self._raw(request, between, limit)
            )
            async for samples in answers:
                for start in range(0, len(samples), _PART_SAMPLES):
                    part = samples[start : start + _PART_SAMPLES]
                    new = [gpu for gpu in self._gpus_of(sample.uuid for sample in part) if gpu.uuid not in told]
                    told.update(gpu.uuid for gpu in new)
                    yield pb.GetTelemetryResponse(gpus=new, samples=part)
        except ApiError as error:
            await _abort(context, error)
        except BrokerError as error:
            await abort_with(context, error)

    async def _raw(
        self, request: pb.GetTelemetryRequest, between: TimeRange, limit: int
    ) -> AsyncIterator[Sequence[pb.Sample]]:
        cursor: str | None = None
        while limit > 0:
            answer = await self._queries.samples(
                request.gpu_id,
                hostname=request.hostname or None,
                metrics=request.metrics,
                between=between,
                limit=min(limit, _PAGE_ROWS),
                cursor=cursor,
            )
            limit -= len(answer.samples)
            yield [_sample(sample) for sample in answer.samples]
            cursor = answer.next_cursor
            if cursor is None:
                return

    async def _windows(
        self, request: pb.GetTelemetryRequest, between: TimeRange, limit: int
    ) -> AsyncIterator[Sequence[pb.Sample]]:
        hostnames = (request.hostname,) if request.hostname else ()
        cursor: str | None = None
        while limit > 0:
            answer = await self._queries.series(
                selection=Selection(gpus=(request.gpu_id,), hostnames=hostnames),
                metrics=request.metrics,
                between=between,
                window_ns=request.window_ms * 1_000_000,
                aggregate=_AGGREGATES.get(request.aggregation, "mean"),
                limit=min(MAX_LIMIT, _PAGE_ROWS),
                cursor=cursor,
            )
            samples = list(_samples_of(answer.table))[:limit]
            limit -= len(samples)
            yield samples
            cursor = answer.next_cursor
            if cursor is None:
                return

    async def Watch(self, request: pb.WatchRequest, context: Context) -> AsyncIterator[pb.WatchResponse]:  # noqa: N802
        key = await self._admit(context, "Watch")
        wish = Wish(_selection(request.filter), tuple(sorted(set(request.metrics))))
        told: set[tuple[str, str]] = set()
        try:
            resume = parse_positions(request.resume_token) if request.resume_token else None
            events = self._live.watch(wish, _Proto(), lambda: self._access.key_ring.is_current(key), resume)
            async for event in events:
                new = [gpu for gpu in event.gpus if (gpu.uuid, gpu.hostname) not in told]
                told.update((gpu.uuid, gpu.hostname) for gpu in new)
                yield pb.WatchResponse(
                    gpus=new, samples=event.samples, resume_token=event.resume_token, dropped=event.dropped
                )
        except ApiError as error:
            await _abort(context, error)
        await _abort(
            context, ApiError(HTTPStatus.SERVICE_UNAVAILABLE, "live.ended", "the stream has ended: watch again")
        )

    def _gpus_of(self, uuids: Iterable[str]) -> list[pb.Gpu]:
        selection = Selection(gpus=tuple(dict.fromkeys(uuids)))
        return [_gpu(gpu) for gpu, _ in self._queries.latest_of(selection, ("",))] if selection.gpus else []

    async def _admit(self, context: Context, method: str) -> ApiKey:
        metadata = {str(name): value for name, value in context.invocation_metadata() or ()}
        scheme, _, token = str(metadata.get("authorization", "")).partition(" ")
        text = str(metadata.get("x-api-key") or (token.strip() if scheme.lower() == "bearer" else ""))
        try:
            key, _ = self._access.admit_key(text, "read", Asker("grpc", "POST", f"/{SERVICE}/{method}"))
        except ApiError as error:
            await _abort(context, error)
        return key


class _Proto:
    """Messages of Watch."""

    heartbeat = pb.WatchResponse()

    def hello(self, gpus: int, trouble: str, event_id: str) -> Event[pb.WatchResponse]:  # noqa: ARG002
        return _event(pb.WatchResponse(resume_token=event_id))

    def samples(self, points: Points, event_id: str) -> Event[pb.WatchResponse]:
        return _event(
            pb.WatchResponse(
                gpus=[_gpu(gpu) for gpu in {id(gpu): gpu for gpu in points.gpus}.values()],
                samples=[
                    pb.Sample(uuid=gpu.uuid, metric=name, time_ns=time_ns, value=column[row])
                    for row, (gpu, time_ns) in enumerate(zip(points.gpus, points.times_ns, strict=True))
                    for name, column in points.values.items()
                    if column[row] == column[row]
                ],
                resume_token=event_id,
            ),
            points.samples,
        )

    def dropped(self, samples: int) -> Event[pb.WatchResponse]:
        return _event(pb.WatchResponse(dropped=samples))


def _event(message: pb.WatchResponse, samples: int = 0) -> Event[pb.WatchResponse]:
    return Event(message, message.ByteSize(), samples)


def _selection(given: pb.GpuFilter) -> Selection:
    def one(text: str) -> tuple[str, ...]:
        return (text,) if text else ()

    return Selection(tuple(given.ids), one(given.hostname), one(given.namespace), one(given.pod), one(given.model_name))


def _gpu(gpu: Gpu) -> pb.Gpu:
    return pb.Gpu(
        device_id=gpu.device_id,
        gpu_id=gpu.gpu_id,
        uuid=gpu.uuid,
        model_name=gpu.model_name,
        hostname=gpu.hostname,
        container=gpu.container,
        pod=gpu.pod,
        namespace=gpu.namespace,
        last_seen_ns=gpu.last_seen_ns,
    )


def _sample(sample: Sample) -> pb.Sample:
    return pb.Sample(uuid=sample.uuid, metric=sample.metric, time_ns=sample.time_ns, value=sample.value)


def _samples_of(table: pa.Table) -> Iterator[pb.Sample]:
    times = table["time"].cast(pa.int64()).to_pylist()
    uuids = table["uuid"].to_pylist()
    metrics = {field.name: table[field.name].to_pylist() for field in table.schema if pa.types.is_floating(field.type)}
    for row, (time_ns, uuid) in enumerate(zip(times, uuids, strict=True)):
        for name, column in metrics.items():
            if column[row] is not None:
                yield pb.Sample(uuid=uuid, metric=name, time_ns=time_ns, value=column[row])


def _bounded(field: str, value: int, most: int) -> int:
    if value > most:
        raise refuse(f"{field} is {value:,}: expected at most {most:,}")
    return value


async def _abort(context: Context, error: ApiError) -> NoReturn:
    status = _STATUS.get(error.status, grpc.StatusCode.INTERNAL)
    retry_after = float((error.headers or {}).get("Retry-After", 0)) or None
    told = BrokerError(error.message, code=error.code, retry_after=retry_after)
    await context.abort(status, error.message, ((DETAILS_KEY, details_of(told, status).SerializeToString()),))
    raise AssertionError("abort raises")  # for the type checker
