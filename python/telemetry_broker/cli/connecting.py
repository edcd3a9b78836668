"""Which broker is meant, with which credentials, and what is near a name that it does not know."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from telemetry_broker.broker import Broker
from telemetry_broker.cli.parser import Parser, near
from telemetry_broker.connection import connect
from telemetry_broker.errors import BrokerError, InvalidArgumentError, NotFoundError

BROKER_VARIABLE: Final = "TELEMETRY_BROKER"
TOKEN_VARIABLE: Final = "TELEMETRY_TOKEN"  # noqa: S105 - a name
_FILES: Final = {
    "token_file": ("TELEMETRY_TOKEN_FILE", "file with the token to show"),
    "ca_file": ("TELEMETRY_CA_FILE", "certificates that the broker's is checked against, PEM"),
    "cert_file": ("TELEMETRY_CERT_FILE", "certificate to show, PEM"),
    "key_file": ("TELEMETRY_KEY_FILE", "its private key, PEM"),
}
_MOST_LISTED: Final = 5

OPTIONS: Final = ("broker", *_FILES)
"""Names of the options in what was parsed."""


def add_broker_options(parser: Parser) -> None:
    """Adds the options that say which broker is meant."""
    options = parser.add_argument_group("broker")
    options.add_argument(
        "--broker",
        metavar="URL",
        help="grpc://HOST:PORT, grpcs://HOST:PORT, grpc+unix:///SOCKET, or file:///DIR where no other process has it "
        f"open [{BROKER_VARIABLE}]",
    )
    for name, (variable, text) in _FILES.items():
        options.add_argument(f"--{name.replace('_', '-')}", dest=name, metavar="FILE", help=f"{text} [{variable}]")


def broker_url(parsed: argparse.Namespace) -> str:
    """The URL that was given.

    Raises:
        InvalidArgumentError: there is none.
    """
    url: str | None = parsed.broker or os.environ.get(BROKER_VARIABLE)
    if not url:
        raise InvalidArgumentError(
            f"no broker is given: add --broker URL, or set {BROKER_VARIABLE}, to something like "
            "grpc://127.0.0.1:9090 or file:///var/lib/telemetry",
            code="invalid.url",
        )
    return url


@contextmanager
def opened(parsed: argparse.Namespace, *, makes_folder: bool = False) -> Iterator[Broker]:
    """The broker that is meant, for one command. A topic or group that it does not know is answered with near ones.

    Args:
        parsed: with the options of ``add_broker_options``, and ``topic`` and ``group`` where the command has them.
        makes_folder: a folder that is not there may be made; else it was probably mistyped.
    """
    url = broker_url(parsed)
    if url.startswith("mem:"):
        raise InvalidArgumentError(
            f"{url}: a broker in memory ends with the process that has it; give grpc://, grpc+unix:// or file://",
            code="invalid.url",
        )
    if not makes_folder:
        _refuse_missing(url, parsed.prog)
    with connect(url, **_credentials(parsed, url)) as broker:
        try:
            yield broker
        except NotFoundError as error:
            raise _with_near_names(broker, parsed, error) from error


def _refuse_missing(url: str, prog: str) -> None:
    try:
        parts = urlsplit(url)
        folder = Path(unquote(parts.path))
        is_missing = parts.scheme == "file" and folder.is_absolute() and not (folder / "broker.json").exists()
    except (ValueError, OSError):
        return  # connect() says it better
    if is_missing:
        why = "this is no folder of a broker" if folder.exists() else "there is no such folder"
        raise InvalidArgumentError(
            f"{url}: {why}; correct the path, or make a broker there with `{prog} topic create NAME --broker {url}`",
            code="invalid.url",
        )


def _credentials(parsed: argparse.Namespace, url: str) -> dict[str, Any]:
    """What ``connect`` is told, and no more than that: what was typed, else what the environment says.

    A variable is for those brokers that take it: one that is set for all of them must not close the way to a folder.
    """
    given = {name: getattr(parsed, name) for name in _FILES if getattr(parsed, name) is not None}
    if not url.startswith("grpc"):
        return given
    for name, (variable, _) in _FILES.items():
        is_for_all = name == "token_file" or url.startswith("grpcs:")
        if is_for_all and name not in given and (path := os.environ.get(variable)):
            given[name] = path
    if parsed.token_file is None and (token := os.environ.get(TOKEN_VARIABLE)):
        given.pop("token_file", None)
        given["token"] = token
    return given


def _with_near_names(broker: Broker, parsed: argparse.Namespace, error: NotFoundError) -> NotFoundError:
    what = error.code.partition(".")[0]
    try:
        match what:
            case "topic":
                known = [topic.name for topic in broker.topics()]
            case "group":
                known = [group.name for group in broker.groups(parsed.topic)]
            case _:
                return error
    except BrokerError:
        return error  # that one is not worth more words
    wanted = getattr(parsed, what, None) or ""
    hint = near(wanted, known)
    if not hint and known:
        more = len(known) - _MOST_LISTED
        listed = ", ".join(known[:_MOST_LISTED]) + (f" and {more:,} more" if more > 0 else "")
        hint = f"; known {what}s: {listed}"
    return type(error)(f"{error.message}{hint or f'; there are no {what}s yet'}", code=error.code)
