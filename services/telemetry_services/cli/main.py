"""The entry point. Nothing heavy is imported before it is known which service is meant."""

import logging
import os
import sys
from typing import Final

import click

from telemetry_services import __version__
from telemetry_services.cli.commands import COMMANDS
from telemetry_services.cli.tools import COMPLETE, TOOLS, completing

log = logging.getLogger(__name__)

DEBUG_VARIABLE: Final = "TELEMETRY_DEBUG"
FAILED: Final = 1
MISUSED: Final = 2

_EPILOG: Final = """\b
Try it, nothing needs to be set up:
  telemetry up            everything in one process, streaming a sample dump
  telemetry up --once     the same, ending when the dump is stored

Every option of a service is also an environment variable (shown in brackets) and a line in the TOML file given to
--config. A flag wins over the variable, the variable over the file. Which broker a tool works on, --broker or the
variable TELEMETRY_BROKER says.
"""


class _Commands(click.Group):
    """Loads a subcommand's settings when it is asked for, and not before."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 (part of the signature)
        return [*COMMANDS, *TOOLS]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name == COMPLETE:
            return completing(self)
        command = COMMANDS.get(cmd_name)
        return command.build(cmd_name) if command else TOOLS.get(cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Services"):
            formatter.write_dl([(name, command.summary) for name, command in COMMANDS.items()])
        with formatter.section("Tools"):
            formatter.write_dl([(name, command.get_short_help_str()) for name, command in TOOLS.items()])


@click.group(
    cls=_Commands, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@click.version_option(__version__, prog_name="telemetry")
def telemetry() -> None:
    """A durable telemetry broker and the GPU-fleet pipeline on it."""


def main() -> None:
    """Runs the command line and exits."""
    from telemetry_broker.errors import BrokerError
    from telemetry_services.text import printable

    try:
        status = telemetry.main(prog_name="telemetry", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help())
        status = MISUSED
    except click.ClickException as error:
        error.show()
        status = MISUSED
    except (click.Abort, KeyboardInterrupt):
        status = 130
    except BrokerError as error:
        click.echo(printable(f"telemetry: {error}"), err=True)
        log.debug("it ended with an error", exc_info=error)
        status = MISUSED if error.code.startswith("config.") else FAILED
    except Exception as error:
        if os.environ.get(DEBUG_VARIABLE):
            raise
        log.debug("it ended in a way that was not foreseen", exc_info=error)
        text = " ".join(str(error).split())
        message = (
            f"telemetry: internal: {type(error).__name__}{f': {text}' if text else ''}. This was not foreseen; run it "
            f"again with {DEBUG_VARIABLE}=1 to see where it happened, and report that"
        )
        click.echo(printable(message), err=True)
        status = FAILED
    sys.stdout.flush()
    sys.exit(status or 0)
