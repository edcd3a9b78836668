"""The broker, and what an administrator may do to it."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, Field

from telemetry_services.api.access import Access
from telemetry_services.api.pipeline import MAX_LETTERS, Pipeline
from telemetry_services.api.queries import refuse
from telemetry_services.api.times import parse_time

TopicName = Annotated[str, Field(min_length=1, max_length=200, examples=["telemetry"])]


class Redrive(BaseModel):
    """Which dead letters go back."""

    topic: TopicName
    partition: Annotated[int | None, Field(ge=0, lt=1 << 32, description="Only this one's; left out: all.")] = None
    offsets: Annotated[
        list[Annotated[int, Field(ge=0, lt=1 << 63)]] | None,
        Field(max_length=10_000, description="Only these, of one partition; left out: all."),
    ] = None


class Redriven(BaseModel):
    """What went back."""

    redriven: int


class Seek(BaseModel):
    """Where a group goes on."""

    topic: TopicName
    group: Annotated[str, Field(min_length=1, max_length=200)]
    to: Annotated[str, Field(max_length=64, description="`start`, `end`, or a time (RFC 3339).", examples=["end"])]


class Pause(BaseModel):
    """Whether the collector rests."""

    paused: bool


class Done(BaseModel):
    """It is done."""

    status: Literal["ok"] = "ok"


def pipeline_routes(pipeline: Pipeline, access: Access) -> APIRouter:
    """The routes: looking is for readers, moving for administrators."""
    router = APIRouter(tags=["pipeline"])
    reader, administrator = Depends(access.requires("read")), Depends(access.requires("admin"))

    @router.get("/api/v1/pipeline", summary="Brokers, topics and groups", dependencies=[reader])
    async def show_pipeline() -> dict[str, Any]:
        """Counts of one moment: lag, records in flight, the age of the oldest record that is not acked."""
        return await pipeline.overview()

    @router.get("/api/v1/pipeline/dead-letters", summary="Dead letters of a topic", dependencies=[reader])
    async def list_dead_letters(
        topic: Annotated[str, Query(min_length=1, max_length=200, examples=["telemetry"])],
        after: Annotated[str | None, Query(max_length=40, description="`next` of the answer before.")] = None,
        limit: Annotated[int, Query(ge=1, le=MAX_LETTERS)] = 20,
    ) -> dict[str, Any]:
        """With the reason, and the first 4 KiB of each. Looking takes nothing away."""
        return await pipeline.dead_letters(topic, _place(after), limit)

    @router.post("/api/v1/pipeline/redrive", summary="Put dead letters back", dependencies=[administrator])
    async def redrive_dead_letters(asked: Redrive) -> Redriven:
        if asked.offsets is not None and asked.partition is None:
            raise refuse("offsets are of one partition: send it, too")
        return Redriven(redriven=await pipeline.redrive(asked.topic, asked.partition, asked.offsets))

    @router.post("/api/v1/pipeline/seek", summary="Move a group", dependencies=[administrator])
    async def seek_group(asked: Seek) -> Done:
        """Its open leases end; a collector whose store keeps a position goes back to that."""
        if asked.to in ("start", "end"):
            await pipeline.seek(asked.topic, asked.group, asked.to)  # type: ignore[arg-type]
        else:
            try:
                time_ns = parse_time(asked.to)
            except ValueError as error:
                raise refuse(f"to: {error}; or send start or end") from error
            await pipeline.seek(asked.topic, asked.group, time_ns)
        return Done()

    @router.post("/api/v1/pipeline/pause", summary="Pause the collector", dependencies=[administrator])
    async def pause_collector(asked: Pause) -> Done:
        """Of this process (`telemetry up`). Records wait in the broker."""
        pipeline.pause(asked.paused)
        return Done()

    return router


def _place(after: str | None) -> tuple[int, int] | None:
    if not after:
        return None
    partition, _, offset = after.partition(".")
    if not (partition.isascii() and partition.isdigit() and offset.isascii() and offset.isdigit()):
        raise refuse("after: not what an answer gave as next: send it as it came", "invalid.cursor")
    return int(partition), int(offset)
