"""The broker as other tools see it: HTTP/2 by hand, and reflection instead of our generated code."""

from __future__ import annotations

import base64
import gzip
import struct
import time
import urllib.parse
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from google.rpc import status_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

import telemetry_broker as tb
from telemetry_broker.v1 import broker_pb2 as pb
from tests.integration.raw_http2 import SERVICE, RawHttp2, framed
from tests.integration.service_processes import BrokerProcess


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    with BrokerProcess(tmp_path_factory.mktemp("data"), "--topics", "t:1") as process:
        yield process


def test_a_unary_call_by_hand(broker: BrokerProcess) -> None:
    with RawHttp2(broker.grpc) as client:
        answer = client.call("ListTopics", b"")
        assert answer.headers[":status"] == "200"
        assert answer.headers["content-type"].startswith("application/grpc")
        ((compressed, message),) = answer.messages
        assert not compressed
        assert "t" in [topic.name for topic in pb.ListTopicsResponse.FromString(message).topics]
        assert answer.trailers["grpc-status"] == "0"


def test_a_failed_call_by_hand_has_its_details_in_the_trailers(broker: BrokerProcess) -> None:
    with RawHttp2(broker.grpc) as client:
        answer = client.call("DescribeTopic", pb.DescribeTopicRequest(name="nowhere").SerializeToString())
        assert answer.status == grpc.StatusCode.NOT_FOUND.value[0]
        trailers = answer.trailers or answer.headers
        text = urllib.parse.unquote(trailers["grpc-message"])  # as gRPC encodes it
        assert text == 'there is no topic "nowhere"; create it first'
        encoded = trailers["grpc-status-details-bin"]
        status = status_pb2.Status.FromString(base64.b64decode(encoded + "=" * (-len(encoded) % 4)))
        assert status.message == text
        assert [detail.type_url for detail in status.details] == ["type.googleapis.com/google.rpc.ErrorInfo"]


def test_a_method_that_is_not_known_is_unimplemented(broker: BrokerProcess) -> None:
    with RawHttp2(broker.grpc) as client:
        assert client.call("Tomorrow", b"").status == grpc.StatusCode.UNIMPLEMENTED.value[0]


def test_a_wait_ends_with_its_deadline_and_leases_nothing(broker: BrokerProcess) -> None:
    """This client says its deadline and then nothing more, not even that it has given up."""
    with tb.connect(broker.url) as connection, RawHttp2(broker.grpc) as client:
        connection.create_topic("deadline", partitions=1)
        request = pb.ReceiveRequest(topic="deadline", group="g", consumer="gone", wait_ms=60_000)
        stream = client.open("Receive", ("grpc-timeout", "300m"))
        began = time.monotonic()
        client.send(stream, framed(request.SerializeToString()), end=True)
        answer = client.wait(stream)
        assert 0.2 < time.monotonic() - began < 10
        assert answer.reset is not None or answer.status == grpc.StatusCode.DEADLINE_EXCEEDED.value[0]
        with connection.producer("deadline") as producer:
            producer.send(b"1")
        with connection.consumer("deadline", "g") as consumer:
            assert consumer.receive(wait=10).attempt == 1


def test_pings_are_answered_however_many(broker: BrokerProcess) -> None:
    """A ping costs the broker what it costs the client, and where its answers are not read, no more are taken up."""
    with RawHttp2(broker.grpc) as client:
        for number in range(5_000):
            client.http2.ping(struct.pack(">Q", number))
        client.flush()
        while client.pongs < 5_000:
            client.take()
            assert not client.closed
        assert client.call("ListTopics", b"").status == 0


@pytest.mark.parametrize("direction", ["request", "answer"])
def test_gzip_by_hand(broker: BrokerProcess, direction: str) -> None:
    with tb.connect(broker.url) as connection:
        connection.create_topic(f"gzip-{direction}", partitions=1)
    records = [pb.Record(value=b"the same again and again " * 4000)]
    produce = pb.ProduceRequest(topic=f"gzip-{direction}", partition=0, records=records).SerializeToString()
    receive = pb.ReceiveRequest(topic=f"gzip-{direction}", group="g", consumer="c").SerializeToString()
    with RawHttp2(broker.grpc) as client:
        if direction == "request":
            stream = client.open("Produce", ("grpc-encoding", "gzip"))
            client.send(stream, framed(gzip.compress(produce), compressed=True), end=True)
            assert client.wait(stream).status == 0
        else:
            assert client.call("Produce", produce).status == 0
        plain = client.call("Read", _read(f"gzip-{direction}"))
        assert "grpc-encoding" not in plain.headers or plain.headers["grpc-encoding"] == "identity"
        assert len(plain.body) > 90_000, "nothing is compressed for who does not ask"
        asked = client.call("Receive", receive, ("grpc-accept-encoding", "gzip"), ("telemetry-compress", "gzip"))
        assert asked.headers["grpc-encoding"] == "gzip"
        ((compressed, message),) = asked.messages
        assert compressed
        assert len(message) < 10_000
        delivery = pb.ReceiveResponse.FromString(gzip.decompress(message)).deliveries[0]
        assert list(delivery.records) == records


