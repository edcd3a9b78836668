"""The entry point: one function a command, each of which adds its parser and says what runs it."""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Final

from telemetry_broker import __version__
from telemetry_broker.cli import log
from telemetry_broker.errors import BrokerError

COULD_NOT: Final = 2
INTERRUPTED: Final = 130


def main(arguments: Sequence[str] | None = None, *, prog: str = "python -m telemetry_broker") -> int:
    """Runs a command and returns its exit status.

    Args:
        arguments: the command line behind the program's name; None: that of this process.
        prog: how the program calls itself in its help.

    Raises:
        SystemExit: after ``--help`` and ``--version`` (0), and where the command line is wrong (2).
    """
    parser = argparse.ArgumentParser(prog=prog, description="Tools for a broker's folder.")
    parser.add_argument("--version", action="version", version=f"telemetry-broker {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    log.add_to(commands)
    parsed = parser.parse_args(arguments)
    try:
        status: int = parsed.run(parsed)
        sys.stdout.flush()
    except BrokerError as error:
        sys.stderr.write(f"{prog}: {error}\n")
        return COULD_NOT
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read has seen enough. The interpreter would complain when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return status
