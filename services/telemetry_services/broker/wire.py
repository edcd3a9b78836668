"""Looking into encoded messages without decoding them: a batch of 8 MiB is passed on as it came."""

from collections.abc import Iterator
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


def encode_varint(value: int) -> bytes:
    """A number as protobuf writes it."""
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def first_field(message: bytes | memoryview, field: int) -> memoryview:
    """The first occurrence of a text, bytes or message field, not copied; empty when there is none.

    Serializers write fields in the order of their numbers, so that the topic of a large batch is found at its start.

    Raises:
        InvalidArgumentError: the message is not protobuf.
    """
    for number, value in _fields(message):
        if number == field and isinstance(value, memoryview):
            return value
    return memoryview(b"")


def first_number(message: bytes | memoryview, field: int) -> int | None:
    """The first occurrence of an integer field, None when there is none; see ``first_field``."""
    for number, value in _fields(message):
        if number == field and isinstance(value, int):
            return value
        if number > field:
            break  # a whole batch would be looked through for what serializers write in front of it
    return None


def _fields(message: bytes | memoryview) -> Iterator[tuple[int, memoryview | int | None]]:
    """Numbers and values of the fields; None: of another kind."""
    at = 0
    try:
        while at < len(message):
            tag, at = _varint(message, at)
            kind = tag & 7
            if kind == _LENGTH_DELIMITED:
                length, at = _varint(message, at)
                if at + length > len(message):
                    raise IndexError
                yield tag >> 3, memoryview(message)[at : at + length]
                at += length
            elif kind == 0:
                number, at = _varint(message, at)
                yield tag >> 3, number
            else:
                at += _FIXED_SIZES[kind]
                yield tag >> 3, None
    except (IndexError, KeyError):
        raise InvalidArgumentError(f"the request is not a protobuf message: it breaks off at byte {at}") from None


def wrap(field: int, message: bytes) -> bytes:
    """A message as a field of another one."""
    return bytes((field << 3 | _LENGTH_DELIMITED,)) + encode_varint(len(message)) + message
