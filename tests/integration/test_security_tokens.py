"""Tokens in the life of a broker: wrong, withdrawn, expired, changed under load, bounded, and never told to anybody."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

import telemetry_broker as tb
from telemetry_broker import aio
from telemetry_broker.v1 import broker_pb2 as pb
from tests.integration.guarded import (
    ROOT,
    Client,
    change_tokens,
    guarded_broker,
    shown,
    status_of_call,
    write_tokens,
)
from tests.integration.service_processes import BrokerProcess, Service, eventually

TIMEOUT = 20.0
SERVICE = "/telemetry_broker.v1.BrokerService"
LIST_TOPICS = f"{SERVICE}/ListTopics"
STREAMER = Client("streamer", produce=["t"])
COLLECTOR = Client("collector", consume=["t", "none"])


def test_a_withdrawn_token_is_refused_from_then_on_and_one_that_is_back_is_taken(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.toml"
    with guarded_broker(tmp_path, ROOT, STREAMER) as broker, tb.connect(broker.url, token=STREAMER.token) as client:
        assert client.topics() == []
        change_tokens(broker, tokens, ROOT)
        for _ in range(2):  # shown again it is as bad
            with pytest.raises(tb.UnauthenticatedError, match="not known here"):
                client.topics()
        broker.wait_for(r"Refused calls unauthenticated=\d")
        change_tokens(broker, tokens, ROOT, STREAMER)
        assert client.topics() == []


def test_a_token_that_expired_is_refused(tmp_path: Path) -> None:
    old = Client("old", produce=["t"], expires="2020-01-01T00:00:00Z")
    new = Client("new", produce=["t"], expires="2120-01-01T00:00:00+02:00")
    with guarded_broker(tmp_path, old, new) as broker:
        with tb.connect(broker.url, token=new.token) as client:
            assert client.topics() == []
        with tb.connect(broker.url, token=old.token) as client:
            with pytest.raises(tb.UnauthenticatedError, match='the token of client "old" has expired') as refused:
                client.topics()
            assert old.token not in str(refused.value)


def test_open_streams_and_waits_end_with_their_token(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.toml"
    with guarded_broker(tmp_path, ROOT, STREAMER, COLLECTOR, arguments=["--topics", "t:1,none:1"]) as broker:
        with ExitStack() as stack:
            channel = stack.enter_context(grpc.insecure_channel(broker.grpc))

            def open_stream(method: str, client: Client, request: Any) -> Any:
                call: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(
                    f"/telemetry_broker.v1.BrokerService/{method}"
                )

                def requests() -> Any:
                    yield request.SerializeToString()
                    threading.Event().wait(TIMEOUT)

                return call(requests(), metadata=shown(client.token), timeout=TIMEOUT)

            receive = pb.ReceiveRequest(topic="none", group="g", consumer="c", wait_ms=60_000)
            start = pb.ConsumeStart(receive=pb.ReceiveRequest(topic="t", group="g", consumer="d"), credit_records=1)
            produce = pb.ProduceStreamRequest(produce=pb.ProduceRequest(topic="t", records=[pb.Record(value=b"1")]))
            producing = open_stream("ProduceStream", STREAMER, produce)
            assert next(producing)
            consuming = open_stream("Consume", COLLECTOR, pb.ConsumeRequest(start=start))
            assert next(consuming)
            unary: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
                "/telemetry_broker.v1.BrokerService/Receive"
            )
            waiting = unary.future(receive.SerializeToString(), metadata=shown(COLLECTOR.token), timeout=TIMEOUT)
            with tb.connect(broker.url, token=ROOT.token) as root:
                eventually(lambda: [group.name for group in root.groups("none")] == ["g"])  # it waits by then
            # Another role is another grant: a stream goes on under the one it began with, or not at all.
            change_tokens(broker, tokens, ROOT, Client("collector", admin=["t", "none"]))
            for ended in (producing, consuming, waiting):
                assert ended.code() is grpc.StatusCode.UNAVAILABLE
                assert "begin the stream anew" in ended.details()
            assert status_of_call(channel, LIST_TOPICS, b"", COLLECTOR.token) is grpc.StatusCode.OK
        with tb.connect(broker.url, token=ROOT.token) as root:
            assert root.describe_group("t", "g").partitions[0].in_flight == 0, "the stream's lease was given back"


def test_a_client_whose_token_is_withdrawn_is_told_so_and_does_not_try_for_ever(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.toml"
    with guarded_broker(tmp_path, ROOT, STREAMER, COLLECTOR, arguments=["--topics", "t:1"]) as broker:
        with tb.connect(broker.url, token=STREAMER.token) as other, other.producer("t") as producer:
            producer.send(b"1")
        with tb.connect(broker.url, token=COLLECTOR.token) as client, client.consumer("t", group="g") as consumer:
            batches = iter(consumer)
            next(batches).ack()
            change_tokens(broker, tokens, ROOT)
            with pytest.raises(tb.UnauthenticatedError):
                next(batches)


class Rotation:
    """The new token beside the old one at the broker, then at the client, then the old one away."""

    old = Client("app", ["t"], ["t"])
    new = Client("app", ["t"], ["t"], generation=2)
    turns = 40

    def __init__(self, folder: Path) -> None:
        self._tokens = folder / "tokens.toml"
        self.file = folder / "token"
        self.file.write_text(self.old.token)

    def turn(self, broker: BrokerProcess, turn: int) -> None:
        match turn:
            case 10:
                change_tokens(broker, self._tokens, ROOT, self.old, self.new)
            case 20:
                fresh = self.file.with_suffix(".fresh")
                fresh.write_text(f"{self.new.token}\n")
                fresh.replace(self.file)
            case 30:
                change_tokens(broker, self._tokens, ROOT, self.new)

    def assert_over(self, broker: BrokerProcess) -> None:
        with tb.connect(broker.url, token=self.old.token) as late, pytest.raises(tb.UnauthenticatedError):
            late.topics()


def test_a_rotation_under_load_refuses_no_call(tmp_path: Path) -> None:
    rotation = Rotation(tmp_path)
    with ExitStack() as stack:
        broker = stack.enter_context(guarded_broker(tmp_path, ROOT, rotation.old, arguments=["--topics", "t:2"]))
        client = stack.enter_context(tb.connect(broker.url, token_file=rotation.file))
        producer = stack.enter_context(client.producer("t"))
        consumer = stack.enter_context(client.consumer("t", group="g"))
        for turn, batch in zip(range(rotation.turns), _fed(producer, consumer), strict=False):
            rotation.turn(broker, turn)
            assert batch.ack() == 1
        rotation.assert_over(broker)


def _fed(producer: tb.Producer, consumer: tb.Consumer) -> Iterator[tb.Batch]:
    """A batch for each record, which is sent when the one before was handled."""
    batches = iter(consumer)
    while True:
        producer.send(b"x")
        producer.flush()
        yield next(batches)


async def test_a_rotation_under_load_refuses_no_call_on_an_event_loop(tmp_path: Path) -> None:
    rotation = Rotation(tmp_path)
    async with AsyncExitStack() as stack:
        broker = stack.enter_context(guarded_broker(tmp_path, ROOT, rotation.old, arguments=["--topics", "t:2"]))
        client = await stack.enter_async_context(aio.connect(broker.url, token_file=rotation.file))
        producer = await stack.enter_async_context(client.producer("t"))
        consumer = await stack.enter_async_context(client.consumer("t", group="g"))
        batches = aiter(consumer)
        for turn in range(rotation.turns):
            await producer.send(b"x")
            await producer.flush()
            batch = await anext(batches)
            rotation.turn(broker, turn)
            assert await batch.ack() == 1
        rotation.assert_over(broker)


def test_several_service_tokens_are_good_at_once_and_read_again(tmp_path: Path) -> None:
    file = tmp_path / "service-tokens"
    first, second, third = (f"service-token-number-{number}" for number in range(3))
    file.write_text(f"{first}\n{second}\n")
    with ExitStack() as stack:
        broker = stack.enter_context(BrokerProcess(tmp_path / "data", "--service-token-file", file))
        channel = stack.enter_context(grpc.insecure_channel(broker.grpc))

        def good(token: str) -> bool:
            return status_of_call(channel, LIST_TOPICS, b"", token) is grpc.StatusCode.OK

        assert [good(token) for token in (first, second, third)] == [True, True, False]
        file.write_text(f"{second},{third}")
        broker.wait_for("Reloaded the tokens")
        assert [good(token) for token in (first, second, third)] == [False, True, True]


@pytest.mark.parametrize("broken", ["[[token", "[[token]]\nclient = 3", None], ids=["toml", "shape", "gone"])
def test_a_token_file_that_breaks_leaves_the_last_good_tokens_and_says_so(tmp_path: Path, broken: str | None) -> None:
    tokens = tmp_path / "tokens.toml"
    with guarded_broker(tmp_path, ROOT) as broker, tb.connect(broker.url, token=ROOT.token) as client:
        gauge = 'security_files_current{files="tokens",service="broker"}'
        assert f"{gauge} 1.0" in httpx.get(f"http://{broker.http}/metrics").text
        if broken is None:
            tokens.unlink()
        else:
            tokens.write_text(broken)
        said = broker.wait_for(r"The tokens changed and cannot be used, so the last good ones stay: (.*)")[1]
        assert f"TOKENS_FILE={tokens}" in said
        assert client.topics() == []
        assert f"{gauge} 0.0" in httpx.get(f"http://{broker.http}/metrics").text
        change_tokens(broker, tokens, ROOT)
        assert f"{gauge} 1.0" in httpx.get(f"http://{broker.http}/metrics").text


BAD_FILES = {
    "empty": ("", "token: Field required"),
    "no client": ('[[token]]\ntoken = "0123456789abcdef"', "token 1: client: Field required"),
    "no token": ('[[token]]\nclient = "a"', "token 1: expected either token or sha256"),
    "both": (f'[[token]]\nclient = "a"\ntoken = "0123456789abcdef"\nsha256 = "{"0" * 64}"', "expected either token or"),
    "short": ('[[token]]\nclient = "a"\ntoken = "secret"', "at least 16 characters"),
    "spaces": ('[[token]]\nclient = "a"\ntoken = "0123456789 abcdef"', "visible ASCII without commas"),
    "digest": ('[[token]]\nclient = "a"\nsha256 = "abc"', "sha256"),
    "role": ('[[token]]\nclient = "a"\ntoken = "0123456789abcdef"\nproducer = ["t"]', "producer: Extra inputs"),
    "pattern": ('[[token]]\nclient = "a"\ntoken = "0123456789abcdef"\nproduce = ["*t"]', "produce.0"),
    "path": ('[[token]]\nclient = "a"\ntoken = "0123456789abcdef"\nproduce = ["../t"]', "produce.0"),
    "zone": ('[[token]]\nclient = "a"\ntoken = "0123456789abcdef"\nexpires = 2027-01-01T00:00:00', "no time zone"),
    "twice": ('[[token]]\nclient = "a"\ntoken = "0123456789abcdef"\n' * 2, "the same token as number 1"),
    "toml": ('[[token]]\nclient = "a"\ntoken = "0123456789abcdef', "not TOML"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_token_file_that_is_not_understood_is_refused_at_start_without_showing_it(tmp_path: Path, case: str) -> None:
    text, expected = BAD_FILES[case]
    tokens = tmp_path / "tokens.toml"
    tokens.write_text(text)
    with Service("broker", "--data", tmp_path / "data", "--port", 0, "--tokens-file", tokens) as broker:
        assert broker.wait() == 2
        assert broker.output.startswith(f"telemetry: config.invalid: TOKENS_FILE={tokens}")
        assert expected in broker.output
        for secret in ("0123456789abcdef", "secret"):
            assert secret not in broker.output
        assert not (tmp_path / "data").exists()


def test_nothing_secret_is_logged_shown_or_measured(tmp_path: Path) -> None:
    service_token, key = "service-token-nobody-may-see", "api-key-nobody-may-see"
    guessed = "guessed-token-of-somebody"
    tokens = write_tokens(tmp_path / "tokens.toml", ROOT)
    environment = {"SERVICE_TOKEN": service_token, "API_KEY": key, "TELEMETRY_DEBUG": "1"}
    arguments = ["--data", tmp_path / "data", "--port", 0, "--grpc-port", 0, "--no-csv", "--log-level", "DEBUG"]
    with Service("up", *arguments, "--tokens-file", tokens, environment=environment) as up:
        http = up.wait_for(r"API http://(\S+)")[1]
        address = up.wait_for(r"gRPC (\S+)")[1]
        told: list[str] = []
        with grpc.insecure_channel(address) as channel:
            for token in (ROOT.token, service_token, guessed):
                status_of_call(channel, LIST_TOPICS, b"", token)
        with (
            tb.connect(f"grpc://{address}", token=guessed) as client,
            pytest.raises(tb.UnauthenticatedError) as refused,
        ):
            client.topics()
        told += [str(refused.value), repr(client)]
        for token in (key, service_token, guessed):
            for path in ("/api/v1/gpus", "/topics", "/produce?topic=t"):
                answer = httpx.get(f"http://{http}{path}", headers={"Authorization": f"Bearer {token}"})
                told += [answer.text, str(answer.headers)]
        told.append(httpx.get(f"http://{http}/metrics").text)
        tokens.write_text(f'[[token]]\nclient = "a"\ntoken = "{guessed}" oops')
        up.wait_for("The tokens changed and cannot be used")
        assert up.stop() == 0
        told.append(up.output)
    for secret in (ROOT.token, service_token, key, guessed):
        assert not [text for text in told if secret in text]


# Limits


def test_a_client_may_have_so_many_calls_under_way_and_others_are_served(tmp_path: Path) -> None:
    greedy = Client("greedy", consume=["t"])
    arguments = ["--topics", "t:1", "--max-calls-per-client", 3]
    with guarded_broker(tmp_path, ROOT, greedy, arguments=arguments) as broker:
        receive = pb.ReceiveRequest(topic="t", group="g", consumer="c", wait_ms=60_000).SerializeToString()
        with grpc.insecure_channel(broker.grpc) as channel:
            unary: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
                "/telemetry_broker.v1.BrokerService/Receive"
            )
            waiting = [unary.future(receive, metadata=shown(greedy.token), timeout=TIMEOUT) for _ in range(4)]
            first = threading.Event()
            for call in waiting:
                call.add_done_callback(lambda _: first.set())
            assert first.wait(TIMEOUT)
            (refused,) = [call for call in waiting if call.done()]
            assert refused.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "MAX_CALLS_PER_CLIENT" in refused.details()
            assert status_of_call(channel, LIST_TOPICS, b"", ROOT.token) is grpc.StatusCode.OK
            for call in waiting:
                call.cancel()
        with tb.connect(broker.url, token=greedy.token) as client, client.consumer("t", group="g") as consumer:
            assert not consumer.receive(wait=0)


def test_a_stream_of_events_ends_with_its_token(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.toml"
    with guarded_broker(tmp_path, ROOT, COLLECTOR, arguments=["--topics", "t:1"]) as broker:
        headers = {"Authorization": f"Bearer {COLLECTOR.token}"}
        url = f"http://{broker.http}/consume?topic=t&group=g"
        with httpx.stream("GET", url, headers=headers, timeout=TIMEOUT) as events:
            assert events.status_code == 200
            change_tokens(broker, tokens, ROOT)
            with tb.connect(broker.url, token=ROOT.token) as root, root.producer("t") as producer:
                producer.send(b"not for you any more")
            assert "not for you" not in "".join(events.iter_text())
