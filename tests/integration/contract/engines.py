"""The brokers that the contract holds for: in memory, in a folder, and a real server process behind gRPC."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

import telemetry_broker as tb
from telemetry_broker.testing import ManualClock

TIMEOUT = 30.0
"""Bound of every wait that is expected to end by itself."""


class Engine(ABC):
    """One broker and a connection to it.

    Attributes:
        broker: the connection; a new one after each restart.
        lease: a visibility timeout that ``end_leases`` lets pass, in seconds.
    """

    restarts: ClassVar[bool] = True
    lease: ClassVar[float] = 30.0
    clock: ManualClock | None

    def __init__(self) -> None:
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
        return tb.connect("mem://", clock=self.clock)


class FileEngine(Engine):
    def __init__(self, folder: Path) -> None:
        self.url = f"file://{folder}"
        super().__init__()

    def open(self) -> tb.Broker:
        return tb.connect(self.url, clock=self.clock)


class GrpcEngine(Engine):
    lease = 0.3  # real time: this one's clock cannot be moved

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.server = BrokerProcess(folder)
        super().__init__()
        self.clock = None

    def open(self) -> tb.Broker:
        return tb.connect(self.server.url)

    def restart(self, *, kill: bool = False) -> None:
        self.broker.close(flush=not kill)
        self.server.end(kill=kill)
        self.server = BrokerProcess(self.folder)
        self.broker = self.open()

    def close(self) -> None:
        super().close()
        self.server.end()


class BrokerProcess:
    """A running ``telemetry broker`` on free ports of the loopback."""

    def __init__(self, folder: Path, grpc_port: int = 0) -> None:
        command: list[str | Path] = [Path(sys.executable).with_name("telemetry"), "broker", "--data", folder]
        self._process = subprocess.Popen(
            [*command, "--port", "0", "--grpc-port", str(grpc_port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={name: value for name, value in os.environ.items() if name != "COVERAGE_PROCESS_START"},
        )
        assert self._process.stderr is not None
        self._log: list[str] = []
        address = None
        for line in self._process.stderr:
            self._log.append(line)
            if address := re.search(r"Starting broker .*?grpc=(\S+)", line):
                break
        if address is None:
            self._process.wait()
            raise RuntimeError(f"the broker did not start:\n{''.join(self._log)}")
        self.address = address[1]
        self.url = f"grpc://{self.address}"
        # Whatever it still says is read, so that it never blocks on a full pipe.
        self._reader = threading.Thread(target=self._log.extend, args=(self._process.stderr,), daemon=True)
        self._reader.start()

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    def end(self, *, kill: bool = False) -> None:
        """Ends it with SIGTERM, or with SIGKILL."""
        if kill:
            self._process.kill()
        else:
            self._process.terminate()
        code = self._process.wait(TIMEOUT)
        self._reader.join(TIMEOUT)
        assert self._process.stderr is not None
        self._process.stderr.close()
        assert kill or code == 0, f"the broker ended with {code}:\n{''.join(self._log)}"
