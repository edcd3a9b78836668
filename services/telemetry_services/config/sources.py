"""The places settings come from: flags, variables, files named by variables, one TOML file. The first one wins."""

import os
import stat
import tomllib
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from telemetry_services.errors import ConfigError

MAX_SECRET_BYTES: Final = 64 << 10
MAX_SETTINGS_BYTES: Final = 1 << 20


class Source(StrEnum):
    """The kinds of places, the strongest first."""

    FLAG = "flag"
    VARIABLE = "variable"
    FILE_VARIABLE = "file_variable"
    FILE = "file"
    DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class Given:
    """What one place says about one setting.

    Attributes:
        place: where exactly, as a message names it: ``--port``, ``PORT``, ``port in telemetry.toml``.
        value: as it stands there, not checked yet; it may be a secret.
    """

    source: Source
    place: str
    value: Any = field(repr=False)


def read_secret(variable: str, path: str) -> tuple[str, str]:
    """The secret in the file that a ``..._FILE`` variable names, without line ends behind it; and what to warn of.

    Raises:
        ConfigError: the file cannot be read, is empty, or is no text of at most 64 KiB.
    """
    place = f"{variable}={path}"
    expected = "expected a text file that holds the secret and nothing else"
    try:
        with Path(path).open("rb") as file:
            content = file.read(MAX_SECRET_BYTES + 1)
            status = os.fstat(file.fileno())
    except (OSError, ValueError) as err:
        reason = err.strerror if isinstance(err, OSError) else err
        raise ConfigError(f"{place}: the file cannot be read ({reason}); {expected}") from err
    if len(content) > MAX_SECRET_BYTES:
        raise ConfigError(f"{place}: the file is larger than {MAX_SECRET_BYTES >> 10} KiB; {expected}")
    try:
        secret = content.decode().rstrip("\r\n")
    except UnicodeDecodeError:  # its text would show a part of the secret
        raise ConfigError(f"{place}: the file is not text in UTF-8; {expected}") from None
    if not secret.strip():
        raise ConfigError(f"{place}: the file is empty; {expected}")
    if stat.S_ISREG(status.st_mode) and status.st_mode & stat.S_IROTH:
        mode = f"mode {stat.S_IMODE(status.st_mode):04o}"
        return secret, f"{place}: every user of this machine can read the file ({mode}); 0400 keeps the secret"
    return secret, ""


def read_toml(path: Path) -> dict[str, Any]:
    """The keys and values of a settings file.

    Raises:
        ConfigError: it cannot be read, is over 1 MiB, or is not TOML.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_SETTINGS_BYTES + 1)
        if len(content) > MAX_SETTINGS_BYTES:
            raise ConfigError(f"settings file {path}: larger than 1 MiB; give the path of a TOML file to --config")
        return tomllib.loads(content.decode())
    except OSError as err:
        raise ConfigError(f"settings file {path}: {err.strerror}; give the path of a TOML file to --config") from err
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as err:
        raise ConfigError(f"settings file {path}: not TOML ({err}); expected lines such as queue_size = 5000") from err
