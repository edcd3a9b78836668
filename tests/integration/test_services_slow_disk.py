"""A disk whose syncs take long holds up those who asked for them, and nobody else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from telemetry_broker.v1 import broker_pb2 as pb
from telemetry_broker.v1.broker_pb2_grpc import BrokerServiceStub
from tests.integration.service_processes import BrokerProcess
from tests.integration.slow_disk import SlowDisk, compiled

if TYPE_CHECKING:
    from telemetry_broker.v1.broker_pb2_grpc import BrokerServiceAsyncStub

SYNC = 0.2
FSYNC = pb.TopicConfig(partitions=1, durability=pb.DURABILITY_FSYNC)
RECORD = [pb.Record(value=b"x")]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("preload"))


@pytest.fixture
def disk(library: Path, tmp_path: Path) -> SlowDisk:
    return SlowDisk(library, tmp_path / "switch")


@pytest.fixture
def broker(disk: SlowDisk, tmp_path: Path) -> Iterator[BrokerProcess]:
    with BrokerProcess(tmp_path / "data", environment=disk.environment) as broker:
        yield broker
        disk.is_fast()
        assert broker.stop() == 0


@pytest.fixture
async def stub(broker: BrokerProcess) -> AsyncIterator[BrokerServiceAsyncStub]:
    async with grpc.aio.insecure_channel(broker.grpc) as channel:
        made: BrokerServiceAsyncStub = BrokerServiceStub(channel)
        yield made


async def lease(stub: BrokerServiceAsyncStub) -> pb.LeaseRange:
    answer = await stub.Receive(pb.ReceiveRequest(topic="t", group="g", consumer="c", max_records=1))
    return pb.LeaseRange(lease_id=answer.deliveries[0].lease_id)


async def beside(stub: BrokerServiceAsyncStub, call: Awaitable[object]) -> tuple[float, int]:
    """How many syncs a call takes, and how many other calls are answered meanwhile."""
    began, others = time.monotonic(), 0
    waiting = asyncio.ensure_future(call)
    while not waiting.done():
        await stub.DescribeBroker(pb.DescribeBrokerRequest())
        others += 1
        await asyncio.sleep(0.01)
    await waiting
    return (time.monotonic() - began) / SYNC, others


async def test_who_waits_for_a_sync_holds_up_nobody(disk: SlowDisk, stub: BrokerServiceAsyncStub) -> None:
    await stub.CreateTopic(pb.CreateTopicRequest(name="t", config=FSYNC))
    await stub.Produce(pb.ProduceRequest(topic="t", partition=0, records=RECORD * 3))
    leases = [await lease(stub) for _ in range(3)]
    at_end = pb.Position(edge=pb.EDGE_END)
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "Produce": lambda: stub.Produce(pb.ProduceRequest(topic="t", partition=0, records=RECORD)),
        "Ack": lambda: stub.Ack(pb.AckRequest(topic="t", group="g", leases=leases[:1])),
        "Nack": lambda: stub.Nack(pb.NackRequest(topic="t", group="g", leases=leases[1:2], dead_letter=True)),
        "Redrive": lambda: stub.RedriveDeadLetters(pb.RedriveDeadLettersRequest(topic="t")),
        "CreateTopic": lambda: stub.CreateTopic(pb.CreateTopicRequest(name="u", config=FSYNC)),
        "ConfigureTopic": lambda: stub.ConfigureTopic(
            pb.ConfigureTopicRequest(name="u", config=pb.TopicConfig(partitions=2))
        ),
        "CreateGroup": lambda: stub.CreateGroup(pb.CreateGroupRequest(topic="t", group="h")),
        "SeekGroup": lambda: stub.SeekGroup(pb.SeekGroupRequest(topic="t", group="g", to=at_end)),
        "PurgeTopic": lambda: stub.PurgeTopic(pb.PurgeTopicRequest(name="t")),
        "DeleteGroup": lambda: stub.DeleteGroup(pb.DeleteGroupRequest(topic="t", group="h")),
        "DeleteTopic": lambda: stub.DeleteTopic(pb.DeleteTopicRequest(name="u")),
    }
    disk.sync_takes(SYNC)
    waited = set()
    for name, call in calls.items():
        syncs, others = await beside(stub, call())
        if syncs >= 1:
            waited.add(name)
            assert others >= 2 * syncs, f"while {name} waited for {syncs:.1f} syncs, {others} other calls were answered"
    assert {"Produce", "Ack", "SeekGroup", "CreateTopic"} <= waited, "the disk was not slow"


async def test_an_ack_on_a_stream_that_waits_for_a_sync_holds_up_nobody(
    disk: SlowDisk, stub: BrokerServiceAsyncStub
) -> None:
    await stub.CreateTopic(pb.CreateTopicRequest(name="t", config=FSYNC))
    await stub.Produce(pb.ProduceRequest(topic="t", partition=0, records=RECORD))
    stream: Any = stub.Consume()
    start = pb.ConsumeStart(receive=pb.ReceiveRequest(topic="t", group="g", consumer="c"), credit_records=9)
    await stream.write(pb.ConsumeRequest(start=start))
    leased = pb.LeaseRange(lease_id=(await stream.read()).delivery.lease_id)
    disk.sync_takes(SYNC)
    await stream.write(pb.ConsumeRequest(ack=pb.AckRequest(leases=[leased])))
    acked = asyncio.ensure_future(stream.read())
    syncs, others = await beside(stub, acked)
    assert acked.result().acked.acked == 1
    assert syncs > 0.5  # it has begun when the stopwatch has
    assert others >= 2 * syncs
    stream.cancel()


async def test_many_producers_share_the_syncs(disk: SlowDisk, stub: BrokerServiceAsyncStub) -> None:
    """With the few threads that an event loop has by itself these need 25 syncs on 2 cores, else about 5."""
    await stub.CreateTopic(pb.CreateTopicRequest(name="t", config=FSYNC))
    disk.sync_takes(SYNC)
    began = time.monotonic()
    requests = [pb.ProduceRequest(topic="t", partition=0, records=RECORD) for _ in range(64)]

    async def produce(request: pb.ProduceRequest) -> None:
        await stub.Produce(request)

    await asyncio.gather(*map(produce, requests))
    syncs = (time.monotonic() - began) / SYNC
    assert 1 <= syncs < 12, f"64 producers waited for {syncs:.1f} syncs"
