"""The entry point: which commands there are, and what an error, Ctrl-C and a closed pipe come to."""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from telemetry_broker import __version__
from telemetry_broker.cli import completion, consume, describe, dlq, drain, group, log, produce, simulate, topic
from telemetry_broker.cli.output import note
from telemetry_broker.cli.parser import MISUSED, Command, Parser
from telemetry_broker.errors import BrokerError

INTERRUPTED: Final = 130

COMMANDS: Final[tuple[Command, ...]] = (
    topic.COMMAND,
    group.COMMAND,
    dlq.COMMAND,
    produce.COMMAND,
    consume.COMMAND,
    simulate.COMMAND,
    describe.COMMAND,
    drain.COMMAND,
    log.COMMAND,
    completion.COMMAND,
)
"""All commands, in the order in which the help lists them."""

_EPILOG: Final = """Which broker: --broker URL with a command, or the environment variable TELEMETRY_BROKER.

try it, a folder is a broker:
  export TELEMETRY_BROKER=file:///tmp/telemetry
  %(prog)s topic create telemetry
  echo 'gpu,uuid=GPU-1 DCGM_FI_DEV_GPU_UTIL=87' | %(prog)s produce telemetry
  %(prog)s consume telemetry --format pretty

exit status: 0 done, 1 something was found or refused, 2 asked wrongly or not possible, 130 Ctrl-C"""


def build_parser(prog: str) -> Parser:
    """The parser of all commands."""
    parser = Parser(prog=prog, description="Look after a telemetry broker, and what is in it.", epilog=_EPILOG)
    parser.add_argument("--version", action="version", version=f"telemetry-broker {__version__}")
    parser.set_defaults(prog=prog, parser=parser)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND", dest="command")
    for command in COMMANDS:
        summary = f"{command.summary[:1].upper()}{command.summary[1:]}."
        command.add(commands.add_parser(command.name, help=command.summary, description=summary))
    return parser


def main(arguments: Sequence[str] | None = None, *, prog: str = "python -m telemetry_broker") -> int:
    """Runs a command and returns its exit status.

    Args:
        arguments: the command line behind the program's name; None: that of this process.
        prog: how the program calls itself in its help.

    Raises:
        SystemExit: after ``--help`` and ``--version`` (0), and where the command line is wrong (2).
    """
    words = sys.argv[1:] if arguments is None else list(arguments)
    if sys.stdin is None or sys.stdout is None:  # the shell's `<&-` and `>&-`
        note(f"{prog}: standard input and output have to be open; use < /dev/null or > /dev/null")
        return MISUSED
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a locale that lacks a letter is no reason to fail
    try:
        with _ended_as_by_ctrl_c():
            parser = build_parser(prog)
            if not words:
                parser.print_help(sys.stderr)
                return MISUSED
            if words[:1] == [completion.COMPLETE]:
                status = completion.complete(parser, words[1:])
            else:
                parsed = parser.parse(words)
                status = parsed.run(parsed)
            sys.stdout.flush()
    except BrokerError as error:
        note(f"{prog}: {error}")
        return MISUSED
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read has seen enough. The interpreter would complain when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except UnicodeEncodeError as error:
        note(f"{prog}: {error.object!r} is no text in UTF-8; names and URLs have to be")
        return MISUSED
    except OSError as error:
        note(f"{prog}: {error.filename or 'standard input or output'}: {error.strerror or error}")
        return MISUSED
    return status


@contextmanager
def _ended_as_by_ctrl_c() -> Iterator[None]:
    """SIGTERM gives back leases and stores what was read as Ctrl-C does: it is what timeout(1) and containers send."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
