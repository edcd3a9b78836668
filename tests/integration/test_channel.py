"""The core's gRPC client by itself, against servers that do what brokers do not."""

from __future__ import annotations

import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

from telemetry_broker import _core
from telemetry_broker.errors import BrokerError, InvalidArgumentError, UnavailableError
from telemetry_broker.remote import RemoteTransport
from tests.integration.ctrl_c import ctrl_c_after

TIMEOUT = 30.0
UNAVAILABLE, CANCELLED, DEADLINE_EXCEEDED = 14, 1, 4
RESOURCE_EXHAUSTED, FAILED_PRECONDITION, INTERNAL = 8, 9, 13

Context = grpc.ServicerContext


class Server(grpc.GenericRpcHandler):
    """Plays a script for each method; ``Echo`` and ``Answer`` are there from the start."""

    def __init__(self) -> None:
        self.streams: dict[str, Callable[[Iterator[bytes], Context], Iterator[bytes]]] = {"Echo": lambda sent, _: sent}
        self.calls: dict[str, Callable[[bytes, Context], bytes]] = {"Answer": lambda request, _: request}
        self.ended = threading.Event()
        self.target = ""

    def service(self, handler_call_details: Any) -> Any:
        method = handler_call_details.method.rpartition("/")[2]
        if method in self.streams:
            return grpc.stream_stream_rpc_method_handler(self.streams[method])
        return grpc.unary_unary_rpc_method_handler(self.calls[method]) if method in self.calls else None

    def wait_for_the_end(self, _request: object, context: Context) -> bytes:
        """A call that only its client ends."""
        if not context.add_callback(self.ended.set):
            self.ended.set()  # it is over already
        self.ended.wait(TIMEOUT)
        return b""


def started(server: Server, address: str) -> tuple[grpc.Server, int]:
    options = [
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", 16 << 20),
        ("grpc.max_send_message_length", 16 << 20),
    ]
    running = grpc.server(futures.ThreadPoolExecutor(8), handlers=[server], options=options)
    port = running.add_insecure_port(address)
    running.start()
    return running, port


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    running, port = started(server, "127.0.0.1:0")
    server.target = f"127.0.0.1:{port}"
    yield server
    running.stop(0).wait()


@pytest.fixture
def channel(server: Server) -> Iterator[_core.Channel]:
    channel = _core.Channel(server.target)
    yield channel
    channel.close()


def failure(act: Callable[[], object]) -> _core.CallError:
    with pytest.raises(_core.CallError) as caught:
        act()
    return caught.value


def taken(exchange: _core.Exchange, count: int) -> list[bytes]:
    messages: list[bytes] = []
    while len(messages) < count:
        came = exchange.receive(TIMEOUT)
        assert came, f"{len(messages)} of {count} messages came"
        messages += came
    return messages


@pytest.mark.parametrize("size", [0, 1, 100_000, 9 << 20])
def test_a_call_brings_back_what_it_sent(channel: _core.Channel, size: int) -> None:
    assert channel.call("Answer", bytes(size), TIMEOUT) == bytes(size)


def test_a_socket_is_reached_by_its_path(tmp_path: Path) -> None:
    running, _ = started(Server(), f"unix:{tmp_path}/a%20socket%2520.sock")  # where gRPC takes an escaped path
    channel = _core.Channel(f"unix:{tmp_path}/a socket%20.sock")
    try:
        assert channel.call("Answer", b"a", TIMEOUT) == b"a"
    finally:
        channel.close()
        running.stop(0).wait()


def test_what_is_no_address_is_refused() -> None:
    for target in ("", "a host:1", "host:99999999"):
        with pytest.raises(InvalidArgumentError, match="no address"):
            _core.Channel(target)


def test_messages_come_back_in_order_until_the_half_close(channel: _core.Channel) -> None:
    exchange = channel.exchange("Echo")
    sent = [b"%d" % number for number in range(1000)]
    for message in sent:
        exchange.send(message)
    exchange.finish()
    exchange.send(b"too late")
    assert taken(exchange, len(sent)) == sent
    assert exchange.receive(TIMEOUT) is None
    assert exchange.drain() is None


