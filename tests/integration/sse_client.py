"""Reads /consume as the clients in the field do: line by line, each line below 64 KiB."""

from __future__ import annotations

import http.client
import json
from types import TracebackType
from typing import Any, NamedTuple, Self
from urllib.parse import urlencode

GO_SCANNER_BYTES = 64 << 10


class Event(NamedTuple):
    """One event, as its three lines say it."""

    id: str
    data: dict[str, Any]
    partition: str

    @property
    def payload(self) -> str:
        return str(self.data["payload"])


class EventReader:
    """One stream. Leaving the block closes the connection, as a client does whose time limit is over."""

    def __init__(self, address: str, *, timeout: float = 20.0, **parameters: object) -> None:
        self._connection = http.client.HTTPConnection(address, timeout=timeout)
        self._connection.request("GET", f"/consume?{urlencode(parameters)}")
        self.response = self._connection.getresponse()
        self.comments = 0

    def line(self) -> bytes:
        """The next line, with its end; empty at the end of the stream."""
        line = self.response.readline()
        assert len(line) < GO_SCANNER_BYTES
        return line

    def read(self) -> Event | None:
        """The next event; None at the end of the stream."""
        lines: list[str] = []
        while line := self.line():
            if line.startswith(b":"):
                self.comments += 1
            elif line == b"\n":
                (id_name, event_id), (data_name, data), (partition_name, partition) = (
                    each.split(": ", 1) for each in lines
                )
                assert (id_name, data_name, partition_name) == ("id", "data", "partition")
                event = Event(event_id, json.loads(data), partition)
                assert (event.data["id"], str(event.data["partition"])) == (event_id, partition)
                return event
            else:
                lines.append(line.decode().rstrip("\n"))
        return None

    def take(self, count: int) -> list[Event]:
        """So many events."""
        events = [self.read() for _ in range(count)]
        return [event for event in events if event is not None]

    def close(self) -> None:
        """Leaves, without a word to the broker."""
        self.response.close()
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
