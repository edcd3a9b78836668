"""Queries over Arrow Flight, as influxdb3-python asks them."""

import json
import threading
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
from pyarrow import flight

from tests.influxdb3.database import Databases, NotFoundError

_HEADER = "authorization"


class _Token(flight.ServerMiddlewareFactory):  # type: ignore[misc]
    """Lets in who shows the token."""

    def __init__(self, token: str) -> None:
        self._token = token

    def start_call(self, info: Any, headers: dict[str, list[str]]) -> None:
        if self._token and headers.get(_HEADER) != [f"Bearer {self._token}"]:
            raise flight.FlightUnauthenticatedError("Unauthenticated")


class QueryServer(flight.FlightServerBase):  # type: ignore[misc]
    """Serves `do_get`, whose ticket is a query.

    Attributes:
        ends: while it is not set, no answer ends.
    """

    def __init__(self, databases: Databases, token: str) -> None:
        super().__init__("grpc://127.0.0.1:0", middleware={"token": _Token(token)})
        self._databases = databases
        self.queries: list[tuple[str, dict[str, Any]]] = []
        self.ends = threading.Event()
        self.ends.set()

    def do_get(self, context: flight.ServerCallContext, ticket: flight.Ticket) -> flight.FlightDataStream:
        asked = json.loads(ticket.ticket)
        sql, parameters = asked["sql_query"], asked.get("params") or {}
        self.queries.append((sql, parameters))
        try:
            answer = self._databases.query(asked["database"], sql, parameters)
        except NotFoundError as error:
            raise flight.FlightInternalError(str(error)) from error
        except Exception as error:
            raise pa.ArrowInvalid(f"Error while planning query: {error}") from error
        if self.ends.is_set():
            return flight.RecordBatchStream(answer)
        return flight.GeneratorStream(answer.schema, self._unended(answer))

    def _unended(self, answer: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
        yield from answer
        self.ends.wait()
