"""The one place where an error becomes an HTTP status: plain text, the same words as over gRPC and in Python."""

import logging
import math
from http import HTTPStatus
from typing import Final

from starlette.requests import Request
from starlette.responses import PlainTextResponse

from telemetry_broker.errors import CODES, BrokerError, StatusCode

log = logging.getLogger(__name__)

CODE_HEADER: Final = "telemetry-code"
_RETRY_SECONDS: Final = 1.0
_RETRIED: Final = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
# The clients in the field know 400 for whatever is wrong with their request. A status of _RETRIED promises that nothing
# was stored: what is not listed, such as a failed fsync, is a 500.
_STATUSES: Final = {
    StatusCode.INVALID_ARGUMENT: HTTPStatus.BAD_REQUEST,
    StatusCode.OUT_OF_RANGE: HTTPStatus.BAD_REQUEST,
    StatusCode.NOT_FOUND: HTTPStatus.BAD_REQUEST,
    StatusCode.ALREADY_EXISTS: HTTPStatus.BAD_REQUEST,
    StatusCode.FAILED_PRECONDITION: HTTPStatus.BAD_REQUEST,
    StatusCode.UNAUTHENTICATED: HTTPStatus.UNAUTHORIZED,
    StatusCode.PERMISSION_DENIED: HTTPStatus.FORBIDDEN,
    StatusCode.RESOURCE_EXHAUSTED: HTTPStatus.TOO_MANY_REQUESTS,
    StatusCode.UNAVAILABLE: HTTPStatus.SERVICE_UNAVAILABLE,
    StatusCode.CANCELLED: HTTPStatus.SERVICE_UNAVAILABLE,
    StatusCode.DEADLINE_EXCEEDED: HTTPStatus.SERVICE_UNAVAILABLE,
    StatusCode.UNIMPLEMENTED: HTTPStatus.NOT_IMPLEMENTED,
}


def status_of(error: BrokerError) -> HTTPStatus:
    """The status of an error's code."""
    info = CODES.get(error.code)
    return _STATUSES.get(info.status, HTTPStatus.INTERNAL_SERVER_ERROR) if info else HTTPStatus.INTERNAL_SERVER_ERROR


async def answer_error(request: Request, error: Exception) -> PlainTextResponse:
    """The answer for a BrokerError."""
    assert isinstance(error, BrokerError)  # noqa: S101 (what it is registered for)
    status = status_of(error)
    headers = {CODE_HEADER: error.code}
    if status in _RETRIED:
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after or _RETRY_SECONDS)))
    elif status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    elif status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        log.warning("a request failed: %s", error, extra={"endpoint": request.url.path})
    return PlainTextResponse(error.message, status, headers)
