"""The endpoints as an ASGI app that stands in front of another one."""

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from typing import Final

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from telemetry_broker import _core
from telemetry_broker.aio.transport import run
from telemetry_broker.calls import topics as all_topics
from telemetry_broker.errors import BrokerError, InvalidArgumentError, NotFoundError, StaleLeaseError
from telemetry_broker.v1 import broker_pb2 as pb
from telemetry_services.broker.compat.access import RefuseWebPages
from telemetry_services.broker.compat.errors import answer_error
from telemetry_services.broker.compat.events import EventId
from telemetry_services.broker.compat.measuring import MeasureRequests
from telemetry_services.broker.compat.on_demand import TopicsOnDemand
from telemetry_services.broker.compat.requests import (
    bounded_body,
    json_object,
    partition_parameter,
    payload_of,
    text_parameter,
    trace_headers,
)
from telemetry_services.broker.compat.sse import HEARTBEAT_SECONDS, EventStream
from telemetry_services.broker.compat.upstream import Upstream
from telemetry_services.security import Guard

log = logging.getLogger(__name__)

MAX_BODY_BYTES: Final = 1 << 20
MAX_ACK_BYTES: Final = 64 << 10
_STREAM_HEADERS: Final = {"Content-Type": "text/event-stream", "Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


class CompatibilityEndpoints:
    """`/produce`, `/consume`, `/ack` and `/topics` over a broker, or several.

    Args:
        guard: asks who comes; None: nobody is asked.
        partitions: of a topic made on demand.
        service: label of the metrics.
        heartbeat_seconds: silence after which a stream sends a comment line.
    """

    def __init__(
        self,
        upstream: Upstream,
        guard: Guard | None = None,
        *,
        partitions: int,
        service: str = "broker",
        heartbeat_seconds: float = HEARTBEAT_SECONDS,
    ) -> None:
        self._upstream = upstream
        self._guard = guard
        self._topics = TopicsOnDemand(upstream, partitions)
        self._heartbeat_seconds = heartbeat_seconds
        self._holders: dict[bytes, EventStream] = {}
        app = Starlette(
            routes=[
                Route("/produce", self._produce, methods=["POST"]),
                Route("/consume", self._consume, methods=["GET"]),
                Route("/ack", self._ack, methods=["POST"]),
                Route("/topics", self._list_topics, methods=["GET"]),
            ],
            exception_handlers={BrokerError: answer_error, ClientDisconnect: _answer_nobody},
        )
        self._app = MeasureRequests(RefuseWebPages(app), service)
        self._paths = frozenset(route.path for route in app.routes if isinstance(route, Route))

    def in_front_of(self, app: ASGIApp) -> ASGIApp:
        """An app that answers these endpoints, and leaves all others to `app`."""

        async def dispatch(scope: Scope, receive: Receive, send: Send) -> None:
            ours = scope["type"] == "http" and scope["path"] in self._paths
            await (self._app if ours else app)(scope, receive, send)

        return dispatch

    def _admit(self, request: Request, method: str, topic: str = "") -> _core.Caller | None:
        return None if self._guard is None else self._guard.admit(request, method, topic)

    async def _produce(self, request: Request) -> Response:
        topic, partition = text_parameter(request, "topic"), partition_parameter(request)
        caller = self._admit(request, "Produce", topic)  # noqa: F841 (a call of its client until the end)
        value = payload_of(await bounded_body(request, MAX_BODY_BYTES))
        headers = [pb.Header(name=name, value=content) for name, content in trace_headers(request).items()]
        record = pb.Record(value=value, headers=headers)
        message = pb.ProduceRequest(topic=topic, partition=partition, records=[record])
        encoded = message.SerializeToString()
        try:
            answer = await self._upstream.call("Produce", encoded, topic)
        except NotFoundError:
            await self._topics.ensure(topic, partition)
            answer = await self._upstream.call("Produce", encoded, topic)
        at = pb.ProduceResponse.FromString(answer).appended[0]
        return JSONResponse({"id": f"{at.partition}.{at.base_offset}"})

    async def _consume(self, request: Request) -> Response:
        topic, group = text_parameter(request, "topic"), text_parameter(request, "group")
        partition = partition_parameter(request)
        caller = self._admit(request, "Consume", topic)
        if request.method == "HEAD":
            return Response(headers=_STREAM_HEADERS)
        stream = EventStream(
            self._upstream,
            self._holders,
            topic,
            group,
            partition,
            self._heartbeat_seconds,
            caller=caller,
        )
        await stream.open()
        return _EventStreamResponse(stream)

    async def _ack(self, request: Request) -> Response:
        topic, group = text_parameter(request, "topic"), text_parameter(request, "group")
        partition = partition_parameter(request)
        caller = self._admit(request, "Ack", topic)  # noqa: F841 (a call of its client until the end)
        given = json_object(await bounded_body(request, MAX_ACK_BYTES)).get("id")
        if not isinstance(given, str):
            raise InvalidArgumentError('the body names no event: expected {"id": "..."} with the id of an event')
        event_id = EventId.parse(given)
        if partition not in (None, event_id.partition):
            raise InvalidArgumentError(
                f"event {given!r} is of partition {event_id.partition}, not {partition}", code="invalid.lease"
            )
        offsets = pb.OffsetRange(start=event_id.offset, end=event_id.offset + 1)
        lease = pb.LeaseRange(lease_id=event_id.lease_id, ranges=[offsets])
        message = pb.AckRequest(topic=topic, group=group, leases=[lease])
        answer = pb.AckResponse.FromString(await self._upstream.call("Ack", message.SerializeToString(), topic))
        if answer.stale:
            raise StaleLeaseError(
                f"{topic}/{event_id.partition} offset {event_id.offset}: no longer held by this event (given to "
                f"another consumer, acked as another event, or passed by a seek), or not of group {group!r}, so not "
                "acked. Handle events within the visibility timeout"
            )
        holder = self._holders.get(event_id.lease_id)
        if holder is not None:
            await holder.settled(event_id.lease_id)
        return PlainTextResponse("ok")

    async def _list_topics(self, request: Request) -> Response:
        caller = self._admit(request, "ListTopics")
        topics = await run(all_topics(), self._upstream)
        shown = [topic for topic in topics if caller is None or caller.sees(topic.name)]
        return JSONResponse({topic.name: list(range(topic.config.partitions)) for topic in shown})


class _EventStreamResponse(Response):
    def __init__(self, stream: EventStream) -> None:
        super().__init__(headers=_STREAM_HEADERS)
        del self.headers["content-length"]
        self._stream = stream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        watching = asyncio.create_task(self._watch(receive))
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            try:
                async with contextlib.aclosing(self._stream.chunks()) as chunks:
                    async for chunk in chunks:
                        await send({"type": "http.response.body", "body": chunk, "more_body": True})
            except BrokerError as error:  # too late for a status: the client opens the next stream, and gets it there
                log.info("a stream ended: %s", error)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            watching.cancel()
            await self._stream.end()

    async def _watch(self, receive: Receive) -> None:
        """Notices at once when the client leaves, also while there is nothing to send."""
        message: Mapping[str, object] = {}
        while message.get("type") != "http.disconnect":
            message = await receive()
        self._stream.leave()


async def _answer_nobody(request: Request, error: Exception) -> Response:  # noqa: ARG001
    """The client left before its request was whole."""
    return Response(status_code=400)
