"""The brokers that the contract holds for: in memory, in a folder, and a real server process behind gRPC."""

from __future__ import annotations

import os
import re
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import telemetry_broker as tb
from telemetry_broker import _core
from telemetry_broker.testing import ManualClock
from tests.certificates import Authority
from tests.forked_services import ForkedService
from tests.integration.contract.portal import Connect
from tests.ports import lasting_port

TIMEOUT = 30.0
"""Bound of every wait that is expected to end by itself."""


class Engine(ABC):
    """One broker and a connection to it.

    Attributes:
        connect: makes connections, synchronous ones or such that look so.
        broker: the connection; a new one after each restart.
        lease: a visibility timeout that ``end_leases`` lets pass, in seconds.
    """

    restarts: ClassVar[bool] = True
    lease: ClassVar[float] = 30.0
    clock: ManualClock | None

    def __init__(self, connect: Connect) -> None:
        self.connect = connect
        self.clock = ManualClock()
        self.broker = self.open()

    @abstractmethod
    def open(self) -> tb.Broker:
        """Another connection, to the same records where that is possible."""

    def end_leases(self) -> None:
        """Makes leases of ``lease`` seconds end, now or (behind gRPC) by themselves soon."""
        if self.clock is not None:
            self.clock.advance(self.lease)

    def restart(self, *, kill: bool = False) -> None:
        """Ends the broker, cleanly or as kill -9 does, and starts it on what it left."""
        self.broker.close(flush=not kill)
        self.broker = self.open()

    def close(self) -> None:
        self.broker.close()


class MemoryEngine(Engine):
    restarts = False

    def open(self) -> tb.Broker:
        return self.connect("mem://", clock=self.clock)


class FileEngine(Engine):
    def __init__(self, connect: Connect, folder: Path) -> None:
        self.url = f"file://{folder}"
        super().__init__(connect)

    def open(self) -> tb.Broker:
        return self.connect(self.url, clock=self.clock)


class GrpcEngine(Engine):
    """Starting a server takes a second, so tests share one and leave it empty."""

    lease = 0.3  # real time: this one's clock cannot be moved

    def __init__(self, connect: Connect, server: BrokerProcess | SeveralBrokers) -> None:
        self.server = server
        super().__init__(connect)
        self.clock = None

    def open(self) -> tb.Broker:
        return self.connect(self.server.url, **self.server.door.credentials)

    def restart(self, *, kill: bool = False) -> None:
        self.broker.close(flush=not kill)
        self.server.restart(kill=kill)
        self.broker = self.open()
        # Of several brokers, until each one was found again.
        while not all(member.healthy for member in self.broker.describe().members):
            time.sleep(0.01)

    def close(self) -> None:
        super().close()
        with self.open() as broker:
            for topic in broker.topics():
                broker.delete_topic(topic.name)


@dataclass(frozen=True)
class Door:
    """How a server is reached: what it is told, and what its clients show."""

    scheme: str = "grpc"
    arguments: Sequence[object] = ()
    credentials: Mapping[str, Any] = field(default_factory=dict)


def door(kind: str, folder: Path) -> Door:
    """A door of a broker: ``token`` (over TLS), ``mtls`` or ``unix``; certificates are made in the folder."""
    match kind:
        case "token":
            authority = Authority(folder)
            server = authority.issue("server")
            tokens = folder / "tokens"
            tokens.write_text("contract-suite-0123456789\n")
            return Door(
                "grpcs",
                ["--tls-cert-file", server.chain, "--tls-key-file", server.key, "--service-token-file", tokens],
                {"ca_file": authority.certificate, "token_file": tokens},
            )
        case "mtls":
            authority = Authority(folder)
            server, client = authority.issue("server"), authority.issue("client")
            certificates = ["--tls-cert-file", server.chain, "--tls-key-file", server.key]
            return Door(
                "grpcs",
                [*certificates, "--tls-client-ca-file", authority.certificate],
                {"ca_file": authority.certificate, "cert_file": client.chain, "key_file": client.key},
            )
        case "unix":
            folder.mkdir(parents=True, exist_ok=True)
            return Door("grpc+unix", ["--listen", f"unix:{folder}/broker.sock"])
    raise ValueError(kind)


class BrokerProcess:
    """A running ``telemetry broker`` on free ports of the loopback, the same ones after a restart."""

    def __init__(self, folder: Path, door: Door | None = None) -> None:
        self.door = door or Door()
        self._folder = folder
        self._log: list[str] = []
        self.address = f"127.0.0.1:{lasting_port()}"
        self._start()

    @property
    def url(self) -> str:
        if self.door.scheme == "grpc+unix":
            return f"grpc+unix://{self.address.removeprefix('unix:')}"
        return f"{self.door.scheme}://{self.address}"

    def _start(self) -> None:
        port = self.address.rpartition(":")[2]
        ports = [] if self.door.scheme == "grpc+unix" else ["--port", "0", "--grpc-port", port]
        arguments = [str(argument) for argument in (*ports, *self.door.arguments)]
        command = ["broker", "--data", str(self._folder), *arguments]
        self._process = ForkedService(command, os.environ)
        for line in self._process.output:
            self._log.append(line)
            if started := re.search(r"Starting broker .*?grpc=(\S+)", line):
                self.address = started[1]
                break
        else:
            self._process.wait()
            self._process.output.close()
            raise RuntimeError(f"the broker did not start:\n{''.join(self._log)}")
        # Whatever it still says is read, so that it never blocks on a full pipe.
        self._reader = threading.Thread(target=self._log.extend, args=(self._process.output,), daemon=True)
        self._reader.start()

    def end(self, *, kill: bool = False) -> None:
        """Ends it with SIGTERM, or with SIGKILL; repeating it is fine."""
        if self._process.returncode is not None:
            return
        if kill:
            self._process.kill()
        else:
            self._process.terminate()
        code = self._process.wait(TIMEOUT)
        self._reader.join(TIMEOUT)
        self._process.output.close()
        assert kill or code == 0, f"the broker ended with {code}:\n{''.join(self._log)}"

    def restart(self, *, kill: bool = False) -> None:
        self.end(kill=kill)
        self._start()


class SeveralBrokers:
    """Two brokers as one: for a client that routes, or behind a proxy."""

    def __init__(self, folder: Path, *, proxy: bool) -> None:
        self.door = Door()
        self._brokers = [BrokerProcess(folder / f"broker-{index}") for index in range(2)]
        members = [(f"broker-{index}", broker.address) for index, broker in enumerate(self._brokers)]
        self.url = "grpc://" + ",".join(f"{name}={address}" for name, address in members)
        self._cluster: _core.Cluster | None = None
        self._server: _core.GrpcServer | None = None
        if proxy:
            self._cluster = _core.Cluster(members)
            self._server = _core.GrpcServer(self._cluster)
            self.url = f"grpc://127.0.0.1:{self._server.listen('127.0.0.1', 0)}"
            self._server.start()

    def end(self, *, kill: bool = False) -> None:
        if self._server is not None and self._cluster is not None:
            self._server.stop(1.0)
            self._cluster.close()
        for broker in self._brokers:
            broker.end(kill=kill)

    def restart(self, *, kill: bool = False) -> None:
        for broker in self._brokers:
            broker.end(kill=kill)
        for broker in self._brokers:
            broker.restart()
