"""What the proxy tells of its brokers: on `/health`, `/status` and `/stats`, in its metrics and in its log."""

import asyncio
import logging
import threading
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Final

from telemetry_broker import _core
from telemetry_services.observability import metrics
from telemetry_services.proxy.traffic import SERVICE

log = logging.getLogger(__name__)

STATES: Final = ("closed", "open", "half-open")
_LOOK_SECONDS: Final = 0.5
_ROUTING_SECONDS: Final = 10.0
_LEVELS: Final = {"info": logging.INFO, "warning": logging.WARNING}


def is_healthy(member: _core.Member) -> bool:
    """Whether requests go to the broker."""
    return member.state == "closed"


def why_unready(members: Sequence[_core.Member]) -> str:
    """Why no broker can take records now; empty when one can."""
    told = [
        f"{member.name} is draining" if is_healthy(member) else f"{member.name}: {member.error or 'it does not answer'}"
        for member in members
        if member.draining or not is_healthy(member)
    ]
    return "" if len(told) < len(members) else f"none of the brokers takes records ({'; '.join(told)})"


class Brokers:
    """The brokers of a proxy. Thread-safe.

    Args:
        are_pods: their names are those that they call themselves by.
    """

    def __init__(self, cluster: _core.Cluster, *, are_pods: bool) -> None:
        self._cluster = cluster
        self._are_pods = are_pods
        self._carried = _Carried()
        self._misnamed: set[tuple[str, str]] = set()

    @property
    def addresses(self) -> list[str]:
        """`host:port` of each."""
        return [member.address for member in self._cluster.members()]

    def health(self) -> dict[str, Any]:
        """The proxy's fields of `/health`."""
        members = self._cluster.members()
        return {
            "brokers_total": len(members),
            "brokers_healthy": sum(map(is_healthy, members)),
            "timestamp": int(time.time()),
        }

    def why_unready(self) -> str:
        """Why the proxy cannot take records now; empty when it can."""
        return why_unready(self._cluster.members())

    def status(self) -> dict[str, Any]:
        """The fields of `/status` that are of brokers; a broker is called by its address."""
        members = self._cluster.members()
        placement = dict(self._cluster.placement())
        numbers: dict[str, set[int]] = {member.name: set() for member in members}
        for names in placement.values():
            for number, name in enumerate(names):
                numbers.setdefault(name, set()).add(number)
        return {
            "broker_status": {member.address: is_healthy(member) for member in members},
            "partition_distribution": {member.address: sorted(numbers[member.name]) for member in members},
            "brokers": [
                {
                    "name": member.name,
                    "address": member.address,
                    "breaker": member.state,
                    "draining": member.draining,
                    "version": member.version,
                    "error": member.error,
                }
                for member in members
            ],
            "placement": placement,
        }

    def stats(self) -> dict[str, Any]:
        """The fields of `/stats` that are of brokers."""
        members = self._cluster.members()
        return {
            "broker_distribution": {
                "request_counts": {member.address: member.requests for member in members},
                "error_counts": {member.address: member.failures for member in members},
                "healthy_count": sum(map(is_healthy, members)),
                "total_count": len(members),
            },
            "health_monitoring": {
                "health_checks_performed": sum(member.health_checks for member in members),
                "broker_failures_detected": sum(member.failures_detected for member in members),
            },
        }

    def update_metrics(self) -> None:
        """Brings the process's metrics up to now."""
        self._carried.carry(self._cluster.members())

    async def report(self) -> None:
        """Writes the log until it is cancelled: what happens to brokers at once, what was sent to each every 10 s."""
        routed = _routed(self._cluster.members())
        told = time.monotonic()
        try:
            while True:
                await asyncio.sleep(_LOOK_SECONDS)
                self._tell_events()
                if time.monotonic() - told >= _ROUTING_SECONDS:
                    routed, told = self._tell_routed(routed), time.monotonic()
        finally:
            self._tell_events()
            self._tell_routed(routed)

    def _tell_events(self) -> None:
        for level, text in self._cluster.take_events():
            log.log(_LEVELS[level], "%s", text)
        members = self._cluster.members() if self._are_pods else []
        misnamed = {(each.name, each.calls_itself) for each in members if each.calls_itself not in ("", each.name)}
        for name, other in sorted(misnamed - self._misnamed):
            log.warning(
                "a broker is not the one that its address belongs to: correct BROKER_SERVICE here, or BROKER_SERVICE "
                "and BROKER_INDEX there",
                extra={"broker": name, "calls_itself": other},
            )
        self._misnamed = misnamed

    def _tell_routed(self, before: "dict[str, tuple[int, int]]") -> "dict[str, tuple[int, int]]":
        members = self._cluster.members()
        now = _routed(members)
        for member in members:
            requests, failures = now[member.name]
            requests_before, failures_before = before.get(member.name, (0, 0))
            if requests > requests_before:
                log.info(
                    "Routing to broker",
                    extra={
                        "broker": member.name,
                        "address": member.address,
                        "requests": requests - requests_before,
                        "failures": failures - failures_before,
                    },
                )
        return now


def _routed(members: Iterable[_core.Member]) -> dict[str, tuple[int, int]]:
    return {member.name: (member.requests, member.failures) for member in members}


class _Carried:
    """Carries the counts of the cluster into the metrics of the process, and takes out brokers that are gone."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[str, Counter[str]] = {}

    def carry(self, members: Iterable[_core.Member]) -> None:
        with self._lock:
            members = list(members)
            for name in self._counts.keys() - {member.name for member in members}:
                self._forget(name)
            for member in members:
                self._carry(member)

    def _carry(self, member: _core.Member) -> None:
        labels = (SERVICE, member.name)
        metrics.BROKER_HEALTH.labels(*labels).set(is_healthy(member))
        metrics.PROXY_BROKER_HEALTH.labels(*labels).set(is_healthy(member))
        metrics.PROXY_BROKER_DRAINING.labels(*labels).set(member.draining)
        for state in STATES:
            metrics.PROXY_BROKER_BREAKER.labels(*labels, state).set(member.state == state)
        counts = Counter(
            success=member.requests - member.failures,
            error=member.failures,
            checks=member.health_checks,
            detected=member.failures_detected,
        )
        news = counts - self._counts.get(member.name, Counter())
        self._counts[member.name] = counts
        for status in ("success", "error"):
            metrics.PROXY_BROKER_REQUESTS.labels(*labels, status).inc(news[status])
        metrics.PROXY_BROKER_FAILURES.labels(*labels).inc(news["detected"])
        metrics.PROXY_HEALTH_CHECKS.labels(SERVICE).inc(news["checks"])

    def _forget(self, name: str) -> None:
        del self._counts[name]
        labels = (SERVICE, name)
        for metric in (
            metrics.BROKER_HEALTH,
            metrics.PROXY_BROKER_HEALTH,
            metrics.PROXY_BROKER_DRAINING,
            metrics.PROXY_BROKER_FAILURES,
        ):
            metric.remove(*labels)
        for state in STATES:
            metrics.PROXY_BROKER_BREAKER.remove(*labels, state)
        for status in ("success", "error"):
            metrics.PROXY_BROKER_REQUESTS.remove(*labels, status)
