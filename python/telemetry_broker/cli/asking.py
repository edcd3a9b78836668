"""Asking before something is gone for good."""

from __future__ import annotations

import argparse
import sys

from telemetry_broker.cli.output import note, safe
from telemetry_broker.cli.parser import Parser
from telemetry_broker.errors import InvalidArgumentError


def add_yes_option(parser: Parser) -> None:
    """Adds ``--yes``."""
    parser.add_argument("--yes", action="store_true", help="do not ask; needed where there is no terminal to ask on")


def confirmed(parsed: argparse.Namespace, question: str) -> bool:
    """Whether to go on: ``--yes`` was given, or a person at the terminal says so.

    Raises:
        InvalidArgumentError: there is nobody to ask.
    """
    if parsed.yes:
        return True
    if not sys.stdin.isatty():
        raise InvalidArgumentError(f"{question} There is no terminal to ask on: say it with --yes")
    sys.stderr.write(f"{safe(question)} [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() in ("y", "yes"):
        return True
    note("nothing was deleted")
    return False
