"""Errors over REST: problem+json, with `error` and `message` inside for older clients."""

import logging
from http import HTTPStatus
from typing import Final

import grpc
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from telemetry_broker.errors import BrokerError
from telemetry_services.api.models import Problem
from telemetry_services.codes import status_of

log = logging.getLogger(__name__)

CONTENT_TYPE: Final = "application/problem+json"
_STATUS: Final = {
    grpc.StatusCode.INVALID_ARGUMENT: HTTPStatus.BAD_REQUEST,
    grpc.StatusCode.OUT_OF_RANGE: HTTPStatus.BAD_REQUEST,
    grpc.StatusCode.NOT_FOUND: HTTPStatus.NOT_FOUND,
    grpc.StatusCode.ALREADY_EXISTS: HTTPStatus.CONFLICT,
    grpc.StatusCode.RESOURCE_EXHAUSTED: HTTPStatus.SERVICE_UNAVAILABLE,
    grpc.StatusCode.UNAVAILABLE: HTTPStatus.SERVICE_UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED: HTTPStatus.SERVICE_UNAVAILABLE,
    grpc.StatusCode.CANCELLED: HTTPStatus.SERVICE_UNAVAILABLE,
    grpc.StatusCode.ABORTED: HTTPStatus.SERVICE_UNAVAILABLE,
    grpc.StatusCode.UNKNOWN: HTTPStatus.SERVICE_UNAVAILABLE,
}
_CODES: Final = {404: "not_found", 405: "method_not_allowed", 413: "request.too_large"}
_DEFAULT_RETRY_SECONDS: Final = 1


class ApiError(Exception):
    """An error of the API itself."""

    def __init__(self, status: HTTPStatus, code: str, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = headers


def problem(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """The answer for an error."""
    title = HTTPStatus(status).phrase
    body = Problem(title=title, status=status, detail=message, error=code, message=message)
    return JSONResponse(body.model_dump(), status_code=status, headers=headers, media_type=CONTENT_TYPE)


def add_problem_handlers(app: FastAPI) -> None:
    """Makes every error of the app a problem."""

    @app.exception_handler(ApiError)
    async def api_error(_: Request, error: ApiError) -> JSONResponse:
        return problem(error.status, error.code, error.message, error.headers)

    @app.exception_handler(BrokerError)
    async def broker_error(_: Request, error: BrokerError) -> JSONResponse:
        status = _STATUS.get(status_of(error.code), HTTPStatus.INTERNAL_SERVER_ERROR)
        headers = None
        if status == HTTPStatus.SERVICE_UNAVAILABLE:
            headers = {"Retry-After": str(max(1, round(error.retry_after or _DEFAULT_RETRY_SECONDS)))}
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            log.warning("a request failed: %s", error)
        return problem(status, error.code, error.message, headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        more = f" (and {len(error.errors()) - 1} more)" if len(error.errors()) > 1 else ""
        return problem(HTTPStatus.BAD_REQUEST, "invalid.request", f"{place}: {first['msg']}{more}")

    @app.exception_handler(HTTPException)
    async def http_error(_: Request, error: HTTPException) -> JSONResponse:
        code = _CODES.get(error.status_code, "http.error")
        return problem(error.status_code, code, str(error.detail), dict(error.headers or {}))

    @app.exception_handler(Exception)
    async def unexpected(_: Request, error: Exception) -> JSONResponse:
        log.error("a request failed in a way that was not foreseen", exc_info=error)
        return problem(
            HTTPStatus.INTERNAL_SERVER_ERROR, "internal", "an unexpected error; the log of the api says more"
        )
