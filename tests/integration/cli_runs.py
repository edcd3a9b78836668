"""The command line as a real process: run to its end, or begun and interrupted."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Self

LIBRARY = ["-m", "telemetry_broker"]
SERVICES = ["-c", "from telemetry_services.cli import main; main()"]
PATIENCE = 30.0
_VARIABLES = ("BROKER", "TOKEN", "TOKEN_FILE", "CA_FILE", "CERT_FILE", "KEY_FILE")


def environment(**variables: str) -> dict[str, str]:
    """This process's, without what says which broker is meant."""
    hidden = {f"TELEMETRY_{name}" for name in _VARIABLES}
    return {name: value for name, value in os.environ.items() if name not in hidden} | variables


class Cli:
    """The program, for one broker.

    Args:
        url: what TELEMETRY_BROKER says; None: nothing.
        program: what Python runs.
    """

    def __init__(self, url: str | None, program: list[str] = LIBRARY) -> None:
        self.environment = environment(**({} if url is None else {"TELEMETRY_BROKER": url}))
        self.program = [sys.executable, *program]

    def __call__(self, *arguments: str | Path, stdin: str | bytes = "") -> "subprocess.CompletedProcess[str]":
        """Runs a command to its end. There is no terminal."""
        done = subprocess.run(
            [*self.program, *map(str, arguments)],
            input=stdin.encode() if isinstance(stdin, str) else stdin,
            env=self.environment,
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )
        assert b"Traceback" not in done.stderr, done.stderr.decode()
        return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())

    def ok(self, *arguments: str | Path, stdin: str | bytes = "") -> str:
        """Runs a command that has to succeed without a word on standard error, and gives what it printed."""
        done = self(*arguments, stdin=stdin)
        assert (done.returncode, done.stderr) == (0, ""), done
        return done.stdout

    def objects(self, *arguments: str | Path) -> list[dict[str, Any]]:
        """The same of a command that prints an object a line."""
        return [json.loads(line) for line in self.ok(*arguments).splitlines()]

    def begin(self, *arguments: str | Path, patience: float = PATIENCE) -> "Running":
        """Begins a command, to be killed after so many seconds."""
        return Running([*self.program, *map(str, arguments)], self.environment, patience)


class Running:
    """A command that goes on until it is interrupted, or its input ends; killed at the end of the block if need be."""

    def __init__(self, command: list[str], variables: dict[str, str], patience: float = PATIENCE) -> None:
        self.process = subprocess.Popen(
            command,
            env=variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        # Whatever hangs is killed, which ends every wait for it.
        self._alarm = threading.Timer(patience, self.process.kill)
        self._alarm.start()

    def write(self, text: str) -> None:
        """Gives it something to read."""
        assert self.process.stdin is not None
        self.process.stdin.write(text)
        self.process.stdin.flush()

    def line(self) -> str:
        """The next line that it prints."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().removesuffix("\n")

    def error_line(self) -> str:
        """The next line on its standard error."""
        assert self.process.stderr is not None
        return self.process.stderr.readline().removesuffix("\n")

    def close_output(self) -> None:
        """Goes away, as a reader that has seen enough."""
        assert self.process.stdout is not None
        self.process.stdout.close()

    def interrupt(self, number: int = signal.SIGINT) -> None:
        """Ctrl-C."""
        self.process.send_signal(number)

    def end(self) -> tuple[int, str, str]:
        """Waits for the end, with its input left open, and gives the status and what it still printed."""
        status = self.process.wait(PATIENCE)
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        stdout = "" if self.process.stdout.closed else self.process.stdout.read()
        stderr = self.process.stderr.read()
        assert "Traceback" not in stderr, stderr
        return status, stdout, stderr

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._alarm.cancel()
        self.process.kill()
        self.process.wait(PATIENCE)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None and not stream.closed:
                stream.close()
