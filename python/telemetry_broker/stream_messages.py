"""The messages of ProduceStream and Consume, around what unary calls send and answer."""

from __future__ import annotations

from typing import Final

from google.protobuf.message import DecodeError

from telemetry_broker import _core
from telemetry_broker.errors import BrokerError, ProduceUnknownError, UnavailableError, error_from_code
from telemetry_broker.transport import Request, UnansweredError
from telemetry_broker.v1 import broker_pb2 as pb

_PRODUCE: Final = 1  # of ProduceStreamRequest
_PRODUCED: Final = b"\x0a"  # field 1 of ProduceStreamResponse
_LENGTH_DELIMITED: Final = 2
_SHORT: Final = 0x80  # a length below is one byte
_ASKS: Final = {"Ack": 3, "Nack": 4, "Extend": 5}  # of ConsumeRequest
ANSWERS: Final = {"acked", "nacked", "extended", "error"}
"""The fields of ConsumeResponse that answer those, each in its turn."""


def in_stream(request: Request) -> Request:
    """A ProduceRequest as the message of a stream; the core frames a batch when it is sent."""
    return request if isinstance(request, _core.EncodedBatch) else wrap(_PRODUCE, request)


def answer_of(message: bytes) -> bytes | BrokerError:
    """What a message of the broker says: an encoded ProduceResponse, or why there is none."""
    if message.startswith(_PRODUCED) and message[1] < _SHORT and len(message) == 2 + message[1]:
        return message[2:]
    try:
        response = pb.ProduceStreamResponse.FromString(message)
    except DecodeError as error:
        return UnansweredError(BrokerError(f"an answer on a ProduceStream is no message: {error}"))
    if response.WhichOneof("result") == "error":
        return error_of(response.error)
    return response.produced.SerializeToString()


def ended_error(url: str) -> BrokerError:
    """What a stream means that the broker ended without a word."""
    return UnavailableError(f"{url} ended a stream: it is stopping")


def in_consume(method: str, request: bytes) -> bytes | None:
    """The request of a unary call as the message of a Consume stream; None for calls that it has not."""
    return wrap(_ASKS[method], request) if method in _ASKS else None


def error_of(error: pb.Error) -> BrokerError:
    """A failure inside of a stream."""
    made = error_from_code(error.code, error.message, error.retry_after_ms / 1000 or None, error.field or None)
    if isinstance(made, ProduceUnknownError):
        made.broker = error.broker
    return made


def wrap(field: int, message: bytes) -> bytes:
    """A message as a field of another one."""
    return encode_varint(field << 3 | _LENGTH_DELIMITED) + encode_varint(len(message)) + message


def encode_varint(value: int) -> bytes:
    """A number as protobuf writes it."""
    encoded = bytearray()
    while value >= _SHORT:
        encoded.append(value & 0x7F | _SHORT)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
