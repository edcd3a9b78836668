"""Keeps web pages out: an open port of the loopback can be reached by every page that its owner's browser shows."""

import ipaddress
from http import HTTPStatus
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send


def why_refused(scope: Scope) -> str:
    """Why a request is not answered; empty when it is.

    A page of another site says so in `Origin`. One that had its own name point here (DNS rebinding) does not, but its
    name stands in `Host`; a client of the loopback names an address or localhost.
    """
    headers = Headers(scope=scope)
    host = headers.get("host", "")
    origin = headers.get("origin")
    if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
        return f"a web page of {origin[:200]!r} may not use this endpoint; ask from a program, or a page of this host"
    name = (urlsplit(f"//{host}").hostname or "") if host else ""
    if _is_loopback((scope.get("server") or ("",))[0]) and not _is_local_name(name):
        return f"the Host header names {name[:200]!r}: on the loopback, ask 127.0.0.1 or localhost"
    return ""


def _is_loopback(host: str | None) -> bool:
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


def _is_local_name(name: str) -> bool:
    if not name or name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True  # an address cannot be made to point elsewhere


class RefuseWebPages:
    """Answers 403 to what `why_refused` names."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            reason = why_refused(scope)
        except ValueError:
            reason = "the Origin or Host header is malformed"
        if reason:
            await PlainTextResponse(reason, HTTPStatus.FORBIDDEN)(scope, receive, send)
        else:
            await self._app(scope, receive, send)
