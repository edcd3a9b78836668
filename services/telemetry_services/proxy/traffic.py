"""Counts the requests over HTTP, for `/stats` and the metrics."""

import threading
import time
from collections import Counter
from typing import Any, Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from telemetry_services.observability.metrics import PROXY_REQUEST_SECONDS, PROXY_REQUESTS

SERVICE: Final = "proxy"
_KINDS: Final = {"/produce": "produce", "/consume": "consume", "/ack": "ack", "/topics": "topics", "/health": "health"}
_FIRST_ERROR: Final = 400


class Traffic:
    """An ASGI app around another one. Counted when the answer begins, as a stream may live for hours."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._began = time.monotonic()
        self._requests: Counter[str] = Counter()
        self._failed = 0
        self._seconds = 0.0

    def counting(self, app: ASGIApp) -> ASGIApp:
        """The app, with its requests counted."""

        async def count(scope: Scope, receive: Receive, send: Send) -> None:
            kind = _KINDS.get(scope["path"]) if scope["type"] == "http" else None
            if kind is None:
                await app(scope, receive, send)
                return
            began = time.perf_counter()

            async def note(message: Message) -> None:
                if message["type"] == "http.response.start":
                    self._note(kind, time.perf_counter() - began, is_error=message["status"] >= _FIRST_ERROR)
                await send(message)

            await app(scope, receive, note)

        return count

    def _note(self, kind: str, seconds: float, *, is_error: bool) -> None:
        PROXY_REQUESTS.labels(SERVICE, kind, "error" if is_error else "success").inc()
        PROXY_REQUEST_SECONDS.labels(SERVICE, kind).observe(seconds)
        with self._lock:
            self._requests[kind] += 1
            self._failed += is_error
            self._seconds += seconds

    def describe(self) -> dict[str, Any]:
        """The fields of `/stats` that are of requests."""
        with self._lock:
            uptime = time.monotonic() - self._began
            total, failed, seconds = self._requests.total(), self._failed, self._seconds
            kinds = {kind: self._requests[kind] for kind in _KINDS.values()}
        return {
            "uptime_seconds": round(uptime, 3),
            "total_requests": total,
            "successful_requests": total - failed,
            "failed_requests": failed,
            "success_rate_percent": round(100 * (total - failed) / total, 2) if total else 100.0,
            "requests_per_second": round(total / uptime, 3) if uptime else 0.0,
            "average_latency_ms": round(1000 * seconds / total, 3) if total else 0.0,
            "request_breakdown": kinds,
        }
