"""Live: who asked for samples sees them; who comes back misses nothing; who is slow holds up nobody."""

import json
import socket
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import grpc
import httpx
import pytest

from telemetry_broker.v1 import query_pb2, query_pb2_grpc
from tests.integration.up_process import KEY, READ_KEY, UTIL, Up, line, running_up, send, wait_for_gpus

GPUS = 16


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    with running_up(tmp_path_factory.mktemp("up")) as up:
        send(up.grpc, [line(gpu, 1) for gpu in range(GPUS)])
        wait_for_gpus(up, GPUS)
        yield up


class Events:
    """The events of a stream, one by one."""

    def __init__(self, answer: httpx.Response) -> None:
        self._lines = answer.iter_lines()
        self.last_id = ""

    def next(self, *names: str) -> tuple[str, Any]:
        """The next event, of one of these names where any is given."""
        name, data = "", ""
        for text in self._lines:
            field, _, value = text.partition(": ")
            if field == "id":
                self.last_id = value
            elif field == "event":
                name = value
            elif field == "data":
                data = value
            elif not text and data:
                if not names or name in names:
                    return name, json.loads(data)
                name, data = "", ""
        raise AssertionError("the stream has ended")


def test_a_viewer_sees_the_samples_it_asked_for_and_no_others(up: Up) -> None:
    path = "/api/v1/live?id=GPU-0003&id=GPU-0009&metric=" + UTIL
    with up.client(READ_KEY) as client, client.stream("GET", path) as answer:
        events = Events(answer)
        assert events.next()[0] == "hello"
        send(up.grpc, [line(gpu, 50 + gpu) for gpu in range(GPUS)])
        seen: dict[str, float] = {}
        while len(seen) < 2:
            _, body = events.next("samples")
            assert set(body["values"]) == {UTIL}
            seen |= zip((gpu["uuid"] for gpu in body["gpus"]), body["values"][UTIL], strict=True)
        assert seen == {"GPU-0003": 53, "GPU-0009": 59}


def test_a_viewer_that_comes_back_is_given_what_it_missed(up: Up) -> None:
    path = "/api/v1/live?id=GPU-0005&metric=" + UTIL
    with up.client() as client:
        with client.stream("GET", path) as answer:
            events = Events(answer)
            events.next("hello")
            send(up.grpc, [line(5, 1)])
            events.next("samples")
        for value in (2, 3, 4):
            send(up.grpc, [line(5, value)])
        with client.stream("GET", path, headers={"Last-Event-ID": events.last_id}) as answer:
            again = Events(answer)
            values: list[float] = []
            while len(values) < 3:
                values += again.next("samples")[1]["values"][UTIL]
        assert values == [2, 3, 4]


def test_an_id_that_is_none_is_refused(up: Up) -> None:
    with up.client() as client:
        answer = client.get("/api/v1/live", headers={"Last-Event-ID": "17"})
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid.cursor")


def test_the_fleet_is_told_whole_and_then_by_what_changes(up: Up) -> None:
    with up.client() as client, client.stream("GET", f"/api/v1/fleet/live?metric={UTIL}") as answer:
        events = Events(answer)
        name, state = events.next()
        assert (name, state["count"], len(state["values"][UTIL])) == ("state", GPUS, GPUS)
        number = state["uuid"].index("GPU-0007")
        send(up.grpc, [line(7, 77.5)])
        while True:
            _, frame = events.next("frame")
            if frame["gpus"] == [number] and frame["values"][UTIL] == [77.5]:
                break
        send(up.grpc, [line(99, 5)])
        _, state = events.next("state")
        assert state["uuid"][-1] == "GPU-0099"


