"""The page's key: asked for once, or brought by a link that works once, and kept in a cookie."""

import secrets
import time
from http import HTTPStatus
from typing import Annotated, Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import BaseModel, Field

from telemetry_services.api.access import COOKIE, Access, Asker, is_same_origin
from telemetry_services.api.problems import ApiError
from telemetry_services.security.api_keys import ApiKey

COOKIE_SECONDS: Final = 30 * 86_400
TOKEN_SECONDS: Final = 600.0
_MAX_TOKENS: Final = 100


class OneTimeTokens:
    """Tokens that stand for a key, each once and not for long."""

    def __init__(self, seconds: float = TOKEN_SECONDS) -> None:
        self._seconds = seconds
        self._keys: dict[str, tuple[str, float]] = {}

    def make(self, key: str) -> str:
        """A token for this key."""
        while len(self._keys) >= _MAX_TOKENS:
            del self._keys[next(iter(self._keys))]
        token = secrets.token_urlsafe(24)
        self._keys[token] = key, time.monotonic() + self._seconds
        return token

    def take(self, token: str) -> str | None:
        """The key; None: there is no such token any more."""
        key, until = self._keys.pop(token, ("", 0.0))
        return key if time.monotonic() < until else None


class Login(BaseModel):
    """What the page sends."""

    key: Annotated[str, Field(min_length=1, max_length=4096, description="An API key.")]


class Session(BaseModel):
    """Who uses the page."""

    name: str = Field(description="The name of the key.")
    roles: list[str] = Field(description="What it may do.")

    @classmethod
    def of(cls, key: ApiKey) -> "Session":
        """Of a key."""
        return cls(name=key.name, roles=sorted(key.roles))


def session_routes(access: Access, tokens: OneTimeTokens) -> APIRouter:
    """Logging in and out."""
    router = APIRouter(tags=["session"])

    @router.post("/api/v1/session", summary="Keep an API key in a cookie")
    async def begin_session(request: Request, response: Response, login: Login) -> Session:
        """For the web page: scripts cannot read the cookie, and other sites cannot send it."""
        if request.headers.get("origin") and not is_same_origin(request):
            raise ApiError(HTTPStatus.FORBIDDEN, "forbidden.origin", "only a page of this server may log in here")
        key, _ = access.admit_key(login.key, None, Asker.of(request))
        _keep(request, response, login.key)
        return Session.of(key)

    @router.delete("/api/v1/session", summary="Forget the cookie", status_code=HTTPStatus.NO_CONTENT)
    async def end_session() -> Response:
        response = Response(status_code=HTTPStatus.NO_CONTENT)
        response.delete_cookie(COOKIE, httponly=True, samesite="strict")
        return response

    @router.get("/api/v1/session", summary="Whose key this is")
    async def show_session(request: Request) -> Session:
        return Session.of(access.admit(request, None))

    @router.get("/login", include_in_schema=False)
    async def follow_link(request: Request, token: str = "") -> Response:
        key = tokens.take(token)
        response = RedirectResponse("/" if key else "/#/login?expired", HTTPStatus.SEE_OTHER)
        if key:
            _keep(request, response, key)
        return response

    return router


def _keep(request: Request, response: Response, key: str) -> None:
    response.set_cookie(
        COOKIE,
        key,
        max_age=COOKIE_SECONDS,
        path="/",
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="strict",
    )
