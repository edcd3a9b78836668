"""CollectorService: looking at a collector, and holding it."""

import asyncio
from typing import Any, Final

import grpc

from telemetry_broker.errors import InvalidArgumentError, TimedOutError
from telemetry_broker.v1 import collector_pb2 as pb
from telemetry_broker.v1 import collector_pb2_grpc
from telemetry_services.collector.collector import Collector
from telemetry_services.serving.grpc_server import abort_with

SERVICE: Final = pb.DESCRIPTOR.services_by_name["CollectorService"].full_name
_DEFAULT_FLUSH_MS: Final = 10_000
_MAX_FLUSH_MS: Final = 60_000

Context = grpc.aio.ServicerContext[Any, Any]


class CollectorServicer(collector_pb2_grpc.CollectorServiceServicer):
    """Wire to collector and back.

    Args:
        store: the store's URL, without secrets.
    """

    def __init__(self, collector: Collector, store: str) -> None:
        self._collector = collector
        self._store = store

    async def GetStatus(self, request: pb.GetStatusRequest, context: Context) -> pb.GetStatusResponse:  # noqa: ARG002, N802
        status = self._collector.status
        return pb.GetStatusResponse(
            topic=self._collector.topic,
            group=self._collector.group,
            store=self._store,
            paused=status.paused,
            records_stored=status.records_stored,
            rows_stored=status.rows_stored,
            samples_stored=status.samples_stored,
            records_rejected=status.records_rejected,
            commits=status.commits,
            last_error=status.last_error,
            partitions=[
                pb.CollectedPartition(
                    partition=held.partition,
                    log_id=log_id,
                    stored_end_offset=held.stored,
                    pending_records=held.taken - held.stored,
                )
                for log_id, held in sorted(status.held.items(), key=lambda item: item[1].partition)
            ],
        )

    async def Flush(self, request: pb.FlushRequest, context: Context) -> pb.FlushResponse:  # noqa: N802
        timeout_ms = request.timeout_ms or _DEFAULT_FLUSH_MS
        if timeout_ms > _MAX_FLUSH_MS:
            await abort_with(
                context,
                InvalidArgumentError(
                    f"timeout_ms is {timeout_ms}: expected at most {_MAX_FLUSH_MS}", field="timeout_ms"
                ),
            )
        try:
            async with asyncio.timeout(timeout_ms / 1000):
                records = await asyncio.wrap_future(self._collector.flush())
        except TimeoutError:
            reason = self._collector.status.last_error or "the commit takes longer"
            await abort_with(context, TimedOutError(f"nothing was stored within {timeout_ms} ms: {reason}; ask again"))
        return pb.FlushResponse(records=records)

    async def Pause(self, request: pb.PauseRequest, context: Context) -> pb.PauseResponse:  # noqa: ARG002, N802
        self._collector.pause(request.paused)
        return pb.PauseResponse(paused=request.paused)
