"""Processes and threads: one process a folder, none after a fork, and no call that keeps the interpreter to itself."""

import gc
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import telemetry_broker as tb
from tests.integration.contract.engines import TIMEOUT, Engine
from tests.integration.ctrl_c import ctrl_c_after


def in_child(work: Callable[[], object]) -> str:
    """Runs work in a forked child; returns the error it raised, as text."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        # Collecting a channel that an earlier test left behind waits for gRPC's threads, which are in the parent.
        gc.disable()
        try:
            work()
            os.write(writing, b"no error")
        except BaseException as error:  # noqa: BLE001 - whatever it is, the parent wants to read it
            os.write(writing, f"{type(error).__name__} {error}".encode()[:4000])
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        text = pipe.read().decode()
    os.waitpid(child, 0)
    return text


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_connection_is_refused_in_a_forked_child_and_works_on_in_the_parent(engine: Engine) -> None:
    broker = engine.broker
    broker.create_topic("t", partitions=1)
    producer = broker.producer("t", linger=3600)
    consumer = broker.consumer("t", "g")
    producer.send(b"parent")

    assert "fork" in in_child(lambda: producer.send(b"child"))
    assert "fork" in in_child(producer.flush)
    assert "fork" in in_child(broker.topics)
    assert "fork" in in_child(consumer.receive)
    assert in_child(broker.close) == "no error"

    producer.flush()
    assert consumer.receive().values == [b"parent"]


def test_a_folder_is_for_one_process_and_the_refusal_says_how_to_share_it(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/data"
    program = (
        "import sys, telemetry_broker as tb\n"
        "try: tb.connect(sys.argv[1])\n"
        "except tb.InUseError as error: sys.exit(str(error))\n"
    )
    with tb.connect(url):
        result = subprocess.run([sys.executable, "-c", program, url], capture_output=True, text=True, timeout=TIMEOUT)
    assert result.returncode == 1
    assert result.stderr.startswith("data.in_use")
    assert "telemetry broker" in result.stderr


def test_a_program_that_ends_without_closing_leaves_what_it_flushed(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/data"
    program = (
        "import sys, telemetry_broker as tb\n"
        "broker = tb.connect(sys.argv[1])\n"
        "broker.create_topic('t', partitions=1)\n"
        "producer = broker.producer('t')\n"
        "producer.send(b'a')\n"
        "producer.flush()\n"
    )
    subprocess.run([sys.executable, "-c", program, url], check=True, timeout=TIMEOUT)
    with tb.connect(url) as broker:
        assert broker.read("t", 0).values == [b"a"]


LEFT_OPEN = """
import asyncio, sys, threading, time
import telemetry_broker as tb
from telemetry_broker import aio

def sync(url):
    broker = tb.connect(url)
    producer = broker.producer("t")
    producer.send(b"flushed")
    producer.flush()
    consumer = broker.consumer("t", "g", visibility_timeout=0.1)
    batch = next(iter(consumer))
    threading.Thread(target=consumer.receive, kwargs={"wait": None}, daemon=True).start()
    time.sleep(0.2)  # its lease is being extended, and the thread waits
    producer.send(b"buffered")
    return broker, producer, consumer, batch

async def main(url):
    broker = await aio.connect(url)
    producer = await broker.producer("t")
    await producer.send(b"flushed")
    await producer.flush()
    consumer = broker.consumer("t", "g", visibility_timeout=0.1)
    batch = await anext(aiter(consumer))
    waiting = asyncio.create_task(consumer.receive(wait=None))
    await asyncio.sleep(0.2)
    await producer.send(b"buffered")
    return broker, producer, consumer, batch, waiting