def _read(topic: str) -> bytes:
    request = pb.ReadRequest(topic=topic, partition=0)
    getattr(request, "from").edge = pb.EDGE_START
    return request.SerializeToString()


def test_a_library_compresses_and_decompresses(broker: BrokerProcess) -> None:
    """For the requests a channel's option is all that it takes, for the answers one entry of metadata."""
    with tb.connect(broker.url) as connection:
        connection.create_topic("library", partitions=1)
    with grpc.insecure_channel(broker.grpc, compression=grpc.Compression.Gzip) as channel:
        produce: Any = channel.unary_unary(f"/{SERVICE}/Produce")
        read: Any = channel.unary_unary(f"/{SERVICE}/Read")
        records = [pb.Record(value=b"the same again and again " * 4000)]
        produce(pb.ProduceRequest(topic="library", partition=0, records=records).SerializeToString())
        answer, call = read.with_call(_read("library"), metadata=[("telemetry-compress", "gzip")])
        assert list(pb.ReadResponse.FromString(answer).deliveries[0].records) == records
        assert call.code() is grpc.StatusCode.OK


class Reflected:
    """A service as grpcurl sees it: descriptors from the server, messages made from them, JSON in and out."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel
        self._stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
        self._pool = descriptor_pool.DescriptorPool()

    def _ask(self, request: reflection_pb2.ServerReflectionRequest) -> Any:
        return next(self._stub.ServerReflectionInfo(iter([request])))

    def services(self) -> list[str]:
        answer = self._ask(reflection_pb2.ServerReflectionRequest(list_services=""))
        return [service.name for service in answer.list_services_response.service]

    def load(self, symbol: str) -> None:
        answer = self._ask(reflection_pb2.ServerReflectionRequest(file_containing_symbol=symbol))
        for encoded in answer.file_descriptor_response.file_descriptor_proto:
            self._pool.Add(descriptor_pb2.FileDescriptorProto.FromString(encoded))

    def call(self, service: str, method: str, request: dict[str, Any]) -> dict[str, Any]:
        descriptor = self._pool.FindServiceByName(service).methods_by_name[method]
        message = json_format.ParseDict(request, message_factory.GetMessageClass(descriptor.input_type)())
        answer_class = message_factory.GetMessageClass(descriptor.output_type)
        call: Any = self._channel.unary_unary(f"/{service}/{method}", response_deserializer=answer_class.FromString)
        return json_format.MessageToDict(call(message.SerializeToString()))


def test_reflection_is_all_that_a_tool_needs(broker: BrokerProcess) -> None:
    with grpc.insecure_channel(broker.grpc) as channel:
        tool = Reflected(channel)
        assert SERVICE in tool.services()
        tool.load(SERVICE)
        tool.call(SERVICE, "CreateTopic", {"name": "reflected", "config": {"partitions": 1}})
        value = base64.b64encode(b"by hand").decode()
        stored = tool.call(SERVICE, "Produce", {"topic": "reflected", "partition": 0, "records": [{"value": value}]})
        assert stored["appended"][0]["count"] == 1
        received = tool.call(SERVICE, "Receive", {"topic": "reflected", "group": "g", "consumer": "tool"})
        (delivery,) = received["deliveries"]
        assert [record["value"] for record in delivery["records"]] == [value]
        lease = {"topic": "reflected", "group": "g", "leases": [{"leaseId": delivery["leaseId"]}]}
        assert tool.call(SERVICE, "Ack", lease) == {"acked": "1"}


def test_every_service_is_described_by_reflection(broker: BrokerProcess) -> None:
    with grpc.insecure_channel(broker.grpc) as channel:
        tool = Reflected(channel)
        for service in tool.services():
            Reflected(channel).load(service)


def test_a_receive_that_is_cancelled_as_records_come_keeps_no_lease(broker: BrokerProcess) -> None:
    """Both come at once: its wait is over, and nobody is there to whom the records could be sent."""
    receive = pb.ReceiveRequest(topic="cancelled", group="g", consumer="gone", wait_ms=10_000)
    produce = pb.ProduceRequest(topic="cancelled", partition=0, records=[pb.Record(value=b"1")])
    with tb.connect(broker.url) as library, RawHttp2(broker.grpc) as client:
        library.create_topic("cancelled", partitions=1)
        with library.consumer("cancelled", group="g") as consumer:
            assert not consumer.receive()
            for _ in range(100):
                waiting = client.open("Receive")
                client.send(waiting, framed(receive.SerializeToString()), end=True)
                client.call("DescribeBroker", b"")  # by then it waits
                producing = client.open("Produce")
                client.http2.send_data(producing, framed(produce.SerializeToString()), end_stream=True)
                client.http2.reset_stream(waiting)
                client.flush()
                client.wait(producing)
                batch = consumer.receive(wait=10)
                assert batch.values == [b"1"]
                batch.ack()
