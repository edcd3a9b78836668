"""The web page: files of this package, with a tag by which browsers know whether they have them."""

import hashlib
import re
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

_TYPES: Final = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "svg": "image/svg+xml",
    "webmanifest": "application/manifest+json",
}


_IMPORTS: Final = re.compile(rb'^import .* from "/web/(.+)";$', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class _File:
    body: bytes
    content_type: str
    etag: str


@cache
def _files() -> dict[str, _File]:
    """The files by their path, such as `app.js` and `views/fleet.js`."""
    found: dict[str, _File] = {}
    root = resources.files("telemetry_services") / "web"
    pending = [("", root)]
    while pending:
        prefix, folder = pending.pop()
        for entry in folder.iterdir():
            if entry.is_dir():
                pending.append((f"{prefix}{entry.name}/", entry))
            elif (content_type := _TYPES.get(entry.name.rpartition(".")[2])) is not None:
                body = entry.read_bytes()
                etag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
                found[prefix + entry.name] = _File(body, content_type, etag)
    return found


@cache
def _preloads() -> str:
    """A Link header of all modules of the page. A browser that has to find them itself asks once for each level."""
    files = _files()
    found = {"app.js": None}
    pending = ["app.js"]
    while pending:
        imported = [name.decode() for name in _IMPORTS.findall(files[pending.pop()].body)]
        pending += [name for name in imported if name not in found]
        found |= dict.fromkeys(imported)
    return ", ".join(f"</web/{name}>; rel=modulepreload" for name in found)


def page_routes() -> list[Route]:
    """`/`, and `/web/...` for what it is made of. Open to all: there is nothing in it that is not in the package."""

    async def show(request: Request) -> Response:
        path = request.path_params.get("path", "index.html")
        file = _files().get(path)
        if file is None:
            return Response("There is no such file.", status_code=404, media_type="text/plain")
        # Asked for each time, and not sent again where it is the same: after an upgrade nobody sees an old page.
        headers = {"ETag": file.etag, "Cache-Control": "no-cache"}
        if path == "index.html":
            headers["Link"] = _preloads()
        if request.headers.get("if-none-match") == file.etag:
            return Response(status_code=304, headers=headers)
        return Response(file.body, media_type=file.content_type, headers=headers)

    return [Route("/", show), Route("/web/{path:path}", show), Route("/favicon.ico", _icon)]


async def _icon(request: Request) -> Response:  # noqa: ARG001
    icon = _files()["icon.svg"]
    return Response(icon.body, media_type=icon.content_type, headers={"Cache-Control": "max-age=86400"})
