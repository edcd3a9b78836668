"""Where settings come from beyond flags and variables: files named by a `..._FILE` variable, and one TOML file."""

import os
import tomllib
from pathlib import Path
from typing import Any, Final

from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from telemetry_services.errors import ConfigError

CONFIG_VARIABLE: Final = "TELEMETRY_CONFIG"


class SecretFileSource(PydanticBaseSettingsSource):
    """Secrets from files: API_KEY_FILE names the file that holds API_KEY; a line end behind it is not part of it."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        variable = f"{field_name.upper()}_FILE"
        path = os.environ.get(variable)
        if not path or field.annotation not in (SecretStr, SecretStr | None):
            return None, field_name, False
        try:
            secret = Path(path).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as err:
            raise ConfigError(
                f"{variable}={path}: the file cannot be read ({err}); expected a text file with the secret"
            ) from err
        if not secret:
            raise ConfigError(f"{variable}={path}: the file is empty; expected a file with the secret")
        return secret, field_name, False

    def __call__(self) -> dict[str, Any]:
        found = {name: self.get_field_value(info, name)[0] for name, info in self.settings_cls.model_fields.items()}
        return {name: value for name, value in found.items() if value is not None}


class TomlSource(PydanticBaseSettingsSource):
    """The TOML file of `--config` or TELEMETRY_CONFIG. One file may serve all services: each takes what it knows."""

    def __init__(self, settings_cls: type[BaseSettings], flags: dict[str, Any]) -> None:
        super().__init__(settings_cls)
        self._flags = flags

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002
        return self().get(field_name), field_name, False

    def __call__(self) -> dict[str, Any]:
        path = self._flags.get("telemetry_config") or os.environ.get(CONFIG_VARIABLE)
        return read_toml(Path(path)) if path else {}


def read_toml(path: Path) -> dict[str, Any]:
    """The keys and values of a settings file.

    Raises:
        ConfigError: it cannot be read, or is not TOML.
    """
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as err:
        raise ConfigError(f"settings file {path}: {err.strerror}; give the path of a TOML file to --config") from err
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as err:
        raise ConfigError(f"settings file {path}: not TOML ({err}); expected lines such as queue_size = 5000") from err
