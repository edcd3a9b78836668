"""Commands of the library, as they are in ``python -m telemetry_broker``: options, help and exit status are its own."""

from typing import Final

import click
from click.shell_completion import CompletionItem, ShellComplete

from telemetry_broker import cli

COMPLETE: Final = "__complete"


class _Tool(click.Command):
    """Hands its whole command line on."""

    def __init__(self, command: cli.Command) -> None:
        super().__init__(
            command.name,
            callback=self._run,
            params=[click.Argument(["arguments"], nargs=-1, type=click.UNPROCESSED)],
            short_help=f"{command.summary[:1].upper()}{command.summary[1:]}.",
            add_help_option=False,
            context_settings={"ignore_unknown_options": True},
        )

    def _run(self, arguments: tuple[str, ...]) -> int:
        return cli.main([self.name or "", *arguments], prog="telemetry")


TOOLS: Final[dict[str, click.Command]] = {command.name: _Tool(command) for command in cli.COMMANDS}


def completing(group: click.Group) -> click.Command:
    """The command that the scripts of ``completion`` ask what a word can become; see ``telemetry_broker.cli``."""

    def run(words: tuple[str, ...]) -> int:
        *before, last = words or ("",)
        if before and before[0] in TOOLS:
            return cli.main([COMPLETE, *words], prog="telemetry")
        found: list[CompletionItem] = ShellComplete(group, {}, "telemetry", "").get_completions(list(before), last)
        for item in found:
            click.echo(f"{item.value}\t{item.help or ''}")
        return 0

    words = click.Argument(["words"], nargs=-1, type=click.UNPROCESSED)
    settings = {"ignore_unknown_options": True}
    return click.Command(COMPLETE, callback=run, params=[words], add_help_option=False, context_settings=settings)
