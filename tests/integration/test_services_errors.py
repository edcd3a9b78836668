"""Errors over gRPC: a status, a text, and `google.rpc` details that every language reads with its own library."""

from __future__ import annotations

import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import httpx
import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2
from grpc_status import rpc_status

import telemetry_broker as tb
from telemetry_broker.v1 import broker_pb2 as pb
from telemetry_broker.v1.broker_pb2_grpc import BrokerServiceStub
from tests.integration.service_processes import BrokerProcess

FULL = {"partitions": 1, "segment_bytes": 1 << 20, "max_partition_bytes": 2 << 20}


class Refusal(NamedTuple):
    """A failed call, as Google's own helper reads it."""

    status: grpc.StatusCode
    message: str
    reason: str
    retry_after: float | None
    fields: dict[str, str]
    trailers_bytes: int


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    with BrokerProcess(tmp_path_factory.mktemp("data")) as process:
        yield process


@pytest.fixture
def stub(broker: BrokerProcess) -> Iterator[BrokerServiceStub]:
    with grpc.insecure_channel(broker.grpc) as channel:
        yield BrokerServiceStub(channel)


def refused(call: Callable[[], object]) -> Refusal:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    error: Any = caught.value
    from_call: Any = rpc_status.from_call
    status = from_call(error)
    assert status is not None, "the call has no details"
    assert (status.code, status.message) == (error.code().value[0], error.details())
    info = unpacked(status.details, error_details_pb2.ErrorInfo)
    retry = unpacked(status.details, error_details_pb2.RetryInfo)
    bad = unpacked(status.details, error_details_pb2.BadRequest)
    assert info.domain == "telemetry-broker"
    trailers = error.trailing_metadata()
    return Refusal(
        error.code(),
        error.details(),
        info.reason,
        retry.retry_delay.ToNanoseconds() / 1e9 if retry else None,
        {violation.field: violation.description for violation in bad.field_violations} if bad else {},
        len(urllib.parse.quote(error.details())) + sum(len(key) + len(value) * 4 // 3 for key, value in trailers),
    )


def unpacked(details: Any, kind: Any) -> Any:
    for detail in details:
        message = kind()
        assert isinstance(detail, any_pb2.Any)
        if detail.Unpack(message):
            return message
    return None


def test_an_error_says_its_code(stub: BrokerServiceStub) -> None:
    refusal = refused(lambda: stub.DescribeTopic(pb.DescribeTopicRequest(name="nowhere")))
    assert (refusal.status, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "topic.not_found")
    assert (refusal.retry_after, refusal.fields) == (None, {})


def test_an_error_that_passes_says_when_to_try_again(broker: BrokerProcess, stub: BrokerServiceStub) -> None:
    config = pb.TopicConfig(partitions=1, segment_bytes=1 << 20, max_partition_bytes=2 << 20)
    stub.CreateTopic(pb.CreateTopicRequest(name="full", config=config))
    request = pb.ProduceRequest(topic="full", partition=0, records=[pb.Record(value=b"x" * 500_000)])

    def fill() -> None:
        for _ in range(10):
            stub.Produce(request)

    refusal = refused(fill)
    assert (refusal.status, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "log.full")
    assert refusal.retry_after == 1.0
    with tb.connect(broker.url) as client, pytest.raises(tb.FullError) as caught:
        client._transport.call("Produce", request.SerializeToString())
    assert caught.value.retry_after == 1.0


@pytest.mark.parametrize(
    ("method", "request_", "field"),
    [
        ("CreateTopic", pb.CreateTopicRequest(name="t", config=pb.TopicConfig(partitions=5000)), "config.partitions"),
        ("CreateTopic", pb.CreateTopicRequest(name="../t"), "topic"),
        ("Receive", pb.ReceiveRequest(topic="t", group="g", consumer="c", max_records=70_000), "max_records"),
        ("Receive", pb.ReceiveRequest(topic="t", group="g", consumer="c", max_bytes=9 << 20), "max_bytes"),
        ("Receive", pb.ReceiveRequest(topic="t", group="g", consumer="c", wait_ms=60_001), "wait_ms"),
        ("Receive", pb.ReceiveRequest(topic="t", group="g", consumer=""), "consumer"),
        ("Receive", pb.ReceiveRequest(topic="t", group="/", consumer="c"), "group"),
        ("Read", pb.ReadRequest(topic="t"), "from"),
        ("SeekGroup", pb.SeekGroupRequest(topic="t", group="g"), "to"),
        ("Produce", pb.ProduceRequest(topic="t", partition=0, producer="p"), "sequence"),
        ("Produce", pb.ProduceRequest(topic="t", partition=0, sequence=1), "sequence"),
        ("Nack", pb.NackRequest(topic="t", group="g", delay_ms=50_000_000), "delay_ms"),
    ],
)
def test_a_wrong_field_is_named_alike_in_python_and_over_grpc(
    broker: BrokerProcess, stub: BrokerServiceStub, method: str, request_: Any, field: str
) -> None:
    with tb.connect("mem://") as embedded, tb.connect(broker.url) as remote:
        texts = set()
        for client in (embedded, remote):
            client.create_topic("t")
            if "g" not in [group.name for group in client.groups("t")]:
                client.create_group("t", "g")
            if field == "wait_ms" and client is embedded:
                continue  # waiting is the caller's part there
            with pytest.raises(tb.InvalidArgumentError) as caught:
                client._transport.call(method, request_.SerializeToString())
            assert caught.value.field == field
            texts.add(caught.value.message)
        refusal = refused(lambda: getattr(stub, method)(request_))
        assert refusal.status == grpc.StatusCode.INVALID_ARGUMENT
        assert refusal.fields == {field: refusal.message}
        assert texts == {refusal.message}, "one text everywhere"


def test_python_grpc_and_http_say_the_same(broker: BrokerProcess, stub: BrokerServiceStub) -> None:
    request = pb.ReceiveRequest(topic="nowhere", group="g", consumer="c")
    with tb.connect("mem://") as embedded, pytest.raises(tb.NotFoundError) as caught:
        embedded._transport.call("Receive", request.SerializeToString())
    refusal = refused(lambda: stub.Receive(request))
    response = httpx.get(f"http://{broker.http}/consume", params={"topic": "nowhere", "group": "g"})
    assert caught.value.message == refusal.message == response.text
    assert caught.value.code == refusal.reason == response.headers["telemetry-code"]


def test_a_stream_that_fails_has_details(stub: BrokerServiceStub) -> None:
    stub.CreateTopic(pb.CreateTopicRequest(name="t"))
    start = pb.ConsumeStart(receive=pb.ReceiveRequest(topic="nowhere", group="g", consumer="c"), credit_records=1)
    refusal = refused(lambda: next(stub.Consume(iter([pb.ConsumeRequest(start=start)]))))
    assert (refusal.status, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "topic.not_found")


@pytest.mark.parametrize("letter", ["x", "é", "\N{GRINNING FACE}", "\x01"])
def test_what_a_client_sent_is_quoted_in_part(stub: BrokerServiceStub, letter: str) -> None:
    """gRPC for Java and C++ take 8 KiB of trailers; a name in a request may have 8 MiB."""
    stub.CreateTopic(pb.CreateTopicRequest(name="t"))
    calls: list[Callable[[], object]] = [
        lambda: stub.DescribeTopic(pb.DescribeTopicRequest(name=letter * 100_000)),
        lambda: stub.CreateTopic(pb.CreateTopicRequest(name=letter * 100_000)),
        lambda: stub.Receive(pb.ReceiveRequest(topic="t", group=letter * 100_000, consumer="c")),
        lambda: stub.ListGroups(pb.ListGroupsRequest(topic=letter * 100_000)),
    ]
    for call in calls:
        refusal = refused(call)
        assert refusal.reason in ("topic.not_found", "invalid.name")
        assert letter.encode("unicode_escape")[:1] in refusal.message.encode() or letter in refusal.message
        assert refusal.trailers_bytes < 8192


def test_an_older_client_goes_by_the_status_and_the_text(broker: BrokerProcess, tmp_path: Path) -> None:
    """Details are an addition: who does not read them has the status and the same text."""
    with grpc.insecure_channel(broker.grpc) as channel:
        call: Any = channel.unary_unary("/telemetry_broker.v1.BrokerService/DescribeTopic")
        with pytest.raises(grpc.RpcError) as caught:
            call(pb.DescribeTopicRequest(name="nowhere").SerializeToString())
        error: Any = caught.value
        assert (error.code(), error.details()) == (
            grpc.StatusCode.NOT_FOUND,
            'there is no topic "nowhere"; create it first',
        )
