"""Who makes a request, what they may do, and how much of it.

A key comes as `X-API-Key: K`, as `Authorization: Bearer K`, or, for the page, in a cookie that scripts cannot read and
other sites cannot send. A refusal is counted against the address it came from, and written to the audit log.
"""

import logging
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit

from fastapi import Request, Security
from fastapi.security import APIKeyHeader, HTTPBearer
from limits import RateLimitItem, parse_many
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter
from starlette.requests import HTTPConnection

from telemetry_broker.errors import UnauthenticatedError
from telemetry_services.api.problems import ApiError
from telemetry_services.observability import metrics
from telemetry_services.security import Guard
from telemetry_services.security.api_keys import ApiKey, KeyRing, Role
from telemetry_services.text import printable

audit = logging.getLogger("telemetry_services.audit")

COOKIE: Final = "telemetry_key"
_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_MAX_AUDIT_LINES: Final = 20
"""Lines a second; a client that is refused a thousand times does not fill the disk."""
_SHOWN_CHARS: Final = 200
_SWEEP_SECONDS: Final = 10.0
"""Until counters whose time is over are looked for."""

api_key_header = APIKeyHeader(name="X-API-Key", auto_error=False, description="An API key.")
bearer = HTTPBearer(auto_error=False, description="An API key.")


@dataclass(frozen=True, slots=True)
class Quota:
    """What is left of a limit.

    Attributes:
        reset: seconds until there is more.
    """

    policy: str
    limit: int
    window: int
    left: int
    reset: int

    def headers(self) -> dict[str, str]:
        """As the IETF's draft on rate limit headers has them."""
        return {
            "RateLimit-Policy": f'"{self.policy}";q={self.limit};w={self.window}',
            "RateLimit": f'"{self.policy}";r={self.left};t={self.reset}',
        }


class Counters(MemoryStorage):
    """Counts in memory, without the library's sweeper: that is a thread, started anew for nearly each request."""

    def __init__(self) -> None:
        super().__init__()
        self.timer.cancel()
        self._swept_at = time.monotonic()

    def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        """As that of every storage."""
        if time.monotonic() - self._swept_at >= _SWEEP_SECONDS:
            self._swept_at = time.monotonic()
            for known in list(self.expirations):
                self.get(known)  # which forgets it if its time is over
        count = self.get(key) + amount
        self.storage[key] = count
        if count == amount:
            self.expirations[key] = time.time() + expiry
        return count


