"""What only the asynchronous face promises: cancelling is safe, nothing polls, nothing blocks the event loop."""

from __future__ import annotations

import asyncio
import selectors
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import telemetry_broker as tb
from telemetry_broker import _core, aio
from tests.integration.contract.engines import TIMEOUT, BrokerProcess


@pytest.fixture(params=["mem", "file", "grpc"])
async def broker(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[aio.Broker]:
    """A broker with a topic of one partition."""
    match request.param:
        case "mem":
            url = "mem://"
        case "file":
            url = f"file://{tmp_path}/data"
        case _:
            server: BrokerProcess = request.getfixturevalue("shared_server")
            url = server.url
    async with aio.connect(url) as broker:
        await broker.create_topic("t", partitions=1)
        yield broker
        for topic in await broker.topics():
            await broker.delete_topic(topic.name)


async def send(broker: aio.Broker, *values: bytes) -> None:
    async with broker.producer("t") as producer:
        await producer.send_many(values)


# Cancelling


async def test_a_cancelled_wait_withholds_nothing_from_the_next_receive(broker: aio.Broker) -> None:
    async with broker.consumer("t", "g") as consumer:
        for number in range(20):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(consumer.receive(wait=None), 0.01)
            await send(broker, b"%d" % number)
            batch = await consumer.receive(wait=TIMEOUT)
            assert (batch.values, batch.attempt) == ([b"%d" % number], 1)
            await batch.ack()


async def test_cancelling_while_records_come_loses_none(broker: aio.Broker) -> None:
    """Cancelled at every moment of its life, a receive leases nothing that nobody gets before the lease ends."""
    values: list[bytes] = []
    async with (
        broker.producer("t", linger=0) as producer,
        broker.consumer("t", "g", visibility_timeout=600, max_records=1) as consumer,
    ):
        for number in range(200):
            receiving = asyncio.create_task(consumer.receive(wait=None))
            await asyncio.sleep(0)
            await producer.send(b"%d" % number)
            await asyncio.sleep(number * 0.00001)
            receiving.cancel()
            try:
                batch = await receiving
            except asyncio.CancelledError:
                continue
            values += batch.values
            await batch.ack()
        await producer.flush()
        while len(values) < 200:
            batch = await consumer.receive(wait=TIMEOUT)
            assert batch, f"{200 - len(values)} records were lost"
            values += batch.values
            await batch.ack()
    assert sorted(map(int, values)) == list(range(200))


async def test_what_a_cancelled_wait_leased_is_given_back_when_nobody_claims_it(broker: aio.Broker) -> None:
    async with (
        broker.consumer("t", "g", visibility_timeout=600) as leaving,
        broker.consumer("t", "g") as other,
    ):
        for _ in range(3):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(leaving.receive(wait=None), 0.05)
        await send(broker, b"a")
        assert (await other.receive(wait=TIMEOUT)).values == [b"a"]  # long before the lease would have ended


async def test_a_cancelled_wait_of_an_ordered_group_keeps_the_order(broker: aio.Broker) -> None:
    async with broker.consumer("t", "o", mode="ordered", max_records=3) as consumer:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(consumer.receive(wait=None), 0.05)
        await send(broker, *(b"%d" % number for number in range(9)))
        await asyncio.sleep(0.05)
        values: list[bytes] = []
        while len(values) < 9:
            batch = await consumer.receive(max_records=2, wait=TIMEOUT)
            assert 1 <= len(batch) <= 2
            values += batch.values
            await batch.ack()
        assert values == [b"%d" % number for number in range(9)]


async def test_a_cancelled_flush_leaves_its_records_on_their_way(broker: aio.Broker) -> None:
    async with broker.producer("t", linger=3600) as producer:
        await producer.send(b"a")
        flushing = asyncio.create_task(producer.flush())
        await asyncio.sleep(0)
        flushing.cancel()
        await asyncio.wait([flushing])
        await producer.flush(TIMEOUT)
        assert producer.failed_records == 0
    assert (await broker.read("t", 0)).values == [b"a"]


async def test_a_task_cancelled_in_its_blocks_flushes_and_gives_back(broker: aio.Broker) -> None:
    await send(broker, b"a", b"b")
    started = asyncio.Event()

    async def work() -> None:
        async with broker.producer("t", linger=3600) as producer, broker.consumer("t", "g") as consumer:
            await consumer.receive()
            await producer.send(b"c")
            started.set()
            await consumer.receive(wait=None)
            await consumer.receive(wait=None)

    task = asyncio.create_task(work())
    await asyncio.wait_for(started.wait(), TIMEOUT)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with broker.consumer("t", "g") as consumer:
        values: list[bytes] = []
        while len(values) < 3:
            batch = await consumer.receive(wait=TIMEOUT)
            values += batch.values
            await batch.ack()
    assert sorted(values) == [b"a", b"b", b"c"]


async def test_a_cancelled_connect_leaves_the_folder_free(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/data"
    for turns in range(3):
        connecting = asyncio.ensure_future(_connect(url))
        for _ in range(turns):
            await asyncio.sleep(0)
        connecting.cancel()
        await asyncio.wait([connecting])
    deadline = time.monotonic() + TIMEOUT
    while True:
        try:
            async with aio.connect(url) as broker:
                assert await broker.topics() == []
            return
        except tb.InUseError:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)


async def _connect(url: str) -> aio.Broker:
    return await aio.connect(url)


# The event loop


async def test_many_consumers_of_one_loop_share_the_work(broker: aio.Broker) -> None:
    values: list[bytes] = []
    done = asyncio.Event()

    async def work() -> None:
        async with broker.consumer("t", "g", max_records=3) as consumer:
            async for batch in consumer:
                await batch.ack()
                values.extend(batch.values)
                if len(values) >= 1000:
                    done.set()

    tasks = [asyncio.create_task(work()) for _ in range(100)]
    await asyncio.sleep(0.1)
    await send(broker, *(b"%d" % number for number in range(1000)))
    await asyncio.wait_for(done.wait(), TIMEOUT)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert sorted(map(int, values)) == list(range(1000))
    assert (await broker.describe_group("t", "g")).lag == 0


async def test_the_loop_sleeps_while_consumers_wait(broker: aio.Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    consumers = [broker.consumer("t", "g") for _ in range(20)]
    waits = [asyncio.create_task(consumer.receive(wait=None)) for consumer in consumers]
    await asyncio.sleep(0.3)
    turns = 0
    selector: selectors.BaseSelector = vars(asyncio.get_running_loop())["_selector"]
    select = selector.select

    def counted(timeout: float | None = None) -> Any:
        nonlocal turns
        turns += 1
        return select(timeout)

    monkeypatch.setattr(selector, "select", counted)
    await asyncio.sleep(0.5)
    monkeypatch.undo()
    assert turns <= 5
    for consumer in consumers:
        await consumer.close()
    assert not any(await asyncio.gather(*waits))  # closing ends each wait with an empty batch


async def test_hot_calls_take_no_thread(broker: aio.Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a thread for a call of microseconds")

    async with broker.producer("t") as producer, broker.consumer("t", "g") as consumer:
        await producer.send(b"warm")
        await producer.flush()
        threads = threading.active_count()
        monkeypatch.setattr(asyncio.get_running_loop(), "run_in_executor", refuse)
        for number in range(50):
            await producer.send(b"%d" % number)
            await producer.flush()
            batch = await consumer.receive(wait=TIMEOUT)
            await batch.extend()
            await batch.ack(batch.offsets[:1])
            await batch.nack(offsets=batch.offsets[1:])
        await broker.describe_topic("t")
        assert threading.active_count() == threads
        monkeypatch.undo()


async def test_synced_appends_and_acks_leave_the_loop_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with aio.connect(f"file://{tmp_path}/data", durability="fsync") as broker:
        await broker.create_topic("t", partitions=1)
        on_loop = threading.get_ident()
        waited: list[tuple[str, int]] = []
        core = broker._transport._core  # type: ignore[attr-defined]

        class Spy:
            """The core; notes in which threads it waits for the disk."""

            call_unsettled, produce_waits = core.call_unsettled, core.produce_waits

            @staticmethod
            def call(method: str, request: bytes) -> bytes:
                waited.append((method, threading.get_ident()))
                answer: bytes = core.call(method, request)
                return answer

            @staticmethod
            def settle(unsettled: list[_core.Unsettled]) -> list[tb.BrokerError | None]:
                waited.append(("settle", threading.get_ident()))
                outcomes: list[tb.BrokerError | None] = core.settle(unsettled)
                return outcomes

        calls = broker._transport._calls  # type: ignore[attr-defined]
        monkeypatch.setattr(calls, "_core", Spy)
        monkeypatch.setattr(calls._settling, "_core", Spy)
        await asyncio.gather(*(send(broker, b"%d" % number) for number in range(64)))
        syncs = sum(method == "settle" for method, _ in waited)
        async with broker.consumer("t", "g") as consumer:
            batch = await consumer.receive()
            await batch.ack([0])
            await batch.nack(offsets=[1])
    assert {method for method, _ in waited} >= {"settle", "Nack"}
    assert on_loop not in {thread for method, thread in waited if method in ("settle", "Nack")}
    assert syncs < 64, "64 producers at once share their syncs"


async def test_who_sends_or_receives_without_a_pause_leaves_turns_to_others(broker: aio.Broker) -> None:
    longest = 0.0

    async def tick() -> None:
        nonlocal longest
        while True:
            begun = time.monotonic()
            await asyncio.sleep(0)
            longest = max(longest, time.monotonic() - begun)

    ticking = asyncio.create_task(tick())
    async with broker.producer("t", batch_bytes=64 * 1024) as producer:
        for _ in range(50_000):
            await producer.send(b"x" * 100)
    async with broker.consumer("t", "g", idle_timeout=0.01) as consumer:
        received = 0
        async for batch in consumer:
            received += len(batch)
            await batch.ack()
    ticking.cancel()
    assert received == 50_000
    assert longest < 0.5


async def test_a_full_buffer_pushes_back_and_a_cancelled_send_has_added_nothing(tmp_path: Path) -> None:
    server = BrokerProcess(tmp_path / "data")
    try:
        async with aio.connect(server.url) as broker:
            await broker.create_topic("t", partitions=1)
            async with broker.producer("t", batch_bytes=10_000) as producer:
                await asyncio.to_thread(server.end, kill=True)
                accepted = 0

                async def send_on() -> None:
                    nonlocal accepted
                    while True:
                        await producer.send(b"x" * 1000)
                        accepted += 1

                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(send_on(), 0.5)
                await asyncio.to_thread(server.restart)
                await producer.flush()
            state = await broker.describe_topic("t")
            assert state.partitions[0].end_offset == accepted
    finally:
        await asyncio.to_thread(server.end, kill=True)


# Where it may be used


async def test_another_event_loop_is_refused(broker: aio.Broker) -> None:
    async with broker.producer("t") as producer, broker.consumer("t", "g") as consumer:
        for call in (broker.topics, lambda: producer.send(b"a"), producer.flush, consumer.receive):
            with pytest.raises(tb.InvalidArgumentError, match="belongs to the event loop in which it was made"):
                await asyncio.to_thread(lambda call=call: asyncio.run(call()))  # type: ignore[misc]


async def test_both_faces_share_a_named_broker_in_memory() -> None:
    async with aio.connect("mem://both-faces") as broker:
        await broker.create_topic("t", partitions=1)
        async with broker.consumer("t", "g") as consumer:
            waiting = asyncio.create_task(consumer.receive(wait=TIMEOUT))
            await asyncio.sleep(0.01)
            with tb.connect("mem://both-faces") as other, other.producer("t") as producer:
                producer.send(b"a")
            assert (await waiting).values == [b"a"]


async def test_awaiting_opens_and_close_closes(broker: aio.Broker) -> None:
    producer = await broker.producer("t", linger=3600)
    await producer.send(b"a")
    await producer.close()
    assert producer.closed
    consumer = broker.consumer("t", "g")
    assert (await consumer.receive()).values == [b"a"]
    await consumer.close()
    assert consumer.closed
    async with broker.consumer("t", "g") as other:
        assert (await other.receive()).attempt == 2
