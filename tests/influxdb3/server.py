"""The port: HTTP/1.1 is answered here, HTTP/2 (Arrow Flight) is passed on to the query server behind it."""

import asyncio
import json
import threading
import zlib
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from types import TracebackType
from typing import Any, NamedTuple, Self
from urllib.parse import parse_qs, urlsplit

from tests.influxdb3.database import Databases, Identity, to_json
from tests.influxdb3.faults import Dropped, Fault, Half, Slow, Status
from tests.influxdb3.flight import QueryServer
from tests.influxdb3.lines import FieldValue

MAX_REQUEST_BYTES = 10 << 20
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_PIECE_BYTES = 1 << 16


class Request(NamedTuple):
    """One HTTP request."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes


class Answer(NamedTuple):
    """Its answer."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = {}  # noqa: RUF012 (never changed)


class StandIn:
    """A server in a thread of its own, on a free port, until the end of the block.

    Args:
        token: asked for, where it is not empty.
        may_create: whether the token may make databases.
        may_write: whether it may write.
        counting: writes are counted, and nothing is kept.
    """

    def __init__(
        self, *, token: str = "", may_create: bool = True, may_write: bool = True, counting: bool = False, port: int = 0
    ) -> None:
        self.databases = Databases()
        self.may_create = may_create
        self.may_write = may_write
        self.writes: list[Request] = []
        """Write requests so far, bodies decompressed; those of a counting one have none."""
        self.lines_counted = 0
        self._token = token
        self._counting = counting
        self._port = port
        self._faults: deque[Fault] = deque()
        self._lasting: Fault | None = None
        self._flight = QueryServer(self.databases, token)
        self._loop = asyncio.new_event_loop()
        self._connections: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._lock = threading.Lock()
        self._written = threading.Condition(self._lock)

    # -- for tests

    @property
    def address(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self._port}"

    @property
    def queries(self) -> list[tuple[str, dict[str, Any]]]:
        """Queries asked so far, with their parameters."""
        return self._flight.queries

    def fail(self, *faults: Fault) -> None:
        """Makes the next writes end so, one after the other."""
        with self._lock:
            self._faults.extend(faults)

    @contextmanager
    def failing(self, fault: Fault) -> Iterator[None]:
        """Makes every write within the block end so."""
        self._lasting = fault
        try:
            yield
        finally:
            self._lasting = None

    @contextmanager
    def answering_without_end(self) -> Iterator[None]:
        """Lets no answer to a query within the block end."""
        self._flight.ends.clear()
        try:
            yield
        finally:
            self._flight.ends.set()

    @contextmanager
    def away(self) -> Iterator[None]:
        """Nobody listens within the block, and connections are cut at its beginning."""
        self._run(self._stop_listening())
        try:
            yield
        finally:
            self._run(self._listen())

    def wait_for_writes(self, count: int, timeout: float = 30.0) -> None:
        """Waits until so many write requests have come, answered or not."""
        with self._written:
            assert self._written.wait_for(lambda: len(self.writes) >= count, timeout), len(self.writes)

    def points(self, database: str) -> dict[Identity, dict[str, FieldValue]]:
        """What its table `gpu` holds."""
        return self.databases.points(database)

    # -- life

    def __enter__(self) -> Self:
        self._thread.start()
        self._run(self._listen())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._flight.shutdown()

    def _run(self, work: Any) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port, limit=1 << 20)
        self._port = self._server.sockets[0].getsockname()[1]

    async def _stop_listening(self) -> None:
        if self._server is not None:
            self._server.close()
        for writer in self._connections:
            writer.transport.abort()

    async def _end(self) -> None:
        await self._stop_listening()
        if tasks := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(tasks)  # they end with their connections

    # -- connections

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections.add(writer)
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            if _PREFACE.startswith(head):
                await self._pass_on(head, reader, writer)
                return
            while await self._answer(await _read_request(head, reader), writer):
                head = await reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client is gone
        finally:
            await self._hang_up(writer)

    async def _pass_on(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind_reader, behind_writer = await asyncio.open_connection("127.0.0.1", self._flight.port)
        self._connections.add(behind_writer)
        try:
            behind_writer.write(head)
            pipes = [_pipe(reader, behind_writer), _pipe(behind_reader, writer)]
            await asyncio.gather(*pipes)
        finally:
            await self._hang_up(behind_writer)

    async def _hang_up(self, writer: asyncio.StreamWriter) -> None:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        self._connections.discard(writer)

    async def _answer(self, request: Request, writer: asyncio.StreamWriter) -> bool:
        """Answers one request; False where the connection is to end."""
        # A write without lines is how clients ask whether they may write.
        fault = self._take_fault() if "write" in request.path and request.body else None
        if isinstance(fault, Status):
            answer = Answer(fault.status, fault.body.encode(), fault.headers)
            self._note_write(request)
        elif isinstance(fault, Dropped) and not fault.stored:
            self._note_write(request)
            return False
        else:
            answer = self._route(request)
        if isinstance(fault, Slow):
            # Released from another thread, by a test; noticed where the client has given up, too.
            while not fault.released.is_set() and not writer.transport.is_closing():  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        if isinstance(fault, Dropped):
            return False
        message = _encode(answer)
        # Within the status, or within the body: a client can go by the head alone.
        writer.write(message[: -len(answer.body) // 2 or 10] if isinstance(fault, Half) else message)
        await writer.drain()
        return not isinstance(fault, Half)

    def _take_fault(self) -> Fault | None:
        with self._lock:
            return self._faults.popleft() if self._faults else self._lasting

    def _note_write(self, request: Request) -> None:
        with self._written:
            self.writes.append(request)
            self._written.notify_all()

    # -- endpoints

    def _route(self, request: Request) -> Answer:
        if request.path == "/health":
            return Answer(200, b"OK")
        if request.path == "/stand-in/counts":
            return Answer(200, json.dumps({"lines": self.lines_counted, "writes": len(self.writes)}).encode())
        if self._token and request.headers.get("authorization") not in (
            f"Bearer {self._token}",
            f"Token {self._token}",
        ):
            return _error(401, "the request was not authenticated")
        if request.path == "/ping":
            if request.method == "HEAD":
                return Answer(404)
            version = {"version": "3.6.0", "revision": "0" * 10, "process_id": "0"}
            return Answer(
                200, json.dumps(version).encode(), {"X-Influxdb-Version": "3.6.0", "X-Influxdb-Build": "Core"}
            )
        if request.path == "/api/v3/configure/database":
            return self._configure(request)
        if request.path in ("/api/v3/write_lp", "/api/v2/write", "/write") and request.method == "POST":
            return self._write(request)
        return Answer(404, b"not found")

    def _configure(self, request: Request) -> Answer:
        if not self.may_create:
            return _error(403, "the request was not authorized")
        name = str(json.loads(request.body or b"{}").get("db", ""))
        if not name or not name[0].isalnum() or not all(char.isalnum() or char in "_-" for char in name):
            return _error(400, f"invalid character in database name: must be ASCII, containing only letters: {name}")
        if self.databases.create(name):
            return Answer(200)
        return Answer(409, b"attempted to create a resource that already exists")

    def _write(self, request: Request) -> Answer:
        if not self.may_write:
            return _error(403, "the request was not authorized")
        is_v2 = request.path == "/api/v2/write"
        database = request.query.get("bucket" if is_v2 else "db")
        if not database:
            if is_v2:
                return Answer(400, b'{"code":"invalid","message":"missing bucket value"}')
            return Answer(400, b"missing query parameter 'db'")
        body = _decoded(request)
        if isinstance(body, Answer):
            return body
        if not body:
            return Answer(400, b"incoming write was empty")
        if self._counting:
            self.lines_counted += body.count(b"\n")
            self._note_write(request._replace(body=b""))
            return Answer(204)
        try:
            text = body.decode()
        except UnicodeDecodeError as error:
            return Answer(500, f"body content is not valid utf8: {error}".encode())
        accept_partial = not is_v2 and request.query.get("accept_partial") != "false"
        bad = self.databases.write(
            database, text, request.query.get("precision", "auto"), accept_partial=accept_partial
        )
        self._note_write(request._replace(body=body))
        if not bad:
            return Answer(204)
        if is_v2:
            message = "write buffer error: parsing for line protocol failed"
            return Answer(400, json.dumps({"code": "invalid", "message": message}).encode())
        return Answer(400, b"".join(to_json(bad, accept_partial=accept_partial)))


def _decoded(request: Request) -> bytes | Answer:
    encoding = request.headers.get("content-encoding", "identity")
    body = request.body
    if encoding == "gzip":
        try:
            inflater = zlib.decompressobj(wbits=31)
            body = inflater.decompress(body, MAX_REQUEST_BYTES + 1)
        except zlib.error as error:
            return Answer(500, f"error decoding gzip stream: {error}".encode())
        if len(body) <= MAX_REQUEST_BYTES and not inflater.eof:
            return Answer(500, b"error decoding gzip stream: unexpected end of file")
    elif encoding != "identity":
        return Answer(400, f"unacceptable content-encoding: {encoding}".encode())
    if len(body) > MAX_REQUEST_BYTES:
        return Answer(500, f"max request size ({MAX_REQUEST_BYTES} bytes) exceeded".encode())
    return body


async def _read_request(head: bytes, reader: asyncio.StreamReader) -> Request:
    first, *lines = head.decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    url = urlsplit(target)
    query = {name: values[-1] for name, values in parse_qs(url.query).items()}
    return Request(method, url.path, query, headers, body)


def _error(status: int, message: str) -> Answer:
    return Answer(status, json.dumps({"error": message}).encode())


def _encode(answer: Answer) -> bytes:
    headers = {"Content-Length": str(len(answer.body)), **answer.headers}
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}\r\n{head}\r\n".encode() + answer.body


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(_PIECE_BYTES):
        writer.write(piece)
        await writer.drain()
    writer.close()
