"""`telemetry` as processes that need not import everything anew, which is most of what it takes to start one.

The standard library's fork server imports the services and does nothing else. Each service is a fork of it, with an
environment, a command line and an output of its own; signals, exit status and death are those of any process. How the
interpreter itself starts the command is for the tests that run it as a user does.
"""

import atexit
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Final

_IMPORTED: Final = [
    "telemetry_services.cli.main",
    "telemetry_services.api.process",
    "telemetry_services.broker.process",
    "telemetry_services.collector.process",
    "telemetry_services.proxy.process",
    "telemetry_services.streamer.process",
    "telemetry_services.up.process",
]
_FORKS: Final = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(_IMPORTED)


def _run(arguments: Sequence[str], environment: Mapping[str, str], output: Connection) -> None:
    with output:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["telemetry", *arguments]
    from telemetry_services.cli import main

    try:
        main()
    finally:
        atexit._run_exitfuncs()  # a fork ends without them


class StartedService(subprocess.Popen[str]):
    """`telemetry ARGUMENTS` by an interpreter of its own."""

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        super().__init__(
            [sys.executable, "-c", "from telemetry_services.cli import main; main()", *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self.stdout is not None
        self.output = self.stdout


class ForkedService:
    """As much of `subprocess.Popen` as tests need of `telemetry ARGUMENTS`.

    Args:
        arguments: of the command.
        environment: all of it.

    Attributes:
        output: what it prints, standard error included.
    """

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        read, write = os.pipe()
        with Connection(write, readable=False) as output:  # which can be sent to the fork
            given = (list(arguments), dict(environment), output)
            self._process = _FORKS.Process(target=_run, args=given, daemon=True)
            self._process.start()
        self.output = os.fdopen(read)
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    @property
    def returncode(self) -> int | None:
        """The status, once it has ended; minus the signal that ended it."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """The same."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Waits for the end. Raises `subprocess.TimeoutExpired`."""
        self._process.join(timeout)
        status = self._process.exitcode
        if status is None:
            assert timeout is not None
            raise subprocess.TimeoutExpired(f"telemetry ({self.pid})", timeout)
        return status

    def send_signal(self, number: int) -> None:
        """Sends a signal, unless it has ended."""
        if self._process.exitcode is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)


def start_service(arguments: Sequence[str], environment: Mapping[str, str]) -> ForkedService | StartedService:
    """A fork, unless its environment has what is read when a program is loaded."""
    kind = StartedService if "LD_PRELOAD" in environment else ForkedService
    return kind(arguments, environment)
