"""The fleet as it is, and as it changes."""

from collections.abc import AsyncIterator
from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Request
from fastapi.responses import JSONResponse, StreamingResponse

from telemetry_services.api.access import Access
from telemetry_services.api.live.fleet import Fleet
from telemetry_services.api.live.frames import MAX_FRAME_METRICS, Frames, state_of
from telemetry_services.api.live.streams import Live, Sse, Wish, parse_positions
from telemetry_services.api.live.viewers import HEADERS
from telemetry_services.api.queries import refuse
from telemetry_services.api.routes.parameters import Chosen, Metrics

_EVENT_STREAM: Final[dict[int | str, dict[str, Any]]] = {
    200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}
}


def live_routes(fleet: Fleet, frames: Frames, live: Live, access: Access) -> APIRouter:
    """The routes; who asks was checked before, and is checked again while a stream goes on."""
    router = APIRouter(tags=["live"])

    def stream(events: AsyncIterator[bytes]) -> StreamingResponse:
        return StreamingResponse(events, media_type="text/event-stream", headers=HEADERS)

    @router.get("/api/v1/live", summary="Samples as they come in", responses=_EVENT_STREAM)
    async def watch_samples(
        request: Request,
        chosen: Chosen,
        metric: Metrics = [],  # noqa: B006 (FastAPI copies it)
        last_event_id: Annotated[
            str | None, Header(description="Goes on behind this event: what was missed is sent first.")
        ] = None,
    ) -> StreamingResponse:
        """Server-Sent Events, straight from the broker.

        `hello` comes first, then `samples`: `{"gpus": [...], "times": [...], "values": {metric: [...]}}`, a row each.
        Who reads too slowly misses samples: `dropped` tells how many. A comment line comes after 15 s of silence.
        """
        key = request.state.api_key
        resume = parse_positions(last_event_id) if last_event_id else None
        events = live.watch(
            Wish(chosen, tuple(sorted(set(metric)))), Sse(), lambda: access.key_ring.is_current(key), resume
        )
        return stream(events)

    @router.get("/api/v1/fleet", summary="The newest values of all GPUs, as columns")
    async def show_fleet(metric: Metrics = []) -> Any:  # noqa: B006
        """Made for pages that show all of a large fleet: the nth entry of each column is of the GPU numbered n."""
        return JSONResponse(state_of(fleet, await _frame_metrics(metric)))

    @router.get("/api/v1/fleet/live", summary="The newest values of all GPUs, as they change", responses=_EVENT_STREAM)
    async def watch_fleet(request: Request, metric: Metrics = []) -> StreamingResponse:  # noqa: B006
        """Server-Sent Events: `state` as `/api/v1/fleet` has it, then a `frame` with what changes.

        There are 4 a second at most. Who reads too slowly is sent `state` again.
        """
        key = request.state.api_key
        wanted = await _frame_metrics(metric)
        return stream(frames.watch(wanted, lambda: access.key_ring.is_current(key)))

    async def _frame_metrics(metric: list[str]) -> tuple[str, ...]:
        chosen = tuple(sorted(set(metric)))
        if len(chosen) > MAX_FRAME_METRICS:
            raise refuse(f"metric: {len(chosen)} of them: send at most {MAX_FRAME_METRICS}")
        if any(len(name) > 256 for name in chosen):
            raise refuse("metric: one is longer than 256 characters, which no name is")
        return chosen

    return router
