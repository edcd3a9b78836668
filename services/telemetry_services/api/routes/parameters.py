"""Parameters that several paths share, with their documentation."""

from typing import Annotated, Final

from fastapi import Depends, Query

from telemetry_services.api.formats import Format
from telemetry_services.api.live.selection import Selection
from telemetry_services.api.queries import MAX_METRICS, TimeRange, parse_range, refuse

MAX_NAMES: Final = 1000
_MAX_CHARS: Final = 256

Metrics = Annotated[
    list[str],
    Query(
        alias="metric",
        description=f"Only these metrics, by name; may be repeated, up to {MAX_METRICS}.",
        examples=[["DCGM_FI_DEV_GPU_UTIL"]],
    ),
]
FormatChoice = Annotated[Format | None, Query(alias="format", description="Wins over `Accept`.")]
CursorText = Annotated[str | None, Query(description="`next_cursor` of the answer before, for the page behind it.")]
WindowText = Annotated[
    str | None, Query(description="Length of a window, such as `30s`, `5m` or `1h`.", examples=["1m"])
]

_Hosts = Annotated[list[str], Query(alias="hostname", description="Only GPUs of these hosts.")]
_Namespaces = Annotated[list[str], Query(alias="namespace", description="Only GPUs last used in these namespaces.")]
_Pods = Annotated[list[str], Query(alias="pod", description="Only GPUs last used by these pods.")]
_Models = Annotated[list[str], Query(alias="model", description="Only GPUs of these models.")]
_Ids = Annotated[list[str], Query(alias="id", description="Only these GPUs, by uuid or device id.")]


async def selection(
    ids: _Ids = [],  # noqa: B006 (FastAPI copies defaults)
    hostname: _Hosts = [],  # noqa: B006
    namespace: _Namespaces = [],  # noqa: B006
    pod: _Pods = [],  # noqa: B006
    model: _Models = [],  # noqa: B006
) -> Selection:
    """Which GPUs are meant."""
    for name, given in (("id", ids), ("hostname", hostname), ("namespace", namespace), ("pod", pod), ("model", model)):
        if len(given) > MAX_NAMES:
            raise refuse(f"{name}: {len(given):,} of them: send at most {MAX_NAMES:,}")
        if any(len(value) > _MAX_CHARS for value in given):
            raise refuse(f"{name}: one is longer than {_MAX_CHARS} characters, which no name is")
    return Selection(tuple(ids), tuple(hostname), tuple(namespace), tuple(pod), tuple(model))


async def time_range(
    start: Annotated[
        str | None,
        Query(description="First time: RFC 3339, or back from now, such as `-1h`.", examples=["2025-07-18T20:42:00Z"]),
    ] = None,
    end: Annotated[str | None, Query(description="Last time, included; as `start`.")] = None,
    start_time: Annotated[str | None, Query(description="The same as `start`.")] = None,
    end_time: Annotated[str | None, Query(description="The same as `end`.")] = None,
) -> TimeRange:
    """Which times are meant."""
    return parse_range(start or start_time, end or end_time)


Chosen = Annotated[Selection, Depends(selection)]
Between = Annotated[TimeRange, Depends(time_range)]