def test_who_waits_is_noted_in_the_order_of_the_messages(channel: _core.Channel) -> None:
    exchange = channel.exchange("Echo")
    waiting: deque[bytes] = deque()

    def send(prefix: bytes) -> None:
        for number in range(500):
            message = prefix + b"%d" % number
            exchange.send(message, waiting, message)

    threads = [threading.Thread(target=send, args=(prefix,)) for prefix in (b"a", b"b", b"c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT)
    assert taken(exchange, 1500) == list(waiting)


def test_a_wait_without_a_message_ends_in_time_and_loses_nothing(channel: _core.Channel) -> None:
    exchange = channel.exchange("Echo")
    assert exchange.receive(0.01) == []
    assert exchange.drain() == []
    exchange.send(b"a")
    assert exchange.receive(TIMEOUT) == [b"a"]


def test_a_reader_that_does_not_take_holds_back_the_server(server: Server, channel: _core.Channel) -> None:
    sent = 0
    stalled = threading.Event()
    message = bytes(64 << 10)

    def flood(_requests: Iterator[bytes], context: Context) -> Iterator[bytes]:
        nonlocal sent
        while context.is_active() and sent < 4000:
            sent += 1
            stalled.set()
            yield message

    server.streams["Flood"] = flood
    exchange = channel.exchange("Flood")
    assert stalled.wait(TIMEOUT)
    # It has stopped once nothing was sent for a while: 4 MiB here, as much in the windows, and some in each kernel.
    before = -1
    while before != sent:
        before = sent
        time.sleep(0.3)
    assert sent < 1000, f"{sent * len(message) >> 20} MiB left the server, and nobody wanted them"
    assert len(taken(exchange, 4000)) == 4000
    assert exchange.receive(TIMEOUT) is None


def test_cancelling_ends_the_call_on_both_sides(server: Server, channel: _core.Channel) -> None:
    def wait(requests: Iterator[bytes], context: Context) -> Iterator[bytes]:
        context.add_callback(server.ended.set)
        yield b"begun"
        yield from requests

    server.streams["Wait"] = wait
    exchange = channel.exchange("Wait")
    assert exchange.receive(TIMEOUT) == [b"begun"]
    threading.Timer(0.05, exchange.cancel).start()
    assert failure(exchange.receive).status == CANCELLED
    assert server.ended.wait(TIMEOUT)


def test_an_exchange_that_nobody_has_is_cancelled(server: Server, channel: _core.Channel) -> None:
    begun = threading.Event()

    def wait(request: bytes, context: Context) -> bytes:
        begun.set()
        return server.wait_for_the_end(request, context)

    server.calls["Wait"] = wait
    notifier = _core.Notifier()
    exchange = channel.ask("Wait", b"", None, notifier)
    assert begun.wait(TIMEOUT)  # one that is cancelled sooner is told to no handler
    del exchange
    assert server.ended.wait(TIMEOUT)


def test_a_call_ends_in_time_and_the_server_knows(server: Server, channel: _core.Channel) -> None:
    left: list[float] = []

    def wait(request: bytes, context: Context) -> bytes:
        left.append(context.time_remaining())
        return server.wait_for_the_end(request, context)

    server.calls["Wait"] = wait
    error = failure(lambda: channel.call("Wait", b"", 0.3))
    assert (error.status, error.message, error.sent) == (DEADLINE_EXCEEDED, "Deadline Exceeded", True)
    assert server.ended.wait(TIMEOUT)
    assert 0 < left[0] <= 0.3


def test_ctrl_c_ends_a_call_and_cancels_it(server: Server, channel: _core.Channel) -> None:
    begun = threading.Event()

    def wait(request: bytes, context: Context) -> bytes:
        begun.set()
        return server.wait_for_the_end(request, context)

    server.calls["Wait"] = wait
    with ctrl_c_after(begun, TIMEOUT), pytest.raises(KeyboardInterrupt):
        channel.call("Wait", b"")
    assert server.ended.wait(TIMEOUT)
    assert channel.call("Answer", b"a", TIMEOUT) == b"a"


def test_a_signal_of_the_process_interrupts_the_main_thread_and_a_stream_goes_on(channel: _core.Channel) -> None:
    exchange = channel.exchange("Echo")
    exchange.send(b"a")
    assert exchange.receive(TIMEOUT) == [b"a"]
    noted: list[int] = []

    def note(number: int, _frame: object) -> None:
        noted.append(number)
        exchange.send(b"b")

    before = signal.signal(signal.SIGALRM, note)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        assert exchange.receive(TIMEOUT) == [b"b"]
    finally:
        signal.signal(signal.SIGALRM, before)
    assert noted == [signal.SIGALRM]


def test_a_notifier_tells_of_each_exchange_with_news(channel: _core.Channel) -> None:
    notifier = _core.Notifier()
    exchanges = {exchange.number: exchange for exchange in (channel.exchange("Echo", None, notifier) for _ in range(3))}
    assert len(exchanges) == 3
    for number, exchange in exchanges.items():
        exchange.send(b"%d" % number)
    came: dict[int, list[bytes]] = {}
    while len(came) < 3:
        assert select.select([notifier], [], [], TIMEOUT)[0]
        for number in notifier.drain():
            came.setdefault(number, []).extend(exchanges[number].drain() or [])
    assert came == {number: [b"%d" % number] for number in exchanges}
    assert not select.select([notifier], [], [], 0)[0]
    assert notifier.drain() == []
    with pytest.raises(ValueError, match="notifier"):
        next(iter(exchanges.values())).receive()
    channel.close()
    assert select.select([notifier], [], [], TIMEOUT)[0]
    assert sorted(notifier.drain()) == sorted(exchanges)
    assert {failure(exchange.drain).status for exchange in exchanges.values()} == {CANCELLED}


def test_the_answer_of_a_call_is_told_with_its_end(channel: _core.Channel) -> None:
    notifier = _core.Notifier()
    call = channel.ask("Answer", b"a", TIMEOUT, notifier)
    assert select.select([notifier], [], [], TIMEOUT)[0]
    assert notifier.drain() == [call.number]
    assert call.answer() == b"a"


# Failures


def test_without_a_server_the_request_was_never_sent() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    channel = _core.Channel(f"127.0.0.1:{port}")
    error = failure(lambda: channel.call("Answer", b"", TIMEOUT))
    assert (error.status, error.code, error.sent) == (UNAVAILABLE, None, False)
    assert "failed to connect" in error.message
    assert "refused" in error.message
    running, _ = started(Server(), f"127.0.0.1:{port}")
    assert channel.call("Answer", b"now", TIMEOUT) == b"now"
    running.stop(0).wait()
    channel.close()


def test_each_request_of_a_producer_is_answered_though_streams_fail_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    transport = RemoteTransport(f"grpc://127.0.0.1:{port}", _core.Channel(f"127.0.0.1:{port}"))
    producing = transport.producing()
    answers: SimpleQueue[bytes | BrokerError] = SimpleQueue()
    for _ in range(300):
        producing.start(b"", TIMEOUT, answers.put)
    for _ in range(300):
        answer = answers.get(timeout=TIMEOUT)
        assert isinstance(answer, UnavailableError), "it was never sent, so it is no UnansweredError"
    transport.close()


def test_a_connection_that_breaks_leaves_open_what_was_sent(server: Server) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        channel = _core.Channel(f"127.0.0.1:{listener.getsockname()[1]}")
        call = channel.ask("Answer", b"")
        connection, _ = listener.accept()
        connection.recv(1 << 16)
        connection.close()
        error = failure(call.answer)
        assert (error.status, error.code, error.sent) == (UNAVAILABLE, None, True)
        channel.close()


def test_a_restarted_server_is_found_again(server: Server) -> None:
    running, port = started(server, "127.0.0.1:0")
    channel = _core.Channel(f"127.0.0.1:{port}")
    stream = channel.exchange("Echo")
    stream.send(b"a")
    assert stream.receive(TIMEOUT) == [b"a"]
    running.stop(0).wait()
    error = failure(lambda: stream.receive(TIMEOUT))
    assert (error.status in (UNAVAILABLE, CANCELLED), error.sent) == (True, True)
    running, _ = started(server, f"127.0.0.1:{port}")
    assert channel.call("Answer", b"again", TIMEOUT) == b"again"
    channel.close()
    running.stop(0).wait()


@pytest.mark.parametrize("domain", ["telemetry-broker", "elsewhere"])
def test_the_details_of_a_failure_are_those_of_its_broker(server: Server, channel: _core.Channel, domain: str) -> None:
    retry = error_details_pb2.RetryInfo()
    retry.retry_delay.FromMilliseconds(1500)
    status = status_pb2.Status(code=FAILED_PRECONDITION, message="no")
    for detail in (
        error_details_pb2.ErrorInfo(reason="topic.version", domain=domain),
        retry,
        error_details_pb2.BadRequest(
            field_violations=[error_details_pb2.BadRequest.FieldViolation(field="config.partitions", description="no")]
        ),
    ):
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)

    def refuse(_request: bytes, context: Context) -> bytes:
        context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "nö, 100 %")
        return b""

    server.calls["Refuse"] = refuse
    error = failure(lambda: channel.call("Refuse", b"", TIMEOUT))
    assert (error.status, error.message, str(error), error.sent) == (
        FAILED_PRECONDITION,
        "nö, 100 %",
        "nö, 100 %",
        True,
    )
    ours = domain == "telemetry-broker"
    expected = ("topic.version", 1.5, "config.partitions") if ours else (None, None, None)
    assert (error.code, error.retry_after, error.field) == expected


