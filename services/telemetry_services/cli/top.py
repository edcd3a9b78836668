"""`telemetry top`: the fleet in a terminal, live."""

import os
import sys

import click


@click.command("top", short_help="Show the fleet in the terminal, live.")
@click.option(
    "--url",
    envvar="TELEMETRY_API",
    default="http://127.0.0.1:8080",
    show_default=True,
    help="Where the API is.  [TELEMETRY_API]",
)
@click.option("--key-file", type=click.Path(dir_okay=False), help="File with the API key; default: API_KEY.")
@click.option("--data", type=click.Path(file_okay=False), default="data", help="Folder with the key that was made.")
@click.option("--sort", type=click.Choice(["util", "temp", "power", "memory", "silent", "name"]), default="util")
@click.option("--filter", "text", default="", help="Only GPUs with this in a name.")
@click.option("--once", is_flag=True, help="Print one state and end.")
def top(url: str, key_file: str | None, data: str, sort: str, text: str, once: bool) -> int:
    """Show the fleet in the terminal, live.

    Totals, hosts as bars of their GPUs' utilisation, and the GPUs that lead by --sort. Ctrl-C ends it.

    Example: telemetry top --sort temp --filter training
    """
    from telemetry_services.top.client import FleetClient, obtain_key
    from telemetry_services.top.screen import Screen

    client = FleetClient(url, obtain_key(key_file, data, os.environ))
    screen = Screen(sort=sort, text=text)
    if once or not sys.stdout.isatty():
        screen.print_once(client.fetch())
        return 0
    screen.run(client)
    return 0
