"""Whatever sources give a setting: the strongest one wins, and is the one that is shown."""

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from telemetry_services.config import SERVICES, ServiceSettings, describe, resolve
from telemetry_services.config.values import format_duration, format_topics

pytestmark = pytest.mark.usefixtures("clean_environment")

ORDER = ["flag", "variable", "file_variable", "table", "top"]
DEFAULT = "default"


@dataclass(frozen=True)
class Kind:
    """A setting, values it can have, and how a text says one."""

    name: str
    values: st.SearchStrategy[Any]
    text: Any = str
    default: Any = None
    secret: bool = False


def switch(value: bool) -> str:
    return str(value).lower()


SECRETS = st.from_regex(r"sesam[a-zA-Z0-9]{1,20}", fullmatch=True)
TOPICS = st.dictionaries(
    st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,9}", fullmatch=True), st.integers(1, 4096), min_size=1
)
KINDS = [
    Kind("queue_size", st.integers(1, 10_000_000), default=2000),
    Kind("visibility_timeout", st.integers(1, 43_200_000).map(lambda ms: ms / 1000), format_duration, default=30.0),
    Kind("durability", st.sampled_from(["memory", "os", "fsync"]), default="os"),
    Kind("topics", TOPICS, format_topics, default={}),
    Kind("csv_rate", st.floats(0, 1e9).map(lambda rate: round(rate, 3)), default=0.0),
    Kind("csv_loop", st.booleans(), switch, default=False),
    Kind("data_dir", st.from_regex(r"[a-z]{1,8}", fullmatch=True).map(Path), default=Path("data")),
    Kind("msg_queue_group", st.from_regex(r"[a-z]{1,8}", fullmatch=True), default="telemetry_group"),
    Kind("api_key", SECRETS, secret=True),
]


def in_toml(kind: Kind, value: Any) -> str:
    plain = value if isinstance(value, int) and not isinstance(value, bool) else kind.text(value)
    return f"{kind.name} = {plain if isinstance(value, bool) else json.dumps(plain)}\n"


@st.composite
def what_sources_say(draw: st.DrawFn) -> dict[str, dict[str, Any]]:
    """By setting and source, the value; a switch is only ever given as true by its flag."""
    said: dict[str, dict[str, Any]] = {}
    for kind in KINDS:
        sources = [source for source in ORDER if kind.secret or source != "file_variable"]
        chosen = draw(st.lists(st.sampled_from(sources), unique=True))
        said[kind.name] = {source: draw(kind.values) for source in chosen}
        if kind.text is switch and "flag" in said[kind.name]:
            said[kind.name]["flag"] = True
    return said


def write_sources(said: Mapping[str, Mapping[str, Any]], folder: Path, patch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Makes the sources say what they should; returns the flags."""
    flags: dict[str, Any] = {"telemetry_config": str(folder / "settings.toml")}
    layers = {"table": "[up]\n", "top": ""}
    for kind in KINDS:
        for source, value in said[kind.name].items():
            if source == "flag":
                flags[kind.name] = value if isinstance(value, bool) else kind.text(value)
            elif source == "variable":
                patch.setenv(kind.name.upper(), kind.text(value))
            elif source == "file_variable":
                (folder / kind.name).write_text(f"{value}\n")
                patch.setenv(f"{kind.name.upper()}_FILE", str(folder / kind.name))
            else:
                layers[source] += in_toml(kind, value)
    # Tables of others are there too, and say nothing to this service.
    (folder / "settings.toml").write_text(f"{layers['top']}{layers['table']}[broker]\nqueue_size = 77\n")
    return flags


@given(what_sources_say())
def test_the_strongest_source_wins_and_is_the_one_shown(said: dict[str, dict[str, Any]]) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        flags = write_sources(said, Path(folder), patch)
        (up,) = (service for service in SERVICES if service.service == "up")
        resolution = resolve(up, flags)
        settings = resolution.checked()
        effective = {found.setting.name: found for found in resolution.effective()}
    for kind in KINDS:
        source = next((source for source in ORDER if source in said[kind.name]), DEFAULT)
        expected = said[kind.name].get(source, kind.default)
        value = getattr(settings, kind.name)
        assert (value.get_secret_value() if isinstance(value, SecretStr) else value) == expected, kind.name
        shown = effective[kind.name]
        assert shown.source == {"table": "file", "top": "file"}.get(source, source)
        assert (kind.name in settings.model_fields_set) == (source != DEFAULT)
        check_place(kind.name, source, shown.place)
        if kind.secret:
            assert shown.value == (None if expected is None else "********")
        elif isinstance(expected, bool | int | float) and kind.name != "visibility_timeout":
            assert shown.value == expected
        else:
            assert shown.value == kind.text(expected)
    assert "sesam" not in f"{resolution!r}{list(effective.values())!r}{resolution.warnings!r}"


def check_place(name: str, source: str, place: str) -> None:
    if source == DEFAULT:
        assert place == ""
    elif source == "flag":
        assert place.startswith("--")
    elif source == "variable":
        assert place == name.upper()
    elif source == "file_variable":
        assert place.startswith(f"{name.upper()}_FILE=")
    else:
        assert place.startswith(f"{name} of [up] in " if source == "table" else f"{name} in ")


@pytest.mark.parametrize("service", SERVICES)
def test_what_is_shown_of_a_default_can_be_given_back(
    monkeypatch: pytest.MonkeyPatch, service: type[ServiceSettings]
) -> None:
    before = resolve(service)
    for effective in before.effective():
        if effective.value not in (None, ""):
            shown = effective.value
            monkeypatch.setenv(effective.setting.variable, switch(shown) if isinstance(shown, bool) else str(shown))
    after = resolve(service)
    assert after.checked() == before.checked()
    given_back = [effective for effective in after.effective() if effective.value not in (None, "")]
    assert {effective.source for effective in given_back} == {"variable"}
    assert [setting.name for setting in describe(service) if setting.is_secret and setting.default] == []
