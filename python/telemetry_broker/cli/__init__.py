"""The library's command line, ``python -m telemetry_broker``, with nothing but the standard library.

Results go to standard output, errors and progress to standard error. Exit status: 0 all is well, 1 something was found
or refused, 2 it was asked wrongly or could not be done, 130 it was interrupted.
"""

from telemetry_broker.cli.main import COMMANDS, main
from telemetry_broker.cli.parser import Command

__all__ = ["COMMANDS", "Command", "main"]
