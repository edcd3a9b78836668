"""Details of failed calls are read as Google's own package writes them, and garbage is nothing."""

import pytest
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from telemetry_broker.errors import CODES, error_from_code
from telemetry_broker.status_details import DETAILS_KEY, Details, read_details
from telemetry_services.codes import status_of
from telemetry_services.serving.error_details import details_of


def encoded(*details: Message) -> bytes:
    packed = []
    for detail in details:
        packed.append(any_pb2.Any())
        packed[-1].Pack(detail)
    status: bytes = status_pb2.Status(code=5, message="text", details=packed).SerializeToString()
    return status


def test_every_code_arrives_as_it_was_sent() -> None:
    for code in CODES:
        error = error_from_code(code, "text", 0.25, "config.partitions")
        sent = details_of(error, status_of(code)).SerializeToString()
        assert read_details([("x", "y"), (DETAILS_KEY, sent)]) == Details(code, 0.25, "config.partitions")


def test_a_delay_below_a_millisecond_is_one() -> None:
    error = error_from_code("log.full", "text", 0.0)
    details = read_details([(DETAILS_KEY, details_of(error, status_of("log.full")).SerializeToString())])
    assert details == Details("log.full", 0.001, None)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\xff\xff",
        "text",
        encoded(),
        encoded(error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=1))),
        encoded(error_details_pb2.ErrorInfo(reason="QUOTA", domain="proxy.example")),
        encoded(error_details_pb2.DebugInfo(detail="else")),
        encoded()[:-2],
    ],
)
def test_what_is_not_of_a_broker_is_nothing(value: str | bytes) -> None:
    assert read_details([(DETAILS_KEY, value)]) is None
    assert read_details([]) is None