def test_what_came_before_a_failure_is_taken_first(server: Server, channel: _core.Channel) -> None:
    def fail(_requests: Iterator[bytes], context: Context) -> Iterator[bytes]:
        yield b"a"
        yield b"b"
        context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "enough")

    server.streams["Fail"] = fail
    exchange = channel.exchange("Fail")
    assert taken(exchange, 2) == [b"a", b"b"]
    for _ in range(2):
        error = failure(lambda: exchange.receive(TIMEOUT))
        assert (error.status, error.message) == (RESOURCE_EXHAUSTED, "enough")


def test_a_message_over_the_bound_is_not_sent(channel: _core.Channel) -> None:
    error = failure(lambda: channel.call("Answer", bytes((16 << 20) + 1), TIMEOUT))
    assert (error.status, error.sent) == (RESOURCE_EXHAUSTED, False)
    assert "16777216" in error.message


def test_a_method_that_is_not_there_is_told(channel: _core.Channel) -> None:
    assert failure(lambda: channel.call("Nothing", b"", TIMEOUT)).status == 12
    with pytest.raises(InvalidArgumentError):
        channel.call("no method", b"")


def test_closing_ends_every_call_and_wakes_who_waits(server: Server, channel: _core.Channel) -> None:
    begun = threading.Barrier(3)

    def wait(request: bytes, context: Context) -> bytes:
        begun.wait(TIMEOUT)
        return server.wait_for_the_end(request, context)

    server.calls["Wait"] = wait
    with futures.ThreadPoolExecutor(2) as pool:
        waits = [pool.submit(channel.call, "Wait", b"") for _ in range(2)]
        begun.wait(TIMEOUT)
        channel.close()
        for waiting in waits:
            error = waiting.exception(TIMEOUT)
            assert isinstance(error, _core.CallError)
            assert error.status == CANCELLED
    assert server.ended.wait(TIMEOUT)
    channel.close()
    assert failure(lambda: channel.call("Answer", b"", TIMEOUT)).status == CANCELLED
    assert failure(channel.exchange("Echo").receive).status == CANCELLED