left = sync(sys.argv[2]) if sys.argv[1] == "sync" else asyncio.run(main(sys.argv[2]))
"""


@pytest.mark.parametrize("face", ["sync", "async"])
@pytest.mark.parametrize("kind", ["file", "grpc"])
def test_a_program_that_ends_with_everything_open_ends_at_once_and_in_silence(
    face: str, kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = f"file://{tmp_path}/data" if kind == "file" else request.getfixturevalue("shared_server").url
    with tb.connect(url) as broker:
        broker.create_topic("t", partitions=1)
    try:
        program = [sys.executable, "-X", "dev", "-W", "error", "-c", LEFT_OPEN, face, url]
        ended = subprocess.run(program, capture_output=True, text=True, timeout=TIMEOUT, check=False)
        assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
        with tb.connect(url) as broker, broker.consumer("t", "g") as consumer:
            assert consumer.receive(wait=TIMEOUT).values[0] == b"flushed"
    finally:
        with tb.connect(url) as broker:
            broker.delete_topic("t")


def test_ctrl_c_ends_a_wait(engine: Engine) -> None:
    engine.broker.create_topic("t")
    started = threading.Event()
    with ctrl_c_after(started, TIMEOUT), engine.broker.consumer("t", "g") as consumer:
        started.set()
        with pytest.raises(KeyboardInterrupt):
            consumer.receive(wait=None)


def counting_rate(work: Callable[[], object]) -> float:
    """How often a second a thread counts while the work runs."""
    stop = threading.Event()
    count = 0

    def spin() -> None:
        nonlocal count
        while not stop.is_set():
            count += 1

    thread = threading.Thread(target=spin)
    thread.start()
    begun = time.monotonic()
    work()
    elapsed = time.monotonic() - begun
    stop.set()
    thread.join()
    return count / elapsed


def test_a_wait_leaves_the_interpreter_to_other_threads(tmp_path: Path) -> None:
    with tb.connect(f"file://{tmp_path}/data") as broker:
        broker.create_topic("t")
        with broker.consumer("t", "g") as consumer:
            idle = counting_rate(lambda: time.sleep(0.3))
            waiting = counting_rate(lambda: consumer.receive(wait=0.3))
    assert waiting > idle / 4


def test_synced_appends_leave_the_interpreter_to_other_threads(tmp_path: Path) -> None:
    with tb.connect(f"file://{tmp_path}/data") as broker:
        broker.create_topic("t", partitions=1, durability="fsync")
        records = b"\x7a\x80\x80\x04" + b"\x0a\xfc\xff\x03" + bytes(65_532)
        with broker.producer("t", name="n") as producer:
            sequence = iter(range(1, 1_000_000))

            def append() -> None:
                end = time.monotonic() + 0.3
                while time.monotonic() < end:
                    producer.append(records * 60, partition=0, sequence=next(sequence))

            idle = counting_rate(lambda: time.sleep(0.3))
            appending = counting_rate(append)
    assert appending > idle / 8


def test_a_broken_lock_order_would_hang_here(tmp_path: Path) -> None:
    """Everything at once, in a process of its own that must end."""
    process = multiprocessing.get_context("spawn").Process(target=hammer, args=(f"file://{tmp_path}/data",))
    process.start()
    process.join(TIMEOUT)
    hung = process.is_alive()
    process.kill()
    process.join()
    assert not hung
    assert process.exitcode == 0


def hammer(url: str) -> None:
    with tb.connect(url) as broker:
        broker.create_topic("t", partitions=2)
        end = time.monotonic() + 1
        failures: list[BaseException] = []

        def repeat(work: Callable[[], object]) -> None:
            try:
                while time.monotonic() < end:
                    work()
            except BaseException as error:  # noqa: BLE001 - reported by the exit code below
                failures.append(error)

        with (
            broker.producer("t", linger=0.001) as producer,
            broker.consumer("t", "g") as one,
            broker.consumer("t", "g", visibility_timeout=0.001) as two,
        ):
            works: list[Callable[[], object]] = [
                lambda: producer.send(b"x" * 100),
                producer.flush,
                lambda: one.receive(wait=0.01).ack(),
                lambda: two.receive(wait=0.01).nack(),
                lambda: broker.describe_topic("t"),
                lambda: broker.read("t", 0),
                broker.topics,
            ]
            threads = [threading.Thread(target=repeat, args=(work,)) for work in works]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        stray = [error for error in failures if not isinstance(error, tb.StaleLeaseError)]
        if stray:
            raise stray[0]
