"""Looking into encoded messages without decoding them: a batch of 8 MiB is passed on as it came."""

from typing import Final

from telemetry_broker.errors import InvalidArgumentError

_LENGTH_DELIMITED: Final = 2
_FIXED_SIZES: Final = {1: 8, 5: 4}


def _varint(message: bytes | memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def first_field(message: bytes | memoryview, field: int) -> memoryview:
    """The first occurrence of a text, bytes or message field, not copied; empty when there is none.

    Serializers write fields in the order of their numbers, so that the topic of a large batch is found at its start.

    Raises:
        InvalidArgumentError: the message is not protobuf.
    """
    at = 0
    try:
        while at < len(message):
            tag, at = _varint(message, at)
            kind = tag & 7
            if kind == _LENGTH_DELIMITED:
                length, at = _varint(message, at)
                if at + length > len(message):
                    raise IndexError
                if tag >> 3 == field:
                    return memoryview(message)[at : at + length]
                at += length
            elif kind == 0:
                _, at = _varint(message, at)
            else:
                at += _FIXED_SIZES[kind]
    except (IndexError, KeyError):
        raise InvalidArgumentError(f"the request is not a protobuf message: it breaks off at byte {at}") from None
    return memoryview(b"")
