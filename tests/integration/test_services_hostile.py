"""Slow, stuck, vanished and malicious clients: the broker's memory stays bounded, and the others are served."""

from __future__ import annotations

import contextlib
import gzip
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import grpc
import httpx
import pytest

import telemetry_broker as tb
from telemetry_broker.status_details import read_details
from telemetry_broker.v1 import broker_pb2 as pb
from telemetry_broker.v1.broker_pb2_grpc import BrokerServiceStub
from tests.integration.raw_http2 import RawHttp2, framed
from tests.integration.service_processes import BrokerProcess

MEBIBYTE = 1 << 20
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[BrokerProcess]:
    with BrokerProcess(tmp_path / "data", "--topics", "t:1") as process:
        yield process
        assert process.process.poll() is None, f"the broker died:\n{process.output}"
        assert_others_are_served(process)
        assert process.stop() == 0
        assert "Traceback" not in process.output


def assert_others_are_served(broker: BrokerProcess) -> None:
    """A record goes through, from one well-behaved client to another, in reasonable time."""
    began = time.monotonic()
    with tb.connect(broker.url) as client:
        client.create_topic("others", partitions=1)
        with client.producer("others") as producer:
            producer.send(b"1")
        with client.consumer("others", "g") as consumer:
            batch = consumer.receive(wait=20)
            assert batch.values == [b"1"]
            batch.ack()
    assert time.monotonic() - began < 10


def memory(broker: BrokerProcess) -> int:
    """Resident bytes now."""
    status = Path(f"/proc/{broker.process.pid}/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS"))


