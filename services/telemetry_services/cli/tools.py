"""The subcommands that are no service: those of the library, as in ``python -m telemetry_broker``, and our own."""

from typing import Final

import click

from telemetry_services.cli.config_check import config


@click.command(
    "log",
    short_help="Verify, repair or dump a broker's folder.",
    add_help_option=False,
    context_settings={"ignore_unknown_options": True},
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def log(arguments: tuple[str, ...]) -> int:
    """Hands everything on: options, help and exit status are the library's."""
    from telemetry_broker.cli import main

    return main(["log", *arguments], prog="telemetry")


TOOLS: Final[dict[str, click.Command]] = {"config": config, "log": log}
