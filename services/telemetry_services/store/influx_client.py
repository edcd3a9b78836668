"""The connection to an InfluxDB 3 server: influxdb3-python, with its many kinds of errors made ours.

Nothing here is tried again: whoever calls knows best. The token is in no message.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import urllib3
from influxdb_client_3 import InfluxDBClient3, WriteOptions, WritePrecision
from influxdb_client_3.exceptions.exceptions import InfluxDB3ClientQueryError, InfluxDBError, InfluxDBPartialWriteError
from influxdb_client_3.write_client.client.write_api import WriteType

from telemetry_services.store.errors import (
    StoreDeniedError,
    StoreError,
    StoreForeignError,
    StoreQueryError,
    StoreUnavailableError,
    StoreUrlError,
)
from telemetry_services.store.influx_url import InfluxUrl

MAX_REQUEST_BYTES: Final = 10 << 20
"""InfluxDB refuses larger requests."""

_WRITE_TIMEOUT_MS: Final = 30_000
_ASK_TIMEOUT_SECONDS: Final = 10.0
_QUERY_TIMEOUT_MS: Final = 60_000
_GZIP_LEVEL: Final = 1  # lines repeat themselves so much that higher levels gain little, for many times the work
_MAX_TEXT: Final = 500
# gRPC's own pauses grow to two minutes, in which a server that is back would still be told as away.
_RECONNECT: Final = [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 1000)]
_PARTIAL_WRITE: Final = "partial write of line protocol occurred"
_TOO_MANY_FILES: Final = "file limit"
_NO_PLAN: Final = "error while planning query"
_EMPTY_WRITE: Final = "incoming write was empty"
_PLACES: Final = (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED)
_DENIALS: Final = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)


class LinesRefusedError(Exception):
    """The server refused lines for what they are.

    Attributes:
        lines: (number from 1, reason) of each; empty where the server does not say which.
        others_stored: whether all others of the request are stored; else none is.
    """

    def __init__(self, message: str, lines: list[tuple[int, str]], *, others_stored: bool) -> None:
        super().__init__(message)
        self.message = message
        self.lines = lines
        self.others_stored = others_stored


class TooManyFilesError(StoreQueryError):
    """The server would have to open more files for a query than it may. Ask for a shorter time."""


class InfluxClient:
    """One database of a server. For any thread.

    Args:
        connections: kept open for writes at the same time.
    """

    def __init__(self, url: InfluxUrl, token: str, ca_file: Path | None, connections: int) -> None:
        self._url = url
        self._token = token
        options = WriteOptions(
            write_type=WriteType.synchronous, no_sync=url.no_sync, accept_partial=True, use_v2_api=False
        )
        self._client = InfluxDBClient3(
            host=url.address,
            database=url.database,
            token=token,
            auth_scheme="Bearer",
            write_client_options={"write_options": options},
            flight_client_options={"generic_options": list(_RECONNECT)},
            connection_pool_maxsize=connections,
            write_timeout=_WRITE_TIMEOUT_MS,
            query_timeout=_QUERY_TIMEOUT_MS,
            ssl_ca_cert=str(ca_file) if ca_file else None,
        )

    def check_server(self) -> None:
        """See that an InfluxDB 3 server answers and knows the token."""
        with self._telling_errors():
            try:
                answer = self._ask("GET", "/ping")
            except InfluxDBError as error:
                if _status(error) in _PLACES:
                    raise StoreForeignError(self._not_influx("answers nothing at /ping")) from error
                raise
        version = answer.getheaders().get("X-Influxdb-Version", "").removeprefix("v")
        if version and version.split(".")[0] in ("0", "1", "2"):
            raise StoreForeignError(self._not_influx(f"is InfluxDB {version}"))

    def create_database(self) -> bool:
        """Make the database, if there is none; False where the token may not, or the server does not know how."""
        body = json.dumps({"db": self._url.database}).encode()
        with self._telling_errors():
            try:
                self._ask("POST", "/api/v3/configure/database", body)
            except InfluxDBError as error:
                status = _status(error)
                if status == HTTPStatus.CONFLICT:
                    return True
                if status in (*_DENIALS, *_PLACES):
                    return False
                if status == HTTPStatus.BAD_REQUEST:
                    raise StoreUrlError(
                        f"store {self._url}: the server takes no database of that name ({self._plain(error)}); "
                        "name another"
                    ) from error
                raise
        return True

    def check_write(self) -> None:
        """See that the token may write: a write without lines is refused, but only after the token was looked at."""
        with self._telling_errors():
            try:
                self._ask("POST", "/api/v3/write_lp", b"", {"db": self._url.database})
            except InfluxDBError as error:
                if _EMPTY_WRITE in error.message:
                    return
                if _status(error) in _PLACES:
                    raise StoreForeignError(
                        f"store {self._url}: there is no such database, and this token may not make it "
                        f"({self._plain(error)}); make it, or name another"
                    ) from error
                raise

    def write(self, lines: bytes) -> None:
        """Store lines, of at most `MAX_REQUEST_BYTES`.

        Raises:
            LinesRefusedError: some are not stored, for what they are.
            StoreError: nothing is known of them.
        """
        encoded: dict[str, str] = {}
        if self._url.gzip:
            lines, encoded = zlib.compress(lines, _GZIP_LEVEL, wbits=31), {"content_encoding": "gzip"}
        with self._telling_errors():
            try:
                self._client.write(lines, write_precision=WritePrecision.NS, **encoded)
            except InfluxDBPartialWriteError as error:
                lines_refused = [(line.line_number, line.error_message) for line in error.line_errors]
                partial = _PARTIAL_WRITE in error.message
                raise LinesRefusedError(self._plain(error), lines_refused, others_stored=partial) from error
            except InfluxDBError as error:
                if _status(error) in (HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.UNPROCESSABLE_ENTITY):
                    raise LinesRefusedError(self._plain(error), [], others_stored=False) from error
                raise

    def query(self, sql: str, parameters: Mapping[str, str | float]) -> pa.RecordBatchReader:
        """Ask a query; reading its answer may fail too, see `telling_query_errors`. A missing database has no rows."""
        with self.telling_query_errors():
            return self._client.query(sql, mode="reader", query_parameters=dict(parameters))

    @contextmanager
    def telling_query_errors(self) -> Iterator[None]:
        """Turn the errors of a query into ours, while it is asked and while its answer is read."""
        try:
            yield
        except (InfluxDB3ClientQueryError, pa.ArrowException, OSError) as error:  # OSError: it broke off in a batch
            text = self._plain(error)
            lowered = text.lower()
            if _TOO_MANY_FILES in lowered:
                raise TooManyFilesError(
                    f"store {self._url} refuses a query over so many files ({text}); ask for a shorter range of time, "
                    "or raise its --query-file-limit"
                ) from error
            if _NO_PLAN in lowered:
                raise StoreQueryError(f"not a query that can be answered: {text}") from error
            if "unauthenticated" in lowered or "unauthorized" in lowered or "permission" in lowered:
                raise self._denied(text) from error
            if "unavailable" in lowered or "timed out" in lowered or "deadline" in lowered:
                raise self._unavailable(text) from error
            raise StoreError(f"store {self._url} could not be read: {text}") from error

    def close(self) -> None:
        """End the connections."""
        self._client.close()

    def _ask(self, method: str, path: str, body: bytes | None = None, query: Mapping[str, str] | None = None) -> Any:
        return self._client.rest_client.request(
            method, path, query_params=dict(query or {}), body=body, timeout=_ASK_TIMEOUT_SECONDS
        )

    @contextmanager
    def _telling_errors(self) -> Iterator[None]:
        try:
            yield
        except InfluxDBError as error:
            status, text = _status(error), self._plain(error)
            if status in _DENIALS:
                raise self._denied(text) from error
            if status == 0:  # the client's word for TLS that failed
                raise self._unavailable(text) from error
            if status == HTTPStatus.TOO_MANY_REQUESTS or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                raise StoreUnavailableError(
                    f"store {self._url} answers {status}: {text}", retry_after=_seconds(error.retry_after)
                ) from error
            raise StoreError(f"store {self._url} answers {status}: {text}") from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise self._unavailable(self._plain(error)) from error

    def _denied(self, text: str) -> StoreDeniedError:
        token = "this token" if self._token else "no token at all"
        return StoreDeniedError(
            f"store {self._url} does not let {token} do this ({text}); give one that may read and write the database, "
            f"as INFLUXDB_TOKEN"
        )

    def _unavailable(self, text: str) -> StoreUnavailableError:
        return StoreUnavailableError(
            f"store {self._url} does not answer ({text}); see that it runs, and that this is its address"
        )

    def _not_influx(self, what: str) -> str:
        return f"store {self._url}: the server there {what}; name the HTTP address of an InfluxDB 3"

    def _plain(self, error: Exception) -> str:
        """An error's text in one line, without what repeats and without the token."""
        text = error.message if isinstance(error, InfluxDBError) else str(error)
        for noise in (". Detail: Python exception", ". gRPC client debug context", "\n"):
            text = text.split(noise)[0]
        text = " ".join(text.removeprefix("Error while executing query: ").split())
        if self._token:
            text = text.replace(self._token, "********")
        return text[:_MAX_TEXT]


def _status(error: InfluxDBError) -> int:
    status = getattr(error, "status", None) or getattr(error.response, "status", None)
    return int(status or 0)


def _seconds(retry_after: str | None) -> float | None:
    """Of a Retry-After header; one with a date counts as none."""
    return float(retry_after) if retry_after and retry_after.isascii() and retry_after.isdigit() else None
