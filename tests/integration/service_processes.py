"""Services as real processes: started, waited for by what they print, stopped, killed."""

import os
import re
import signal
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.forked_services import start_service
from tests.ports import lasting_port

SAMPLE = Path(__file__).parents[2] / "services" / "telemetry_services" / "data" / "dcgm-sample.csv"
PATIENCE = 30.0


def eventually(look: Callable[[], bool]) -> None:
    """Looks again and again until it is so."""
    end = time.monotonic() + PATIENCE
    while not look():
        assert time.monotonic() < end, "it did not come to be so"


class Service:
    """`telemetry ARGUMENTS` as a child process, which is killed at the end of the block if it still runs."""

    def __init__(self, *arguments: object, environment: dict[str, str] | None = None) -> None:
        self._arguments = [str(argument) for argument in arguments]
        self._lines: list[str] = []
        self._read = threading.Condition()  # reentrant
        self._ended = False
        self.process = start_service(self._arguments, {**os.environ, **(environment or {})})
        self._reader = threading.Thread(target=self._collect)
        self._reader.start()

    def _collect(self) -> None:
        for line in self.process.output:
            with self._read:
                self._lines.append(line.rstrip("\n"))
                self._read.notify_all()
        with self._read:
            self._ended = True
            self._read.notify_all()

    @property
    def output(self) -> str:
        """All that it printed so far, standard error included."""
        with self._read:
            return "\n".join(self._lines)

    def wait_for(self, pattern: str, timeout: float = PATIENCE) -> re.Match[str]:
        """Waits until a line matches, and gives the match; fails when the process ends before."""
        with self._read:
            self._read.wait_for(lambda: self._ended or self._find(pattern) is not None, timeout)
            match = self._find(pattern)
        assert match is not None, f"{self._arguments} printed nothing like {pattern!r}:\n{self.output}"
        return match

    def wait_until(self, condition: Callable[[str], bool], timeout: float = PATIENCE) -> None:
        """Waits until what it printed fulfils a condition; fails when the process ends before."""
        with self._read:
            self._read.wait_for(lambda: self._ended or condition("\n".join(self._lines)), timeout)
            assert condition("\n".join(self._lines)), f"{self._arguments} printed something else:\n{self.output}"

    def _find(self, pattern: str) -> re.Match[str] | None:
        return next((match for line in self._lines if (match := re.search(pattern, line))), None)

    def wait(self, timeout: float = PATIENCE) -> int:
        """Waits for the end and gives the exit status."""
        status = self.process.wait(timeout)
        self._reader.join()
        return status

    def stop(self, number: int = signal.SIGTERM, timeout: float = PATIENCE) -> int:
        """Sends a signal, waits for the end and gives the exit status."""
        self.process.send_signal(number)
        return self.wait(timeout)

    def freeze(self) -> None:
        """SIGSTOP, and returns once no thread of it runs any more, which the signal alone does not promise."""
        self.process.send_signal(signal.SIGSTOP)
        tasks = Path(f"/proc/{self.process.pid}/task")
        eventually(lambda: all("State:\tT" in (task / "status").read_text() for task in tasks.iterdir()))

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.wait()
        self.process.output.close()


class BrokerProcess(Service):
    """`telemetry broker` on free ports, once it takes calls."""

    def __init__(
        self, data: Path, *arguments: object, environment: dict[str, str] | None = None, grpc_port: int | None = None
    ) -> None:
        grpc_port = lasting_port() if grpc_port is None else grpc_port
        super().__init__(
            "broker", "--data", data, "--port", 0, "--grpc-port", grpc_port, *arguments, environment=environment
        )
        started = self.wait_for(r"Starting broker grpc=(\S+) http=(\S+)")
        self.grpc, self.http = started.groups()

    @property
    def url(self) -> str:
        """For `telemetry_broker.connect`."""
        return f"grpc://{self.grpc}"


class ProxyProcess(Service):
    """`telemetry proxy` on free ports in front of brokers, once it takes calls."""

    def __init__(self, *arguments: object, environment: dict[str, str] | None = None) -> None:
        grpc_port = lasting_port()
        super().__init__("proxy", "--port", 0, "--grpc-port", grpc_port, *arguments, environment=environment)
        started = self.wait_for(r"Starting proxy grpc=(\S+) http=(\S+)")
        self.grpc, self.http = started.groups()

    @property
    def url(self) -> str:
        """For `telemetry_broker.connect`."""
        return f"grpc://{self.grpc}"


def listed(*brokers: BrokerProcess) -> str:
    """The brokers for --brokers, called b-0, b-1 and so on."""
    return ",".join(f"b-{number}={broker.grpc}" for number, broker in enumerate(brokers))


def dump(rows: Sequence[str], path: Path) -> Path:
    """Writes a dump with the usual header."""
    header = "timestamp,metric_name,gpu_id,device,uuid,modelName,Hostname,container,pod,namespace,value,labels_raw"
    path.write_text("\n".join((header, *rows)) + "\n")
    return path


def row(
    second: int = 0, metric: str = "DCGM_FI_DEV_GPU_UTIL", gpu: int = 0, value: object = 1, host: str = "h1"
) -> str:
    """A row of a dump."""
    time = f"2025-07-18T20:{second // 60:02}:{second % 60:02}Z"
    return f'"{time}","{metric}","{gpu}","nvidia{gpu}","GPU-{gpu}","H100","{host}","","","","{value}",""'