def cpu_seconds(broker: BrokerProcess) -> float:
    """Processor time that it has used."""
    fields = Path(f"/proc/{broker.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def at_most(broker: BrokerProcess, mebibytes: int) -> Iterator[None]:
    """The broker's memory grows by less than that."""
    assert_others_are_served(broker)  # what everything needs once is there
    before = memory(broker)
    yield
    grown = (memory(broker) - before) / MEBIBYTE
    assert grown < mebibytes, f"the broker grew by {grown:.0f} MiB"


def test_half_open_connections(broker: BrokerProcess) -> None:
    host, _, port = broker.grpc.rpartition(":")
    beginnings = [b"", PREFACE[:10], PREFACE, PREFACE + b"\x00\x00", b"GET / HTTP/1.1\r\n", b"\x16\x03\x01\x02\x00"]
    with at_most(broker, 50), contextlib.ExitStack() as stack:
        for beginning in beginnings * 40:
            connection = stack.enter_context(socket.create_connection((host, int(port)), timeout=20))
            with contextlib.suppress(OSError):
                connection.sendall(beginning)
        assert_others_are_served(broker)


def test_ten_thousand_idle_streams(broker: BrokerProcess) -> None:
    """Streams that say who they are and then nothing more, on a few connections."""
    start = pb.ConsumeRequest(
        start=pb.ConsumeStart(
            receive=pb.ReceiveRequest(topic="t", group="g", consumer="idle", wait_ms=0), credit_records=1
        )
    )
    message = framed(start.SerializeToString())
    count = int(os.environ.get("IDLE_STREAMS", "10000"))
    with at_most(broker, count * 50 // 1000), contextlib.ExitStack() as stack:
        clients = [stack.enter_context(RawHttp2(broker.grpc)) for _ in range(10)]
        for client in clients:
            for _ in range(count // 10):
                stream = client.open("Consume")
                client.send(stream, message)
        for client in clients:
            client.http2.ping(bytes(8))
            client.flush()
            while not client.pongs and not client.closed:
                client.take()
            assert not client.closed
        assert_others_are_served(broker)


def test_a_message_over_the_bound_is_refused(broker: BrokerProcess) -> None:
    with at_most(broker, 100), RawHttp2(broker.grpc) as client:
        stream = client.open("Produce")
        client.send(stream, struct.pack(">?I", False, 0xFFFFFFFF) + bytes(1000))  # announces 4 GiB
        assert client.wait(stream).status == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
        assert client.call("ListTopics", b"").status == 0
        # 2 GiB of nothing in 2 MiB.
        bomb = gzip.compress(bytes(MEBIBYTE), 9) * 256
        stream = client.open("Produce", ("grpc-encoding", "gzip"))
        client.send(stream, framed(bomb, compressed=True), end=True)
        assert client.wait(stream).status != 0


def test_giant_frames_end_their_connection_only(broker: BrokerProcess) -> None:
    host, _, port = broker.grpc.rpartition(":")
    with at_most(broker, 50):
        for kind in (0x0, 0x1, 0x4, 0x7, 0xFF):  # DATA, HEADERS, SETTINGS, GOAWAY, unknown
            with socket.create_connection((host, int(port)), timeout=20) as connection:
                frame = b"\xff\xff\xff" + bytes([kind, 0]) + struct.pack(">I", 1)
                with contextlib.suppress(OSError):
                    connection.sendall(PREFACE + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00" + frame + bytes(MEBIBYTE))
                    while connection.recv(1 << 16):
                        pass
            assert_others_are_served(broker)


def test_garbage_is_refused(broker: BrokerProcess) -> None:
    methods = [method.name for method in pb.DESCRIPTOR.services_by_name["BrokerService"].methods]
    with at_most(broker, 50), RawHttp2(broker.grpc) as client:
        for method in methods:
            for garbage in (b"\xff" * 50, b"\x0a\xff\xff\xff\xff\x7f", b"\x0b", os.urandom(2000), b"\x0a\x01\xff"):
                answer = client.call(method, garbage)
                refused = (grpc.StatusCode.INVALID_ARGUMENT.value[0], grpc.StatusCode.NOT_FOUND.value[0])
                # A ProduceStream goes on after an error; random bytes may be a message of fields that nobody knows.
                assert answer.status in refused or answer.status == 0, (method, garbage, answer.trailers)
            stream = client.open(method)
            client.send(
                stream, b"\x07" + os.urandom(100), end=True
            )  # not even framed: gRPC answers some of these never
        assert client.call("ListTopics", b"").status == 0


def test_a_flood_of_headers(broker: BrokerProcess) -> None:
    with at_most(broker, 50):
        for number, size in ((2_000, 100), (1, 50_000), (20_000, 2)):
            with RawHttp2(broker.grpc) as client, contextlib.suppress(OSError):
                headers = [(f"x-{index}", "v" * size) for index in range(number)]
                stream = client.open("ListTopics", *headers)
                client.send(stream, framed(b""), end=True)
                client.wait(stream)  # answered or refused, as gRPC likes
            assert_others_are_served(broker)
    # Streams that are opened and reset at once, over and over.
    with at_most(broker, 100), RawHttp2(broker.grpc) as client, contextlib.suppress(OSError):
        for _ in range(2_000):
            client.http2.reset_stream(client.open("ListTopics"))
            client.flush()


def test_a_consumer_that_never_reads(broker: BrokerProcess) -> None:
    with tb.connect(broker.url) as client, client.producer("t") as producer:
        for _ in range(100):
            producer.send(bytes(MEBIBYTE - 100))
    start = pb.ConsumeRequest(
        start=pb.ConsumeStart(
            receive=pb.ReceiveRequest(topic="t", group="g", consumer="stuck"), credit_records=1_000_000
        )
    )
    with at_most(broker, 60), contextlib.ExitStack() as stack:
        for _ in range(10):
            client_ = stack.enter_context(RawHttp2(broker.grpc, reads=False))
            client_.send(client_.open("Consume"), framed(start.SerializeToString()))
        before = cpu_seconds(broker)
        time.sleep(12)  # while which the broker may send what it likes, heartbeats too
        assert cpu_seconds(broker) - before < 2
        assert_others_are_served(broker)
    with tb.connect(broker.url) as client, client.consumer("t", "g") as consumer:
        taken = 0
        while taken < 100:  # what the stuck ones had is given back
            batch = consumer.receive(wait=20)
            assert batch, f"{100 - taken} records did not come"
            taken += len(batch.values)
            batch.ack()


def test_a_client_that_is_killed_gives_back_what_it_leased(broker: BrokerProcess) -> None:
    with tb.connect(broker.url) as client, client.producer("t") as producer:
        for number in range(10):
            producer.send(b"%d" % number)
    program = f"""
import grpc, queue
from telemetry_broker.status_details import read_details
from telemetry_broker.v1 import broker_pb2 as pb
from telemetry_broker.v1.broker_pb2_grpc import BrokerServiceStub
from telemetry_broker.v1.broker_pb2_grpc import BrokerServiceStub
requests = queue.SimpleQueue()
receive = pb.ReceiveRequest(topic="t", group="g", consumer="killed")
requests.put(pb.ConsumeRequest(start=pb.ConsumeStart(receive=receive, credit_records=10)))
for answer in BrokerServiceStub(grpc.insecure_channel("{broker.grpc}")).Consume(iter(requests.get, None)):
    print(len(answer.delivery.records), flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as doomed:
        assert doomed.stdout is not None
        assert doomed.stdout.readline() == b"10\n"
        doomed.send_signal(signal.SIGKILL)
    began = time.monotonic()
    with tb.connect(broker.url) as client, client.consumer("t", "g") as consumer:
        batch = consumer.receive(wait=20)
        assert (len(batch.values), batch.attempt) == (10, 2)
    assert time.monotonic() - began < 10, "they came back when the lease ended, not when the client did"


def test_a_client_that_vanishes_in_the_middle_of_a_batch(broker: BrokerProcess) -> None:
    message = pb.ProduceRequest(topic="t", partition=0, records=[pb.Record(value=bytes(500_000))]).SerializeToString()
    with at_most(broker, 60):
        for _ in range(50):
            with RawHttp2(broker.grpc) as client:
                stream = client.open("Produce")
                client.send(stream, framed(message)[:50_000])
    with tb.connect(broker.url) as client:
        assert client.describe_topic("t").partitions[0].end_offset == 0


def test_a_stop_waits_for_no_one_who_is_stuck(tmp_path: Path) -> None:
    with BrokerProcess(tmp_path, "--topics", "t:1") as broker, RawHttp2(broker.grpc, reads=False) as stuck:
        with tb.connect(broker.url) as client, client.producer("t") as producer:
            for _ in range(20):
                producer.send(bytes(MEBIBYTE - 100))
        start = pb.ConsumeStart(receive=pb.ReceiveRequest(topic="t", group="g", consumer="c"), credit_records=1000)
        stuck.send(stuck.open("Consume"), framed(pb.ConsumeRequest(start=start).SerializeToString()))
        with grpc.insecure_channel(broker.grpc) as channel:
            stub = BrokerServiceStub(channel)
            requests: SimpleQueue[pb.ConsumeRequest | None] = SimpleQueue()
            receive = pb.ReceiveRequest(topic="t", group="h", consumer="c", max_records=1)
            requests.put(pb.ConsumeRequest(start=pb.ConsumeStart(receive=receive, credit_records=1)))
            answers = stub.Consume(iter(requests.get, None))
            leased = next(answers).delivery
            poll = pb.ReceiveRequest(topic="t", group="none", consumer="c", wait_ms=60_000, partitions=[0])
            made = pb.CreateGroupRequest(topic="t", group="none")
            getattr(made, "from").edge = pb.EDGE_END
            stub.CreateGroup(made)
            polled = stub.Receive.future(poll)
            while 'active_connections{service="broker"} 3.0' not in httpx.get(f"http://{broker.http}/metrics").text:
                assert broker.process.poll() is None
            broker.process.send_signal(signal.SIGTERM)
            assert [answer.WhichOneof("response") for answer in answers] == ["goodbye"]
            assert leased.attempt == 1
            error = polled.exception()
            assert isinstance(error, grpc.RpcError)
            assert error.code() == grpc.StatusCode.UNAVAILABLE
            trailers: Any = error.trailing_metadata()
            assert read_details(trailers) == ("broker.draining", 1.0, None)
        assert broker.wait(timeout=8) == 0
