"""The library's command line, ``python -m telemetry_broker``, with nothing but the standard library.

Results go to standard output, errors and progress to standard error. Exit status: 0 all is well, 1 something was found,
2 it was asked wrongly or could not be done.
"""

from telemetry_broker.cli.main import main

__all__ = ["main"]
