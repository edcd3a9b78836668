"""The `telemetry` command: one subcommand a service, whose options are the settings of its model.

Exit status: 0 it did what was asked, 1 it failed, 2 it was asked wrongly. An error is one sentence on standard error.
"""

from telemetry_services.cli.main import main

__all__ = ["main"]