def test_a_viewer_that_does_not_read_is_told_what_it_missed_and_the_broker_does_not_wait(up: Up) -> None:
    address = urlsplit(up.url)
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)  # before it connects: the system fixes it then
        slow.connect((address.hostname, address.port))
        slow.sendall(f"GET /api/v1/live HTTP/1.1\r\nHost: x\r\nX-API-Key: {KEY}\r\n\r\n".encode())
        slow.settimeout(30)
        received = slow.recv(1000)
        assert b"200 OK" in received
        # Far more than the queue of a viewer and the buffers of a connection hold.
        send(up.grpc, [line(gpu % GPUS, 1) for gpu in range(60_000)])
        send(up.grpc, [line(2, 42.25)])
        with up.client() as client:
            end = time.monotonic() + 30
            while client.get("/api/v1/gpus/GPU-0002").json()["gpus"][0]["latest"][1]["value"] != 42.25:
                assert time.monotonic() < end
        tail = b""
        while b"event: dropped" not in tail:
            received = slow.recv(1 << 20)
            assert received
            tail = tail[-100:] + received
        assert int(tail.partition(b'event: dropped\ndata: {"samples":')[2].partition(b"}")[0]) > 1000


def test_a_stream_ends_when_its_key_is_withdrawn(tmp_path_factory: pytest.TempPathFactory) -> None:
    with running_up(tmp_path_factory.mktemp("up")) as up, up.client(READ_KEY) as client:
        with client.stream("GET", "/api/v1/live") as answer:
            events = Events(answer)
            events.next("hello")
            keys = up.folder / "keys.toml"
            keys.write_text(keys.read_text().partition('[[key]]\nname = "reader"')[0])
            up.service.wait_for("Reloaded the api keys")
            send(up.grpc, [line(1, 1)])
            with pytest.raises(AssertionError, match="the stream has ended"):
                events.next("none is called so")
        assert client.get("/api/v1/gpus").status_code == 401


def test_the_same_over_grpc_for_the_same_keys(up: Up) -> None:
    with grpc.insecure_channel(up.grpc) as channel:
        stub = query_pb2_grpc.QueryServiceStub(channel)
        for metadata in ((), (("x-api-key", "wrong"),)):
            with pytest.raises(grpc.RpcError) as refused:
                stub.ListGpus(query_pb2.ListGpusRequest(), metadata=metadata)
            assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
        key = (("authorization", f"Bearer {READ_KEY}"),)
        page = stub.ListGpus(query_pb2.ListGpusRequest(page_size=3), metadata=key)
        more = stub.ListGpus(query_pb2.ListGpusRequest(page_size=3, page_token=page.next_page_token), metadata=key)
        assert [gpu.uuid for gpu in (*page.gpus, *more.gpus)] == [f"GPU-{number:04d}" for number in range(6)]
        chosen = query_pb2.GpuFilter(ids=["GPU-0004"])
        latest = stub.Latest(query_pb2.LatestRequest(filter=chosen, metrics=[UTIL]), metadata=key)
        assert [(sample.uuid, sample.metric) for sample in latest.samples] == [("GPU-0004", UTIL)]
        watch = stub.Watch(query_pb2.WatchRequest(filter=chosen, metrics=[UTIL]), metadata=key, timeout=30)
        token = next(watch).resume_token
        send(up.grpc, [line(4, 61)])
        seen = next(message for message in watch if message.samples)
        assert ([gpu.uuid for gpu in seen.gpus], [sample.value for sample in seen.samples]) == (["GPU-0004"], [61])
        watch.cancel()
        again = stub.Watch(
            query_pb2.WatchRequest(filter=chosen, metrics=[UTIL], resume_token=token), metadata=key, timeout=30
        )
        assert next(message for message in again if message.samples).samples[0].value == 61
        again.cancel()
        asked = query_pb2.GetTelemetryRequest(gpu_id="GPU-0004", metrics=[UTIL], start_ns=time.time_ns() - 3600 * 10**9)
        parts = list(stub.GetTelemetry(asked, metadata=key))
        assert [gpu.uuid for gpu in parts[0].gpus] == ["GPU-0004"]
        assert 1 in [sample.value for part in parts for sample in part.samples]
        with pytest.raises(grpc.RpcError) as unknown:
            list(stub.GetTelemetry(query_pb2.GetTelemetryRequest(gpu_id="x", metrics=["gpu_util"]), metadata=key))
        assert unknown.value.code() is grpc.StatusCode.NOT_FOUND
        assert f"did you mean {UTIL}?" in str(unknown.value.details())
