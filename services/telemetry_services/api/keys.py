"""The API key: given, or made once and kept in a file that only its owner can read."""

import hmac
import os
import secrets
from http import HTTPStatus
from pathlib import Path

from fastapi import Request
from fastapi.security import APIKeyHeader, HTTPBearer

from telemetry_broker.errors import UnauthenticatedError
from telemetry_services.api.problems import ApiError
from telemetry_services.config.models import RestSettings
from telemetry_services.errors import ApiKeyError
from telemetry_services.security import Guard

api_key_header = APIKeyHeader(name="X-API-Key", auto_error=False, description="The API key.")
bearer = HTTPBearer(auto_error=False, description="The API key.")


def obtain_key(settings: RestSettings) -> str:
    """The key of API_KEY, or the one kept in DATA_DIR/api-key, which is made when it is not there."""
    if settings.api_key is not None:
        return settings.api_key.get_secret_value()
    return _kept_key(settings.api_key_path)


def _kept_key(path: Path) -> str:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            kept = path.read_text(encoding="utf-8").strip()
            if kept:
                return kept
            descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC)
        key = secrets.token_urlsafe(24)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(key + "\n")
    except OSError as err:
        raise ApiKeyError(
            f"{path}: the API key cannot be kept here ({err.strerror}); "
            "give one in API_KEY, or another folder in DATA_DIR"
        ) from err
    return key


class KeyCheck:
    """Lets a request pass that carries the key as `X-API-Key: K` or `Authorization: Bearer K`."""

    def __init__(self, key: str, guard: Guard) -> None:
        self._key = key.encode()
        self._guard = guard

    async def __call__(self, request: Request) -> None:
        """Raises ApiError (401) without the key, or without a certificate where one is asked for."""
        try:
            self._guard.require_certificate(request)
        except UnauthenticatedError as error:
            raise ApiError(HTTPStatus.UNAUTHORIZED, "unauthorized", error.message) from error
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        given = request.headers.get("x-api-key") or (token.strip() if scheme.lower() == "bearer" else "")
        # Compared in a time that does not depend on how much of it is right.
        if not hmac.compare_digest(given.encode("utf-8", "surrogateescape"), self._key):
            raise ApiError(
                HTTPStatus.UNAUTHORIZED,
                "unauthorized",
                "the API key is missing or wrong: send it as X-API-Key: KEY or Authorization: Bearer KEY",
                {"WWW-Authenticate": "Bearer"},
            )
