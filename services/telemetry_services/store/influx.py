"""The InfluxDB 3 store: points as line protocol, over HTTP; questions over Arrow Flight.

Invariants (tests: `tests/integration/test_influx_store.py`)
- I1 What `write_lines` returns without an error is stored, but for exactly the lines that it gives back. (With
  `no_sync` it is stored once InfluxDB has flushed its log, which is within a second, if it does not crash before.)
- I2 A point that is written again overwrites itself, so anything may be written again after an error.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Final

from telemetry_services.store.base import RefusedLine
from telemetry_services.store.errors import StoreClosedError, StoreDeniedError
from telemetry_services.store.influx_client import MAX_REQUEST_BYTES, InfluxClient, LinesRefusedError
from telemetry_services.store.influx_queries import InfluxQueries

if TYPE_CHECKING:
    from telemetry_broker._core import LineBatch
    from telemetry_services.store.influx_url import InfluxUrl

_log = logging.getLogger(__name__)

_REQUEST_BYTES: Final = MAX_REQUEST_BYTES - (1 << 20)
"""Of lines in one request; a single line may be longer, but no record is over 1 MiB."""


class InfluxStore(InfluxQueries):
    """A `LineStore` in one database of a server; see `telemetry_services.store.base` for what it promises."""

    batch_bytes = 5 << 20
    """About 6,000 points of 30 fields: large, as InfluxDB likes them, and well below its bound."""
    writes_in_flight = 4
    """InfluxDB answers a write when it flushes its log, once a second; four make use of it meanwhile."""

    def __init__(self, url: InfluxUrl, *, token: str = "", ca_file: Path | None = None) -> None:
        self._url = url
        self._client = InfluxClient(url, token, ca_file, self.writes_in_flight)
        self._closed = False
        super().__init__(self._client)

    def prepare(self) -> None:
        self._client.check_server()
        created = self._client.create_database()
        try:
            self._client.check_write()
        except StoreDeniedError as error:
            if not created:
                raise
            raise StoreDeniedError(f"{error}; there is the database, but no right to write to it") from error

    def write_lines(self, lines: LineBatch) -> list[RefusedLine]:
        if self._closed:
            raise StoreClosedError(f"store {self._url} was closed; open it again")
        refused: list[RefusedLine] = []
        runs = lines.cut(_REQUEST_BYTES)[::-1]
        while runs:
            start, end = runs.pop()
            try:
                self._client.write(lines.lines(start, end))
            except LinesRefusedError as error:
                named = {start + number - 1: reason for number, reason in error.lines}
                if named and all(start <= line < end for line in named):
                    refused += [RefusedLine(line, reason) for line, reason in sorted(named.items())]
                    if not error.others_stored:
                        runs += _between(start, end, sorted(named))[::-1]
                elif end - start == 1:
                    refused.append(RefusedLine(start, error.message))
                else:  # which ones is not said: ask for the halves, the first one first
                    middle = (start + end) // 2
                    runs += [(middle, end), (start, middle)]
        if refused:
            _log.warning("store %s refuses %d of %d lines: %s", self._url, len(refused), len(lines), refused[0].reason)
        return refused

    def close(self) -> None:
        self._closed = True
        self._client.close()


def _between(start: int, end: int, lines: list[int]) -> list[tuple[int, int]]:
    """Cut some lines out of a run."""
    edges = zip([start, *(line + 1 for line in lines)], [*lines, end], strict=True)
    return [(first, last) for first, last in edges if first < last]
