"""Several broker processes as one, for a client that routes and behind a proxy, and what befalls them under load."""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Self

import telemetry_broker as tb
from telemetry_broker import _core
from tests.integration.service_processes import BrokerProcess
from tests.integration.slow_disk import SlowDisk

PATIENCE = 60.0
"""Seconds for what is expected to happen by itself."""


class Link:
    """A port in front of a broker's, which can be cut: then bytes and connections are swallowed without a word."""

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._whole = threading.Event()
        self._whole.set()
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        self._whole.clear()

    def mend(self) -> None:
        self._whole.set()

    def close(self) -> None:
        self.mend()
        for each in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._whole.wait()
                try:
                    broker = socket.create_connection(self._target)
                except OSError:
                    client.close()
                    continue
                self._sockets += [client, broker]
                for source, sink in ((client, broker), (broker, client)):
                    threading.Thread(target=self._pass_on, args=(source, sink), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                self._whole.wait()
                sink.sendall(data)
        for each in (source, sink):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


class Brokers:
    """Brokers `b0`, `b1`, ... of a folder, each behind a link, and how to reach them: straight or by a proxy."""

    def __init__(
        self, folder: Path, count: int, *, by_proxy: bool, disks: Mapping[str, SlowDisk] | None = None
    ) -> None:
        self.folder = folder
        self._disks = disks or {}
        self.processes: dict[str, BrokerProcess] = {}
        self.links: dict[str, Link] = {}
        for number in range(count):
            self.add(f"b{number}")
        self.cluster: _core.Cluster | None = None
        self._server: _core.GrpcServer | None = None
        self.url = "grpc://" + ",".join(f"{name}={address}" for name, address in self.members)
        if by_proxy:
            self.cluster = _core.Cluster(self.members)
            self._server = _core.GrpcServer(self.cluster)
            self.url = f"grpc://127.0.0.1:{self._server.listen('127.0.0.1', 0)}"
            self._server.start()

    @property
    def members(self) -> list[tuple[str, str]]:
        return [(name, link.address) for name, link in self.links.items()]

    def add(self, name: str) -> None:
        self.processes[name] = self._started(name)
        self.links[name] = Link(self.processes[name].grpc)

    def restart(self, name: str) -> None:
        """Starts one again that has ended, on its port."""
        with self.processes[name] as ended:
            port = int(ended.grpc.rpartition(":")[2])
        self.processes[name] = self._started(name, port)

    def _started(self, name: str, port: int | None = None) -> BrokerProcess:
        disk = self._disks.get(name)
        return BrokerProcess(self.folder / name, grpc_port=port, environment=disk.environment if disk else None)

    def remove(self, name: str) -> None:
        with self.processes.pop(name) as process:
            process.stop()
        self.links.pop(name).close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._server is not None and self.cluster is not None:
            self._server.stop(1.0)
            self.cluster.close()
        for name, process in self.processes.items():
            with process:
                if process.process.poll() is None:
                    process.process.send_signal(signal.SIGCONT)
                    process.kill()
            self.links[name].close()


class Load:
    """A producer and a consumer at work in threads of their own; each record has a value of its own."""

    def __init__(self, broker: tb.Broker, topic: str) -> None:
        self._broker = broker
        self._topic = topic
        self.sent = 0
        self.errors: list[tb.BrokerError] = []
        self.received: list[bytes] = []
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._producer = broker.producer(topic, linger=0.002, on_error=self.errors.append)
        self._threads = [threading.Thread(target=self._send), threading.Thread(target=self._receive)]

    def _send(self) -> None:
        while not self._stopping.is_set():
            self._producer.send(b"%d" % self.sent, key=b"%d" % (self.sent % 50))
            self.sent += 1
            self._stopping.wait(0.0005)
        self._producer.flush(PATIENCE)

    def _receive(self) -> None:
        while True:
            try:
                with self._broker.consumer(self._topic, "g", idle_timeout=2.0) as consumer:
                    for batch in consumer:
                        with self._changed:
                            self.received += batch.values
                            self._changed.notify_all()
                        batch.ack()
            except tb.StaleLeaseError:
                continue  # they come again, unless a broker that is gone had carried the ack out
            if self._stopping.is_set() and not self._threads[0].is_alive():
                return

    def goes_on(self, records: int = 500) -> None:
        """Waits until so many more records, sent from now on, were received."""
        first = self.sent

        def is_there() -> bool:
            return sum(int(value) >= first for value in self.received[-10 * records :]) >= records

        with self._changed:
            assert self._changed.wait_for(is_there, PATIENCE), "no records come any more"

    @contextlib.contextmanager
    def running(self) -> Iterator[Self]:
        for thread in self._threads:
            thread.start()
        try:
            yield self
        finally:
            self._stopping.set()
            for thread in self._threads:
                thread.join(2 * PATIENCE)
            self._producer.close()

    def check(self) -> None:
        """Every record that was sent came, and each was stored once."""
        assert not self.errors
        assert self._producer.stored_records == self.sent
        lost = {b"%d" % number for number in range(self.sent)} - set(self.received)
        assert not lost, f"{len(lost)} records were lost, such as {min(lost, key=int)!r}"
        stored = sum(
            state.end_offset - state.start_offset for state in self._broker.describe_topic(self._topic).partitions
        )
        assert stored <= self.sent, "a record was stored twice"