class Limiter:
    """Limits by name, such as of a key or an address. Used on one event loop."""

    def __init__(self, policy: str, limits: str) -> None:
        self._policy = policy
        self._items: list[RateLimitItem] = parse_many(limits)
        self._limiter = SlidingWindowCounterRateLimiter(Counters())

    def hit(self, name: str) -> tuple[bool, Quota]:
        """Counts one more; False: that is too many."""
        hits = [self._limiter.hit(item, name) for item in self._items]  # each one counts, whatever the others say
        return all(hits), self.quota(name)

    def quota(self, name: str) -> Quota:
        """What is left of the limit that ends first."""
        found = [(self._limiter.get_window_stats(item, name), item) for item in self._items]
        stats, item = min(found, key=lambda one: one[0].remaining)
        reset = max(1, math.ceil(stats.reset_time - time.time()))
        return Quota(self._policy, item.amount, item.get_expiry(), max(0, int(stats.remaining)), reset)


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks, and what, for limits and the audit log."""

    address: str
    method: str
    path: str

    @classmethod
    def of(cls, request: HTTPConnection) -> "Asker":
        """Of an HTTP request."""
        address = request.client.host if request.client else "unknown"
        return cls(address, str(request.scope.get("method", "")), request.url.path)


class Audit:
    """Writes down who was refused, and why; at most so many lines a second, the others are counted."""

    def __init__(self, service: str) -> None:
        self._service = service
        self._lines: deque[float] = deque(maxlen=_MAX_AUDIT_LINES)
        self._unsaid = 0

    def refused(self, asker: Asker, status: int, why: str, key: ApiKey | None = None) -> None:
        """One refusal."""
        reason = {401: "unauthenticated", 403: "denied", 429: "limited"}.get(status, "other")
        metrics.REFUSED.labels(self._service, reason).inc()
        now = time.monotonic()
        if len(self._lines) == _MAX_AUDIT_LINES and now - self._lines[0] < 1.0:
            self._unsaid += 1
            return
        self._lines.append(now)
        told: dict[str, str | int] = {
            "address": asker.address,
            "key": key.name if key else "-",
            "method": printable(asker.method)[:_SHOWN_CHARS],
            "path": printable(asker.path)[:_SHOWN_CHARS],
            "status": status,
            "why": why,
        }
        if self._unsaid:
            told["refused_unsaid"] = self._unsaid
            self._unsaid = 0
        audit.warning("Refused a request", extra=told)


class Access:
    """The door of the API.

    Args:
        key_ring: the keys that are valid.
        guard: asks for a client certificate where one is needed.
        rate_limit: of a key, and of an address.
        refused_limit: of an address, of requests without a valid key. Valid ones from there are let in all the same.
    """

    def __init__(
        self, key_ring: KeyRing, guard: Guard, *, rate_limit: str, refused_limit: str, service: str = "api"
    ) -> None:
        self.key_ring = key_ring
        self._guard = guard
        self._by_key = Limiter("key", rate_limit)
        self._by_address = Limiter("address", rate_limit)
        self._refusals = Limiter("refused", refused_limit)
        self._audit = Audit(service)

    def admit(self, request: HTTPConnection, role: Role | None) -> ApiKey:
        """The key of a request; `role` None: whatever it may do.

        Raises:
            ApiError: 401 without a valid key, or a certificate where one is asked for; 403: the key has not the role,
                or the request comes from a page of another site; 429: too many.
        """
        asker = Asker.of(request)
        try:
            self._guard.require_certificate(request)
        except UnauthenticatedError as error:
            raise self._refuse(asker, HTTPStatus.UNAUTHORIZED, "unauthorized", error.message) from error
        text, from_cookie = given_key(request)
        key, request.state.quota = self.admit_key(text, role, asker)
        if from_cookie and asker.method not in _SAFE_METHODS and not is_same_origin(request):
            message = "a page of another site may not do this with your cookie: send the API key in a header"
            raise self._refuse(asker, HTTPStatus.FORBIDDEN, "forbidden.origin", message, key)
        return key

    def admit_key(self, text: str, role: Role | None, asker: Asker) -> tuple[ApiKey, Quota]:
        """The key with this text, and what is left of its limit; raises ApiError as `admit` does."""
        key = self.key_ring.find(text) if text else None
        if key is None:
            allowed, quota = self._refusals.hit(asker.address)
            if not allowed:
                raise self._too_many(asker, quota, "requests without a valid API key")
            raise self._refuse(
                asker,
                HTTPStatus.UNAUTHORIZED,
                "unauthorized",
                "the API key is missing or wrong: send it as X-API-Key: KEY or Authorization: Bearer KEY",
                headers={"WWW-Authenticate": "Bearer"},
            )
        allowed_here, by_address = self._by_address.hit(asker.address)
        allowed, quota = self._by_key.hit(key.name)
        if not (allowed and allowed_here):
            raise self._too_many(asker, by_address if allowed else quota, "requests", key)
        if role is not None and role not in key.roles:
            has = ", ".join(sorted(key.roles))
            message = f'the key "{key.name}" may not do this: that takes the role {role}, and it has {has}; ask for it'
            raise self._refuse(asker, HTTPStatus.FORBIDDEN, "forbidden", message, key)
        return key, quota

    def requires(self, role: Role) -> Callable[..., Awaitable[ApiKey]]:
        """A dependency for routes: they are for keys with this role."""

        async def check(
            request: Request,
            _: object = Security(api_key_header),
            __: object = Security(bearer),
        ) -> ApiKey:
            request.state.api_key = key = self.admit(request, role)
            return key

        return check

    def _too_many(self, asker: Asker, quota: Quota, what: str, key: ApiKey | None = None) -> ApiError:
        message = f"too many {what}: {quota.limit:,} in {quota.window} s are answered; try again in {quota.reset} s"
        headers = {"Retry-After": str(quota.reset), **quota.headers()}
        return self._refuse(asker, HTTPStatus.TOO_MANY_REQUESTS, "rate_limited", message, key, headers)

    def _refuse(
        self,
        asker: Asker,
        status: HTTPStatus,
        code: str,
        message: str,
        key: ApiKey | None = None,
        headers: dict[str, str] | None = None,
    ) -> ApiError:
        self._audit.refused(asker, status, code, key)
        return ApiError(status, code, message, headers)


def given_key(request: HTTPConnection) -> tuple[str, bool]:
    """The key that a request carries, and whether in its cookie; a header wins."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    text = request.headers.get("x-api-key") or (token.strip() if scheme.lower() == "bearer" else "")
    return (text, False) if text else (request.cookies.get(COOKIE, ""), True)


def is_same_origin(request: HTTPConnection) -> bool:
    """Whether a request comes from a page of this very server, as the browser tells."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site in ("same-origin", "none")
    origin = request.headers.get("origin")
    return origin is not None and urlsplit(origin).netloc == request.headers.get("host")
