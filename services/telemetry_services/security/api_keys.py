"""The keys of the API: whose they are, what they may do, and both kept up to date with their files.

[[key]]
name = "grafana"             # for messages, limits and logs
sha256 = "9f86d081..."       # of the key; or key = "..." as it is
roles = ["read"]             # read, write, admin; they do not include each other
expires = 2027-01-01T00:00:00Z
"""

import hashlib
import os
import re
import secrets
import time
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from telemetry_services.config.models import RestSettings, split_tokens
from telemetry_services.config.sources import MAX_SECRET_BYTES
from telemetry_services.errors import ApiKeyError, ConfigError
from telemetry_services.security.files import Watched, read_bounded
from telemetry_services.security.guard import Guard

Role = Literal["read", "write", "admin"]
ALL_ROLES: Final[frozenset[Role]] = frozenset(("read", "write", "admin"))
SETTING: Final = "API_KEYS_FILE"

_MAX_KEYS: Final = 1000
_MAX_FILE_BYTES: Final = 1 << 20
_PLACE: Final = re.compile(r"at line \d+, column \d+|at end of document|position \d+")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key that is valid.

    Attributes:
        digest: SHA-256 of the key; the key itself is not kept.
        expires: second since the epoch; None: never.
    """

    name: str
    digest: bytes
    roles: frozenset[Role]
    expires: int | None = None

    @property
    def is_expired(self) -> bool:
        """Whether its time is over."""
        return self.expires is not None and time.time() >= self.expires


class KeyRing:
    """The keys that are valid now."""

    def __init__(self, keys: Iterable[ApiKey] = ()) -> None:
        self._keys: dict[bytes, ApiKey] = {}
        self.replace(keys)

    def replace(self, keys: Iterable[ApiKey]) -> None:
        """From here on these keys are valid, and no others."""
        self._keys = {key.digest: key for key in keys}

    def find(self, text: str) -> ApiKey | None:
        """The key with this text; None: it is not valid. What is compared are digests, whose time tells nothing."""
        key = self._keys.get(digest_of(text))
        return None if key is None or key.is_expired else key

    def is_current(self, key: ApiKey) -> bool:
        """Whether the key is valid still, with the roles that it had."""
        return self._keys.get(key.digest) == key and not key.is_expired


def digest_of(text: str) -> bytes:
    """What is kept of a key."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()


def make_key_ring(settings: RestSettings, guard: Guard) -> tuple[KeyRing, str | None]:
    """The keys of the settings, which the guard keeps up to date; and the one that was made here, where none is given.

    Raises:
        ConfigError: a file that cannot be read or used.
        ApiKeyError: the key that was made cannot be kept.
    """
    paths = [path for path in (settings.api_keys_file, settings.api_key_file) if path is not None]
    made = None if paths or settings.api_key is not None else _kept_key(settings.api_key_path)
    ring = KeyRing()

    def load() -> None:
        keys = [ApiKey("api", digest_of(text), ALL_ROLES) for text in [*_api_keys(settings), *([made] if made else [])]]
        if settings.api_keys_file is not None:
            keys += read_keys(settings.api_keys_file)
        ring.replace(keys)

    guard.watch(Watched("api keys", paths, load))
    return ring, made


def _api_keys(settings: RestSettings) -> list[str]:
    """The keys of API_KEY_FILE as they are now, else those of API_KEY."""
    path = settings.api_key_file
    if path is None:
        return split_tokens(settings.api_key.get_secret_value()) if settings.api_key else []
    keys = split_tokens(read_bounded(path, MAX_SECRET_BYTES, "API_KEY_FILE").decode(errors="replace"))
    if not keys:
        raise ConfigError(f"API_KEY_FILE={path}: there is no key in the file")
    return keys


def _kept_key(path: Path) -> str:
    """The key in a file that only its owner can read, which is made when it is not there."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            kept = path.read_text(encoding="utf-8").strip()
            if kept:
                return kept
            descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC)
        key = secrets.token_urlsafe(24)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(key + "\n")
    except OSError as err:
        raise ApiKeyError(
            f"{path}: the API key cannot be kept here ({err.strerror}); "
            "give one in API_KEY, or another folder in DATA_DIR"
        ) from err
    return key


class _Key(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
    key: Annotated[str, Field(pattern=r"^[!-+\--~]{16,512}$")] | None = None
    sha256: Annotated[str, Field(pattern=r"^[0-9A-Fa-f]{64}$")] | None = None
    roles: Annotated[list[Role], Field(min_length=1, max_length=3)]
    expires: datetime | None = None

    def checked(self, place: str) -> ApiKey:
        if (self.key is None) == (self.sha256 is None):
            raise ConfigError(f"{place}: expected either key or sha256, the SHA-256 of the key in hex")
        if self.expires is not None and self.expires.tzinfo is None:
            raise ConfigError(f"{place}: expires has no time zone: expected a time such as 2027-01-01T00:00:00Z")
        digest = bytes.fromhex(self.sha256) if self.sha256 else digest_of(self.key or "")
        expires = None if self.expires is None else max(0, int(self.expires.timestamp()))
        return ApiKey(self.name, digest, frozenset(self.roles), expires)


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    key: Annotated[list[_Key], Field(min_length=1, max_length=_MAX_KEYS)]


def read_keys(path: Path) -> list[ApiKey]:
    """The keys of a file.

    Raises:
        ConfigError: it cannot be read, or says something that is not understood. No key is shown.
    """
    try:
        found = _File.model_validate(tomllib.loads(read_bounded(path, _MAX_FILE_BYTES, SETTING).decode()))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as err:
        where = _PLACE.search(str(err))  # the rest of the message may show what stands there
        place = where.group() if where else "it cannot be read"
        raise ConfigError(f"{SETTING}={path}: not TOML ({place}); expected tables [[key]]") from None
    except ValidationError as err:
        sentences = (f"{_place(path, problem['loc'])}: {problem['msg']}" for problem in err.errors()[:5])
        raise ConfigError("; ".join(sentences)) from None
    keys = [key.checked(f"{SETTING}={path}, key {number}") for number, key in enumerate(found.key, 1)]
    first: dict[bytes, int] = {}
    for number, key in enumerate(keys, 1):
        if key.digest in first:
            raise ConfigError(
                f"{SETTING}={path}, key {number}: the same key as number {first[key.digest]}; give each once"
            )
        first[key.digest] = number
    return keys


def _place(path: Path, loc: tuple[int | str, ...]) -> str:
    number = next((f", key {part + 1}" for part in loc if isinstance(part, int)), "")
    name = ".".join(str(part) for part in loc[2:]) or "key"
    return f"{SETTING}={path}{number}: {name}"