# Forks


FORKS = """
import os, signal, sys, warnings
from telemetry_broker import _core

TARGET, TIMEOUT = sys.argv[1], float(sys.argv[2])
warnings.simplefilter("ignore", DeprecationWarning)

def failure(act):
    try:
        act()
    except _core.CallError as error:
        return error
    raise AssertionError("it did not fail")

channel = _core.Channel(TARGET)
stream = channel.exchange("Echo")
stream.send(b"a")
assert stream.receive(TIMEOUT) == [b"a"]
child = os.fork()
if child == 0:
    code = 1
    try:
        signal.alarm(20)
        assert "forked" in failure(lambda: channel.call("Answer", b"")).message
        stream.send(b"nothing")
        assert "forked" in failure(lambda: stream.receive(TIMEOUT)).message
        stream.cancel()
        del stream
        channel.close()
        del channel
        mine = _core.Channel(TARGET)
        assert mine.call("Answer", b"child", TIMEOUT) == b"child"
        mine.close()
        code = 0
    finally:
        os._exit(code)
assert os.waitpid(child, 0)[1] == 0
stream.send(b"b")
assert stream.receive(TIMEOUT) == [b"b"]
channel.close()
"""
"""Run in a process of its own: one in which grpcio is at work, as its server is here, cannot be forked."""


def test_a_forked_child_is_refused_lets_go_in_peace_and_can_connect_anew(server: Server) -> None:
    arguments = [sys.executable, "-c", FORKS, server.target, str(TIMEOUT)]
    forked = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=False)
    assert (forked.returncode, forked.stderr) == (0, "")
