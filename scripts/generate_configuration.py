"""Write the tables of docs/configuration.md: `python scripts/generate_configuration.py`, which is `make docs`.

They come from the models. What stands above the marker is written by hand and stays.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

from telemetry_services.config import SERVICES, ServiceSettings, Setting, describe

PAGE = Path(__file__).resolve().parent.parent / "docs/configuration.md"
MARKER = "<!-- What follows is written by `make docs` from the models in services/telemetry_services/config. -->\n"


def generate(page: str) -> str:
    """The page with fresh tables.

    Raises:
        ValueError: it has no marker.
    """
    written, marker, _ = page.partition(MARKER)
    if not marker:
        raise ValueError(f"the page has no line {MARKER.strip()!r}, below which the tables go")
    return written + marker + "\n" + "\n".join(_sections())


def _sections() -> Iterator[str]:
    shared = describe(ServiceSettings)
    yield "## Every service\n"
    yield from _table(shared)
    apart = [model for model in SERVICES if model.service != "up"]
    for model in apart:
        yield f"## `telemetry {model.service}`\n"
        yield from _table(setting for setting in describe(model) if setting not in shared)
    (together,) = (model for model in SERVICES if model.service == "up")
    known = [setting for model in apart for setting in describe(model)]
    names = {setting.name for setting in describe(together)}
    missing = dict.fromkeys(f"`{setting.variable}`" for setting in known if setting.name not in names)
    yield "## `telemetry up`\n"
    yield f"Everything above but {', '.join(missing)}. Its own, or with another default or meaning:\n"
    yield from _table(setting for setting in describe(together) if setting not in known)


def _table(settings: Iterable[Setting]) -> Iterator[str]:
    yield "| variable | flag | TOML key | default | value | meaning |"
    yield "|---|---|---|---|---|---|"
    for setting in settings:
        key = f"`{setting.name}`" if setting.variable != "TELEMETRY_CONFIG" else "-"
        default = f"`{setting.default}`" if setting.default else "-"
        value = setting.expected
        if setting.is_secret:
            value += f"; **secret**, also from the file that `{setting.file_variable}` names"
        cells = [f"`{setting.variable}`", f"`{setting.flag}`", key, default, value, setting.description]
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
    yield ""


if __name__ == "__main__":
    PAGE.write_text(generate(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
