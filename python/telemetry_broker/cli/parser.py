"""The parser of a command: help that keeps its lines, and errors that name what was probably meant."""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NoReturn

if TYPE_CHECKING:
    Actions = argparse._SubParsersAction["Parser"]  # noqa: SLF001 - argparse has no public name for it
    """The subcommands of a command, where others can be added."""

Run = Callable[[argparse.Namespace], int]
"""Carries out what was parsed and returns the exit status."""

REFUSED: Final = 1
"""Something was found, or refused."""

MISUSED: Final = 2
"""It was asked wrongly, or could not be done."""


@dataclass(frozen=True, slots=True)
class Command:
    """A command of the program.

    Attributes:
        name: what is typed.
        summary: for the list of commands, a few words.
        add: completes the command's parser.
    """

    name: str
    summary: str
    add: Callable[[Parser], None]


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Leaves the lines of texts as they are, and room for the longest names."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=28)


class Parser(argparse.ArgumentParser):
    """Takes no abbreviations, which would change their meaning when an option is added."""

    def __init__(self, **options: Any) -> None:
        # Here, not where one is made: argparse itself makes those of the subcommands.
        options.setdefault("formatter_class", _Formatter)
        options.setdefault("allow_abbrev", False)
        super().__init__(**options)

    def actions(self) -> Actions:
        """Makes room for subcommands, one of which has to be given."""
        return self.add_subparsers(title="actions", required=True, metavar="ACTION", dest="action")

    def parse(self, arguments: Sequence[str] | None) -> argparse.Namespace:
        """Parses a whole command line; one that is wrong ends the program with status 2.

        Raises:
            SystemExit: after help (0), and where the command line is wrong (2).
        """
        parsed, left = self.parse_known_args(arguments)
        if left:
            parser: Parser = getattr(parsed, "parser", self)
            options = [name for action in parser.arguments() for name in action.option_strings]
            parser.error(f"it takes no {left[0]!r}{near(left[0], options)}")
        return parsed

    def format_help(self) -> str:
        """The help, whose usage leaves the options to their list."""
        positional = [str(action.metavar or action.dest) for action in self._actions if not action.option_strings]
        has_commands = any(isinstance(action.choices, dict) for action in self._actions)
        self.usage = " ".join(["%(prog)s", *positional, "..." if has_commands else "[options]"])
        return super().format_help()

    def arguments(self) -> list[argparse.Action]:
        """All options and positional arguments."""
        return list(self._actions)

    def error(self, message: str) -> NoReturn:
        """Says what is wrong and where help is, in place of a usage line as long as the list of options."""
        sys.stderr.write(f"{self.prog}: {message}; see `{self.prog} --help`\n")
        sys.exit(MISUSED)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        # argparse's own hook for values that are not among the choices.
        if action.choices is not None and value not in action.choices:
            choices = [str(choice) for choice in action.choices]
            raise argparse.ArgumentError(
                action, f"{value!r} is none of {', '.join(choices)}{near(str(value), choices)}"
            )


def add_action(
    actions: Actions, name: str, summary: str, run: Run, *, text: str = "", examples: Sequence[str] = ()
) -> Parser:
    """Adds a subcommand, with a help that says what it does and shows how.

    Args:
        actions: where to.
        name: what is typed.
        summary: a few words for the list, and the first line of the help.
        run: what it does.
        text: more of the help.
        examples: command lines, in which ``%(prog)s`` is the command.
    """
    parser = actions.add_parser(name, help=summary)
    describe(parser, summary, run, text=text, examples=examples)
    return parser


def describe(parser: Parser, summary: str, run: Run, *, text: str = "", examples: Sequence[str] = ()) -> None:
    """Gives a parser its help and what it runs; see ``add_action``."""
    parser.description = f"{summary[:1].upper()}{summary[1:]}." + (f"\n\n{text}" if text else "")
    if examples:
        parser.epilog = "examples:\n" + "\n".join(f"  {example}" for example in examples)
    parser.set_defaults(run=run, parser=parser)


def near(name: str, known: Iterable[str]) -> str:
    """``; did you mean ...?`` where something like the name is known, else nothing."""
    found = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {found[0]}?" if found else ""
