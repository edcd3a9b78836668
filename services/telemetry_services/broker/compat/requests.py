"""What a request says: its parameters, its trace context, and its body, which is bounded."""

import asyncio
import json
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import Request

from telemetry_broker import tracing
from telemetry_broker.errors import InvalidArgumentError

_MAX_PARTITION: Final = 2**32 - 2
_BODY_SECONDS: Final = 30.0
_TRACE_HEADERS: Final = ("traceparent", "tracestate")


def text_parameter(request: Request, name: str) -> str:
    """A parameter that must be there.

    Raises:
        InvalidArgumentError: it is missing or empty.
    """
    value = request.query_params.get(name, "")
    if not value:
        raise InvalidArgumentError(f"the parameter {name} is missing: expected {request.url.path}?{name}=...")
    return value


def partition_parameter(request: Request) -> int | None:
    """The partition, or None where it is left out.

    Raises:
        InvalidArgumentError: it is no partition number.
    """
    value = request.query_params.get("partition")
    if value is None:
        return None
    if not (value.isascii() and value.isdigit() and len(value) <= 10 and int(value) <= _MAX_PARTITION):
        raise InvalidArgumentError(
            f"partition is {value[:100]!r}: expected a whole number from 0; or leave it out, the broker chooses then"
        )
    return int(value)


def trace_headers(request: Request) -> dict[str, bytes]:
    """What a record carries of the request's trace context: nothing where that is missing or malformed."""
    given = {name: ",".join(request.headers.getlist(name)).encode("latin-1") for name in _TRACE_HEADERS}
    return tracing.headers(tracing.context(given))


async def bounded_body(request: Request, limit: int) -> bytes:
    """The body.

    Raises:
        HTTPException: it is longer than `limit` bytes (413), or takes longer than 30 s (408).
    """
    too_large = HTTPException(413, f"the body is longer than {limit:,} bytes; nothing was stored: send less at once")
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > limit:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limit:
                    raise too_large
    except TimeoutError:
        raise HTTPException(
            408, f"the body did not come within {_BODY_SECONDS:g} s; nothing was stored: send it again"
        ) from None
    return bytes(body)


def payload_of(body: bytes) -> bytes:
    """The value of the record: the field `payload` of a JSON object that has it as a string, else the body as it came.

    Raises:
        InvalidArgumentError: there is no body, or the payload is no Unicode text.
    """
    if not body:
        raise InvalidArgumentError('the body is empty: send the text of the record, or {"payload": "..."}')
    if b'"payload"' not in body:
        return body
    payload = json_object(body).get("payload")
    if not isinstance(payload, str):
        return body
    try:
        return payload.encode()
    except UnicodeEncodeError as err:
        raise InvalidArgumentError(
            f"payload has half a surrogate pair at character {err.start}, which is no text; send the bytes as the body"
        ) from None


def json_object(body: bytes) -> dict[str, object]:
    """The body as a JSON object; empty when it is something else."""
    try:
        decoded = json.loads(body.decode())
    except (ValueError, RecursionError):
        return {}
    return decoded if isinstance(decoded, dict) else {}
