"""What one TOML file says to each service: keys at the top for all that have them, a table a service for itself."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from telemetry_services.config.models import ServiceSettings
from telemetry_services.config.settings import describe
from telemetry_services.config.sources import Given, Source, read_toml
from telemetry_services.errors import ConfigError

_NOT_IN_A_FILE: Final = {"telemetry_config"}
_TABLES: Final = {"topics"}
"""Settings that may be written as a table."""


class SettingsFile:
    """A TOML file, read once. A key in a service's table wins over the same key at the top.

    Args:
        services: models of all services, by whose names tables are called.
        refused: keys of no model that have their own answer when a service that they would belong to reads them.

    Raises:
        ConfigError: the file cannot be read, or is not TOML.
    """

    def __init__(
        self, path: Path, services: Sequence[type[ServiceSettings]], refused: Mapping[str, type[ServiceSettings]]
    ) -> None:
        self._path = path
        self._models = {model.service: model for model in services}
        self._refused = refused
        self._readers: dict[str, list[str]] = {}
        for service, model in self._models.items():
            for name in model.model_fields.keys() - _NOT_IN_A_FILE:
                self._readers.setdefault(name, []).append(service)
        values = read_toml(path)
        self._tables = {name: values.pop(name) for name in self._models if name in values}
        self._top = values

    def given(self, model: type[ServiceSettings]) -> dict[str, Given]:
        """What the file says to one service, by key: not what is at the top for others."""
        table = self._tables.get(model.service)
        given = {
            key: self._given(key, value, "")
            for key, value in self._top.items()
            if model.service in self._readers.get(key, (model.service,))
        }
        if isinstance(table, dict):
            given |= {key: self._given(key, value, model.service) for key, value in table.items()}
        return given

    def problems(self) -> Iterator[ConfigError]:
        """Every key that nobody reads, every table that is none, and every key that should not be one."""
        for key, value in self._top.items():
            if isinstance(value, dict) and key not in self._readers:
                yield self._no_such_table(key)
            elif key not in self._readers and key not in self._refused:
                yield self._no_such_setting(key, "")
            elif isinstance(value, dict) and key not in _TABLES:
                yield self._not_a_table(key, "")
        for service, table in self._tables.items():
            if not isinstance(table, dict):
                yield ConfigError(
                    f"{service} in {self._path} is no table; expected [{service}], with its settings below it"
                )
                continue
            for key, value in table.items():
                if not self._is_read(key, service):
                    yield self._no_such_setting(key, service)
                elif isinstance(value, dict) and key not in _TABLES:
                    yield self._not_a_table(key, service)

    def _is_read(self, key: str, service: str) -> bool:
        refused_by = self._refused.get(key)
        refused = refused_by is not None and issubclass(self._models[service], refused_by)
        return refused or service in self._readers.get(key, ())

    def _given(self, key: str, value: object, service: str) -> Given:
        return Given(Source.FILE, self._place(key, service), value)

    def _place(self, key: str, service: str) -> str:
        return f"{key} of [{service}] in {self._path}" if service else f"{key} in {self._path}"

    def _no_such_table(self, key: str) -> ConfigError:
        near = _nearest(key, {name: name for name in (*self._models, *_TABLES)})
        remedy = f"did you mean [{near}]?" if near else f"expected one of {', '.join(f'[{n}]' for n in self._models)}"
        return ConfigError(f"[{key}] in {self._path}: there is no such table; {remedy}")

    def _no_such_setting(self, key: str, service: str) -> ConfigError:
        models = [self._models[service]] if service else self._models.values()
        near = _nearest(key, {text: name for model in models for text, name in _spellings(model)})
        if key in self._readers:
            remedy = f"it is a setting of {', '.join(self._readers[key])}"
        elif near:
            remedy = f"did you mean {near}?"
        else:
            remedy = f"`telemetry {service or 'SERVICE'} --help` lists what there is"
        whose = f"{service} has" if service else "there is"
        return ConfigError(f"{self._place(key, service)}: {whose} no such setting; {remedy}")

    def _not_a_table(self, key: str, service: str) -> ConfigError:
        return ConfigError(f"{self._place(key, service)} is a table; expected {key} = value")


def _spellings(model: type[ServiceSettings]) -> Iterator[tuple[str, str]]:
    """What somebody may call each setting, by its key or by its flag, with the key."""
    for setting in describe(model):
        if setting.name not in _NOT_IN_A_FILE:
            yield setting.flag.removeprefix("--").replace("-", "_"), setting.name
            yield setting.name, setting.name


def _nearest(key: str, names: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(key.lower().replace("-", "_"), names, n=1)
    return str(names[near[0]]) if near else ""
