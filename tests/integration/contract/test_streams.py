"""Streams that break, stay silent or answer nonsense: what was asked on them is answered all the same."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

import grpc
import pytest

import telemetry_broker as tb
from telemetry_broker.v1 import broker_pb2 as pb
from tests.integration.contract.engines import TIMEOUT
from tests.integration.contract.portal import Connect

Script = Callable[[Iterator[bytes], grpc.ServicerContext], Iterator[bytes]]


class ScriptedBroker(grpc.GenericRpcHandler):
    """Plays one script for each stream that begins, and answers the calls that a client makes around them.

    Attributes:
        streams: what each stream of a method is to do, the last one also for those behind it.
        called: the unary calls.
    """

    def __init__(self) -> None:
        self.streams: dict[str, list[Script]] = {}
        self.called: list[str] = []
        self.answers: dict[str, pb.OpenProducerResponse | pb.AckResponse | pb.NackResponse] = {
            "OpenProducer": pb.OpenProducerResponse(partitions=[pb.ProducerState(log_id=bytes(16))]),
            "Ack": pb.AckResponse(acked=1),
            "Nack": pb.NackResponse(nacked=1),
        }

    def service(self, handler_call_details: Any) -> Any:
        method = handler_call_details.method.rpartition("/")[2]
        scripts = self.streams.get(method)
        if scripts is not None:
            return grpc.stream_stream_rpc_method_handler(scripts.pop(0) if len(scripts) > 1 else scripts[0])
        answer = self.answers.get(method)
        if answer is None:
            return None

        def call(_request: bytes, _context: grpc.ServicerContext) -> bytes:
            self.called.append(method)
            return answer.SerializeToString()

        return grpc.unary_unary_rpc_method_handler(call)


@pytest.fixture
def scripted() -> Iterator[tuple[ScriptedBroker, str]]:
    handler = ScriptedBroker()
    server = grpc.server(futures.ThreadPoolExecutor(16), handlers=[handler])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield handler, f"grpc://127.0.0.1:{port}"
    server.stop(0).wait()


def store(requests: Iterator[bytes], _context: grpc.ServicerContext) -> Iterator[bytes]:
    """Answers each request."""
    for request in requests:
        count = len(pb.ProduceStreamRequest.FromString(request).produce.records)
        produced = pb.ProduceResponse(appended=[pb.Appended(log_id=bytes(16), count=count)])
        yield pb.ProduceStreamResponse(produced=produced).SerializeToString()


def test_a_batch_whose_answer_does_not_come_is_given_up_in_time_and_the_next_one_goes_on(
    scripted: tuple[ScriptedBroker, str], connect: Connect
) -> None:
    broker, url = scripted
    ended = threading.Event()

    def stay_silent(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        context.add_callback(ended.set)
        for _ in requests:
            pass
        yield from ()

    broker.streams["ProduceStream"] = [stay_silent, store]
    with connect(url) as client, client.producer("t", linger=0, delivery_timeout=0.5) as producer:
        producer.send(b"1")
        with pytest.raises(tb.ProduceUnknownError, match=r"sent and not answered.*did not answer Produce"):
            producer.flush()
        assert producer.failed_records == 1
        assert ended.wait(TIMEOUT), "an answer that came now would be taken for the next batch's"
        producer.send(b"2")
        producer.flush()
        assert producer.failed_records == 1


def test_a_batch_on_a_stream_that_breaks_is_sent_again_with_the_same_sequence(
    scripted: tuple[ScriptedBroker, str], connect: Connect
) -> None:
    broker, url = scripted
    sequences: list[int] = []

    def break_off(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        sequences.append(pb.ProduceStreamRequest.FromString(next(requests)).produce.sequence)
        context.abort(grpc.StatusCode.UNAVAILABLE, "the wire was cut")
        yield b""

    def note(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        def noted() -> Iterator[bytes]:
            for request in requests:
                sequences.append(pb.ProduceStreamRequest.FromString(request).produce.sequence)
                yield request

        return store(noted(), context)

    broker.streams["ProduceStream"] = [break_off, note]
    with connect(url) as client, client.producer("t", linger=0) as producer:
        producer.send(b"1")
        producer.flush()
        assert producer.failed_records == 0
    assert sequences == [1, 1]


def test_an_error_inside_a_stream_keeps_its_code_field_and_words(
    scripted: tuple[ScriptedBroker, str], connect: Connect
) -> None:
    broker, url = scripted

    def refuse(requests: Iterator[bytes], _context: grpc.ServicerContext) -> Iterator[bytes]:
        for _ in requests:
            error = pb.Error(code="invalid.name", message="no such name", field="producer")
            yield pb.ProduceStreamResponse(error=error).SerializeToString()

    broker.streams["ProduceStream"] = [refuse]
    failed: list[tb.BrokerError] = []
    with connect(url) as client, client.producer("t", linger=0, on_error=failed.append) as producer:
        producer.send(b"1")
        producer.flush()
    assert [(type(error), error.code, error.field) for error in failed] == [
        (tb.InvalidArgumentError, "invalid.name", "producer")
    ]
    assert "no such name" in str(failed[0])


@pytest.mark.parametrize("dies", [True, False], ids=["dies", "answers"])
def test_an_ack_goes_over_the_stream_and_by_itself_where_that_dies(
    scripted: tuple[ScriptedBroker, str], connect: Connect, dies: bool
) -> None:
    broker, url = scripted
    delivery = pb.Delivery(
        topic="t",
        log_id=bytes(16),
        lease_id=b"lease",
        attempt=1,
        visibility_timeout_ms=30_000,
        records=[pb.Record(value=b"1")],
    )

    def consume(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        yield pb.ConsumeResponse(delivery=delivery).SerializeToString()
        for encoded in requests:
            request = pb.ConsumeRequest.FromString(encoded)
            if request.HasField("ack"):
                if dies:
                    context.abort(grpc.StatusCode.UNAVAILABLE, "the wire was cut")
                acked = pb.AckResponse(acked=len(request.ack.leases))
                yield pb.ConsumeResponse(acked=acked).SerializeToString()
            elif request.HasField("credit") and request.credit.replace:
                yield pb.ConsumeResponse(credited=pb.Credited()).SerializeToString()
            elif request.HasField("end"):
                return

    broker.streams["Consume"] = [consume]
    with connect(url) as client, client.consumer("t", "g") as consumer:
        for batch in consumer:
            assert batch.values == [b"1"]
            assert batch.ack() == 1
            break
    assert ("Ack" in broker.called) == dies
