"""What a proxy's log says of brokers: those cases that need names of a cluster's DNS."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest

from telemetry_services.proxy.brokers import Brokers


@dataclass
class Member:
    """As much of `_core.Member` as the log needs."""

    name: str
    calls_itself: str
    requests: int = 0
    failures: int = 0


class Cluster:
    """As much of `_core.Cluster`."""

    def __init__(self, *members: Member) -> None:
        self._members = list(members)

    def members(self) -> list[Member]:
        return self._members

    def take_events(self) -> list[tuple[str, str]]:
        return [("warning", "broker q-0 (q-0.q:9090) is away: it does not answer")]


async def told(caplog: pytest.LogCaptureFixture, *, are_pods: bool) -> list[str]:
    cluster: Any = Cluster(Member("q-0", "q-0"), Member("q-1", "q-2"), Member("q-2", ""))
    reporting = asyncio.create_task(Brokers(cluster, are_pods=are_pods).report())
    await asyncio.sleep(0)
    reporting.cancel()
    await asyncio.wait([reporting])
    return [f"{record.message} {vars(record).get('calls_itself', '')}" for record in caplog.records]


async def test_a_pod_that_answers_by_the_name_of_another_is_said(caplog: pytest.LogCaptureFixture) -> None:
    event, misnamed = await told(caplog, are_pods=True)
    assert event.startswith("broker q-0 (q-0.q:9090) is away")
    assert "not the one that its address belongs to" in misnamed
    assert misnamed.endswith(" q-2")


async def test_listed_brokers_may_call_themselves_as_they_like(caplog: pytest.LogCaptureFixture) -> None:
    assert len(await told(caplog, are_pods=False)) == 1
