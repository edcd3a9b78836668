"""The subcommands that are no service: those of the library, as in ``python -m telemetry_broker``, and our own."""

from typing import Final

import click
from click.shell_completion import CompletionItem, ShellComplete

from telemetry_broker import cli
from telemetry_services.cli.config_check import config
from telemetry_services.cli.stored import export, query
from telemetry_services.cli.top import top

COMPLETE: Final = "__complete"


class _Raw(click.Command):
    """Gets its command line as it is: nothing of it is click's."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.params = {"words": tuple(args)}
        return []


def _tool(command: cli.Command) -> click.Command:
    def run(words: tuple[str, ...]) -> int:
        return cli.main([command.name, *words], prog="telemetry")

    summary = f"{command.summary[:1].upper()}{command.summary[1:]}."
    return _Raw(command.name, callback=run, short_help=summary)


_LIBRARY: Final[dict[str, click.Command]] = {command.name: _tool(command) for command in cli.COMMANDS}
TOOLS: Final[dict[str, click.Command]] = {"top": top, "config": config, "query": query, "export": export, **_LIBRARY}


def completing(group: click.Group) -> click.Command:
    """The command that the scripts of ``completion`` ask what a word can become; see ``telemetry_broker.cli``."""

    def run(words: tuple[str, ...]) -> int:
        *before, last = words or ("",)
        if before and before[0] in _LIBRARY:
            return cli.main([COMPLETE, *words], prog="telemetry")
        if before and before[0] not in group.list_commands(click.Context(group)):
            return 0
        found: list[CompletionItem] = ShellComplete(group, {}, "telemetry", "").get_completions(list(before), last)
        for item in found:
            click.echo(f"{item.value}\t{item.help or ''}")
        return 0

    return _Raw(COMPLETE, callback=run)
