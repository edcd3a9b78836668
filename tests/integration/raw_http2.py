"""gRPC by hand: an HTTP/2 connection over a plain socket, for what a gRPC library would not do."""

import socket
import struct
from collections import defaultdict
from types import TracebackType
from typing import Self

import h2.config
import h2.connection
import h2.events
import h2.settings

from telemetry_broker.v1 import broker_pb2 as pb

SERVICE = pb.DESCRIPTOR.services_by_name["BrokerService"].full_name
PATIENCE = 20.0


def framed(message: bytes, *, compressed: bool = False) -> bytes:
    """A message as gRPC frames it."""
    return struct.pack(">?I", compressed, len(message)) + message


class Answer:
    """What came on a stream so far."""

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}
        self.trailers: dict[str, str] = {}
        self.body = b""
        self.ended = False
        self.reset: int | None = None

    @property
    def status(self) -> int:
        """The gRPC status; it stands in the headers when there is no body."""
        return int((self.trailers or self.headers)["grpc-status"])

    @property
    def messages(self) -> list[tuple[bool, bytes]]:
        """The whole messages in the body, each with whether it is compressed."""
        found, at = [], 0
        while at + 5 <= len(self.body):
            compressed, length = struct.unpack_from(">?I", self.body, at)
            found.append((compressed, self.body[at + 5 : at + 5 + length]))
            at += 5 + length
        return found


class RawHttp2:
    """One connection.

    Args:
        reads: whether to give the peer's flow control window back; without it the peer must stop sending.
    """

    def __init__(self, address: str, *, reads: bool = True) -> None:
        host, _, port = address.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=PATIENCE)
        config = h2.config.H2Configuration(client_side=True, header_encoding="utf-8", validate_outbound_headers=False)
        self.http2 = h2.connection.H2Connection(config)
        self.answers: defaultdict[int, Answer] = defaultdict(Answer)
        self.goodbye: h2.events.ConnectionTerminated | None = None
        self.closed = False
        self.pongs = 0
        self._reads = reads
        self.http2.initiate_connection()
        self.flush()

    def flush(self) -> None:
        """Sends what waits."""
        self.socket.sendall(self.http2.data_to_send())

    def open(self, method: str, *headers: tuple[str, str], service: str = SERVICE) -> int:
        """Begins a call and gives its stream."""
        stream = self.http2.get_next_available_stream_id()
        start = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", f"/{service}/{method}"),
            (":authority", "test"),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
        ]
        self.http2.send_headers(stream, [*start, *headers])
        return stream

    def send(self, stream: int, data: bytes, *, end: bool = False) -> None:
        """Sends bytes of a stream, as the peer's window allows."""
        while data:
            self.flush()
            room = min(self.http2.local_flow_control_window(stream), self.http2.max_outbound_frame_size)
            if room == 0:
                self.take()
                continue
            self.http2.send_data(stream, data[:room])
            data = data[room:]
        if end:
            self.http2.end_stream(stream)
        self.flush()

    def call(self, method: str, message: bytes, *headers: tuple[str, str]) -> Answer:
        """One unary call, from its headers to its trailers."""
        stream = self.open(method, *headers)
        self.send(stream, framed(message), end=True)
        return self.wait(stream)

    def wait(self, stream: int) -> Answer:
        """The answer, once the stream or the connection has ended."""
        answer = self.answers[stream]
        while not answer.ended and not self.closed:
            self.take()
        return answer

    def take(self) -> None:
        """Waits for bytes of the peer and notes what they are."""
        data = self.socket.recv(1 << 16)
        if not data:
            self.closed = True
            return
        for event in self.http2.receive_data(data):
            self._note(event)
        self.flush()

    def _note(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.ResponseReceived():
                self.answers[event.stream_id].headers = _texts(event.headers)
            case h2.events.TrailersReceived():
                self.answers[event.stream_id].trailers = _texts(event.headers)
            case h2.events.DataReceived():
                self.answers[event.stream_id].body += event.data
                if self._reads and event.flow_controlled_length:
                    self.http2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case h2.events.StreamEnded():
                self.answers[event.stream_id].ended = True
            case h2.events.StreamReset():
                self.answers[event.stream_id].reset = int(event.error_code)
                self.answers[event.stream_id].ended = True
            case h2.events.PingAckReceived():
                self.pongs += 1
            case h2.events.ConnectionTerminated():
                self.goodbye = event
            case _:
                pass

    def close(self) -> None:
        """Closes the socket, without a word."""
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _texts(headers: object) -> dict[str, str]:
    assert isinstance(headers, list)
    return {
        (name.decode() if isinstance(name, bytes) else name): (value.decode() if isinstance(value, bytes) else value)
        for name, value in headers
    }
