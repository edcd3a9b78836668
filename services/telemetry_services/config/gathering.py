"""Asks every source what it says about the settings of one service."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic_settings import EnvSettingsSource

from telemetry_services.config.models import ServiceSettings
from telemetry_services.config.settings import describe
from telemetry_services.config.settings_file import SettingsFile
from telemetry_services.config.sources import Given, Source, read_secret
from telemetry_services.errors import ConfigError


class Gathering:
    """What won for each setting of a model. Sources are added from the strongest to the weakest.

    Attributes:
        given: by field name; a setting that no source gives is missing.
        problems: sources that cannot be read.
        warnings: sources that can be read, but that somebody should look at.
    """

    def __init__(self, model: type[ServiceSettings]) -> None:
        self.given: dict[str, Given] = {}
        self.problems: list[ConfigError] = []
        self.warnings: list[str] = []
        self._model = model
        self._settings = {setting.name: setting for setting in describe(model)}

    def add_flags(self, flags: Mapping[str, Any]) -> None:
        """Adds what the command line gave; None is not given."""
        for name, value in flags.items():
            if value is not None:
                self.given[name] = Given(Source.FLAG, self._settings[name].flag, value)

    def add_variables(self) -> None:
        """Adds environment variables; an empty one counts as unset."""
        for name, value in EnvSettingsSource(self._model)().items():
            self.given.setdefault(name, Given(Source.VARIABLE, self._settings[name].variable, value))

    def add_secret_files(self) -> None:
        """Adds the secrets in files that variables name; a file is not opened where the secret itself is given."""
        for setting in self._settings.values():
            variable = setting.file_variable
            path = os.environ.get(variable) if variable else None
            if not path:
                continue
            if found := self.given.get(setting.name):
                if variable.lower() not in self._settings:  # as a setting of its own it is read by who asked for it
                    self.warnings.append(f"{variable} is not read: {found.place} is given too, and wins; leave one out")
                continue
            try:
                secret, warning = read_secret(variable, path)
            except ConfigError as err:
                self.problems.append(err)
                continue
            self.given[setting.name] = Given(Source.FILE_VARIABLE, f"{variable}={path}", secret)
            self.warnings += [warning] if warning else []

    def add_settings_file(self, file: SettingsFile) -> None:
        """Adds what the TOML file says to this service."""
        for name, found in file.given(self._model).items():
            if name in self._settings:
                self.given.setdefault(name, found)

    @property
    def settings_file(self) -> Path | None:
        """The TOML file that flags or variables name."""
        found = self.given.get("telemetry_config")
        return Path(found.value) if found else None
