"""`telemetry config check`: what settings a service would start with here, where each comes from, and what is wrong."""

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

import click

from telemetry_services.cli.commands import COMMANDS, CONTEXT

if TYPE_CHECKING:
    from telemetry_services.config import Resolution, ServiceSettings

PROBLEMS: Final = 2
"""Exit status when a service would not start."""

_APART: Final = [name for name in COMMANDS if name != "up"]


@click.group("config", short_help="Check settings before a service starts.", context_settings=CONTEXT)
def config() -> None:
    """Works with the settings of the services."""


@config.command(
    "check",
    short_help="Show each setting with its origin, and everything that is wrong.",
    context_settings=CONTEXT,
    epilog="Exit status: 0 the services would start with these settings, 2 one would not.",
)
@click.argument("service", type=click.Choice(list(COMMANDS)), required=False)
@click.option("--config", "file", metavar="PATH", help="TOML file with settings.  [TELEMETRY_CONFIG]")
@click.option("--json", "as_json", is_flag=True, help="One JSON document in place of tables.")
def check(service: str | None, file: str | None, as_json: bool) -> int:
    """Load the settings of SERVICE as it would itself, but for its flags, and show them.

    Without SERVICE: those of broker, streamer, collector and api. Secrets are masked. Tables go to standard output,
    problems and warnings to standard error. Nothing is started, and no address is tried.

    Example: telemetry config check collector --config telemetry.toml
    """
    from telemetry_services import config as settings

    flags = {"telemetry_config": file} if file else {}
    names = [service] if service else _APART
    checked = [settings.resolve(getattr(settings, COMMANDS[name].settings), flags) for name in names]
    unread = settings.unread_variables()
    if as_json:
        click.echo(json.dumps(_document(checked, unread), indent=2, ensure_ascii=False))
    else:
        for resolution in checked:
            click.echo("\n".join(_table(resolution)) + "\n")
        for line in _findings(checked, unread) or ["no problems"]:
            click.echo(line, err=True)
    return PROBLEMS if any(resolution.problems for resolution in checked) else 0


def _document(checked: "Sequence[Resolution[ServiceSettings]]", unread: list[str]) -> dict[str, Any]:
    services = {
        resolution.model.service: {
            "settings": {
                effective.setting.name: {
                    "value": effective.value,
                    "source": effective.source,
                    "place": effective.place or None,
                    "secret": effective.setting.is_secret,
                }
                for effective in resolution.effective()
            },
            "problems": [{"code": problem.code, "message": problem.message} for problem in resolution.problems],
            "warnings": list(resolution.warnings),
        }
        for resolution in checked
    }
    return {"services": services, "warnings": unread}


def _table(resolution: "Resolution[ServiceSettings]") -> Iterator[str]:
    rows = [(resolution.model.service, "VALUE", "FROM")]
    rows += [
        (f"  {effective.setting.variable}", _text(effective.value), _origin(effective.source, effective.place))
        for effective in resolution.effective()
    ]
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for name, value, origin in rows:
        yield f"{name:{widths[0]}}  {value:{widths[1]}}  {origin}"


def _origin(source: str, place: str) -> str:
    return f"{source} {place}" if source in ("flag", "variable") else place or source


def _text(value: object) -> str:
    if value is None or value == "":
        return "-"
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return text if text.isprintable() else repr(text)


def _findings(checked: "Sequence[Resolution[ServiceSettings]]", unread: list[str]) -> list[str]:
    """Each problem and each warning once, with the services that have it."""
    services: dict[str, list[str]] = {}
    for resolution in checked:
        found = [f"problem: {problem.message}" for problem in resolution.problems]
        for line in [*found, *(f"warning: {warning}" for warning in resolution.warnings)]:
            services.setdefault(line, []).append(resolution.model.service)
    lines = [line.replace(":", f" ({', '.join(names)}):", 1) for line, names in sorted(services.items())]
    return [*lines, *(f"warning: {sentence}" for sentence in unread)]
