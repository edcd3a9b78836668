"""What grpcio itself can do between two Python processes: the physical limit of everything over `grpc://`."""

import asyncio
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc

from benchmarks.bare_grpc_server import MESSAGE_BYTES, OPTIONS, SERVICE
from benchmarks.processes import HOST, free_port, started
from benchmarks.results import Result
from benchmarks.workload import PAYLOAD_BYTES, Workload, timed

SERVER = Path(__file__).with_name("bare_grpc_server.py")
IN_FLIGHT = 4
LIMIT_OF = {"produce": "limit: grpcio stream, to the server", "consume + ack": "limit: grpcio stream, from the server"}
"""Which of the limits bounds which of our measurements."""


@contextmanager
def bare_server(folder: Path) -> Iterator[str]:
    """A server of empty answers in a process of its own, by its address."""
    port = free_port()
    with started("bare grpcio", [sys.executable, SERVER, str(port)], port, folder):
        yield f"{HOST}:{port}"


def measure_bare(workload: Workload) -> Iterator[Result]:
    """The bytes of all records in messages of 1 MiB, over a stream each way and as unary calls."""
    messages = max(IN_FLIGHT, workload.records * PAYLOAD_BYTES // MESSAGE_BYTES)
    records = messages * MESSAGE_BYTES // PAYLOAD_BYTES
    message = bytes(MESSAGE_BYTES)
    with workload.scratch() as folder, bare_server(folder) as address:
        for name, client, work in (
            (LIMIT_OF["produce"], "grpc, one bidi stream", lambda: stream(address, "Take", message, messages)),
            (LIMIT_OF["consume + ack"], "grpc, one bidi stream", lambda: stream(address, "Give", b"", messages)),
            (
                "limit: grpcio unary, to the server",
                "grpc.aio, unary calls",
                lambda: asyncio.run(call(address, message, messages)),
            ),
        ):
            seconds = [timed(work) for _ in range(workload.rounds)]
            yield Result(
                name=name,
                value=workload.rate(records, seconds),
                unit="records/s",
                client=f"{client}, 1 MiB a message, {IN_FLIGHT} in flight, the same bytes",
                payload_bytes=PAYLOAD_BYTES,
            )


def stream(address: str, method: str, message: bytes, messages: int) -> None:
    """So many messages over one stream, and an answer for each."""
    in_flight = threading.Semaphore(IN_FLIGHT)

    def requests() -> Iterator[bytes]:
        for _ in range(messages):
            in_flight.acquire()
            yield message

    answers = 0
    with grpc.insecure_channel(address, options=OPTIONS) as channel:
        call: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(f"/{SERVICE}/{method}")
        for _ in call(requests()):
            in_flight.release()
            answers += 1
    if answers != messages:
        raise SystemExit(f"bare grpcio: {messages:,} messages went out, {answers:,} were answered")


async def call(address: str, message: bytes, messages: int) -> None:
    """So many messages, each the request of a call."""
    left = iter(range(messages))
    async with grpc.aio.insecure_channel(address, options=OPTIONS) as channel:
        answer: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"/{SERVICE}/Answer")

        async def work() -> None:
            for _ in left:
                await answer(message)

        await asyncio.gather(*(work() for _ in range(IN_FLIGHT)))
