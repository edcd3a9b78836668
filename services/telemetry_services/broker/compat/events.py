"""What an event is: its id, and its lines."""

import base64
import binascii
import json
import re
from datetime import UTC, datetime
from typing import Final, NamedTuple, Self

from telemetry_broker.errors import InvalidArgumentError

MAX_LINE_BYTES: Final = 65_535
"""A line with its line end: Go's `bufio.Scanner`, which the clients in the field read with, fails at 64 KiB."""

HEARTBEAT: Final = b": still here\n"
_ID: Final = re.compile(r"(\d{1,10})\.(\d{1,20})\.([A-Za-z0-9_-]{1,400})", flags=re.ASCII)
_MOST: Final = (2**32 - 1, 2**64 - 2)
# Line ends to some clients (Python's str.splitlines, for one), which JSON does not escape by itself.
_LINE_ENDS: Final = {ord(char): f"\\u{ord(char):04x}" for char in "\x85\u2028\u2029"}


class EventId(NamedTuple):
    """Names one delivery of one record: `partition.offset.lease`. `partition.offset` is the id that /produce gave."""

    partition: int
    offset: int
    lease_id: bytes

    def __str__(self) -> str:
        lease = base64.urlsafe_b64encode(self.lease_id).rstrip(b"=").decode()
        return f"{self.partition}.{self.offset}.{lease}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """The inverse of `str`.

        Raises:
            InvalidArgumentError: no event ever had this id (``invalid.lease``).
        """
        match = _ID.fullmatch(text)
        if match is not None:
            partition, offset, lease = int(match[1]), int(match[2]), match[3]
            try:
                lease_id = base64.urlsafe_b64decode(lease + "=" * (-len(lease) % 4))
            except (binascii.Error, ValueError):
                lease_id = b""
            if lease_id and partition <= _MOST[0] and offset <= _MOST[1]:
                return cls(partition, offset, lease_id)
        raise InvalidArgumentError(
            f"{text[:100]!r} is not the id of an event; send the id of a /consume event as it came",
            code="invalid.lease",
        )


def encode(event_id: EventId, topic: str, value: bytes, append_time_ns: int) -> bytes:
    """The lines of an event, with the blank one that ends it.

    A value that is no UTF-8 travels as base64, and the event says so in a field `encoding`.
    """
    shown = str(event_id)
    try:
        payload, encoding = value.decode(), {}
    except UnicodeDecodeError:
        payload, encoding = base64.b64encode(value).decode(), {"encoding": "base64"}
    event = {
        "id": shown,
        "payload": payload,
        "created_at": _rfc3339(append_time_ns),
        "topic": topic,
        "partition": event_id.partition,
        **encoding,
    }
    data = json.dumps(event, ensure_ascii=False, separators=(",", ":"))
    return f"id: {shown}\ndata: {data.translate(_LINE_ENDS)}\npartition: {event_id.partition}\n\n".encode()


def longest_line(event: bytes) -> int:
    """Bytes of the longest line of an encoded event, its line end included."""
    return max(map(len, event.splitlines(keepends=True)))


def _rfc3339(time_ns: int) -> str:
    seconds, rest = divmod(time_ns, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest // 1000:06}Z"
