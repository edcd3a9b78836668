"""The file of TOKENS_FILE: which clients there are, by which tokens they are known, and what they may do.

[[token]]
client = "streamer"
sha256 = "9f86d081..."       # of the token; or token = "..." as it is
produce = ["telemetry"]      # topics, or beginnings of their names with a `*`
consume = []
admin = []
expires = 2027-01-01T00:00:00Z
"""

import hashlib
import re
import tomllib
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from telemetry_services.errors import ConfigError
from telemetry_services.security.files import read_bounded

SERVICE_CLIENT: Final = "service"
"""The client that SERVICE_TOKEN stands for."""
SETTING: Final = "TOKENS_FILE"

_MAX_TOKENS: Final = 1000
_MAX_FILE_BYTES: Final = 1 << 20
_MIN_TOKEN: Final = 16
_ALL: Final = ["*"]
_TOKEN: Final = re.compile(r"[!-+\--~]{16,512}")  # visible ASCII without the comma, which stands between tokens

Grant = tuple[str, bytes, int | None, list[str], list[str], list[str]]
"""As `_core.Access.replace` takes it."""

_Patterns = Annotated[
    list[Annotated[str, Field(pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]{0,199}\*?|\*)$")]], Field(max_length=100)
]


class _Token(BaseModel):
    """One token of a client, which may have several."""

    model_config = ConfigDict(extra="forbid", strict=True)

    client: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
    token: Annotated[str, Field(min_length=_MIN_TOKEN, max_length=512)] | None = None
    sha256: Annotated[str, Field(pattern=r"^[0-9A-Fa-f]{64}$")] | None = None
    produce: _Patterns = []
    consume: _Patterns = []
    admin: _Patterns = []
    expires: datetime | None = None

    def grant(self, place: str) -> Grant:
        if (self.token is None) == (self.sha256 is None):
            raise ConfigError(f"{place}: expected either token or sha256, the SHA-256 of the token in hex")
        if self.expires is not None and self.expires.tzinfo is None:
            raise ConfigError(f"{place}: expires has no time zone: expected a time such as 2027-01-01T00:00:00Z")
        if self.token is not None and not _TOKEN.fullmatch(self.token):
            raise ConfigError(f"{place}: token holds what no client can send: expected visible ASCII without commas")
        digest = bytes.fromhex(self.sha256) if self.sha256 else digest_of(self.token or "")
        expires = None if self.expires is None else max(0, int(self.expires.astimezone(UTC).timestamp()))
        return self.client, digest, expires, self.produce, self.consume, self.admin


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    token: Annotated[list[_Token], Field(min_length=1, max_length=_MAX_TOKENS)]


def digest_of(token: str) -> bytes:
    """What is kept of a token."""
    return hashlib.sha256(token.encode()).digest()


def service_grants(tokens: Iterable[str]) -> list[Grant]:
    """Grants of every role on every topic.

    Raises:
        ConfigError: a token that is too short, or cannot be sent. It is not shown.
    """
    grants: list[Grant] = []
    for number, token in enumerate(tokens, 1):
        if not _TOKEN.fullmatch(token):
            raise ConfigError(
                f"token {number} of SERVICE_TOKEN cannot be used: expected {_MIN_TOKEN} to 512 visible ASCII "
                "characters; make one with `openssl rand -hex 32`"
            )
        grants.append((SERVICE_CLIENT, digest_of(token), None, _ALL, _ALL, _ALL))
    return grants


def read_tokens(path: Path) -> list[Grant]:
    """The grants of a file.

    Raises:
        ConfigError: it cannot be read, or says something that is not understood. No token is shown.
    """
    try:
        found = _File.model_validate(tomllib.loads(read_bounded(path, _MAX_FILE_BYTES, SETTING).decode()))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as err:
        raise ConfigError(f"{SETTING}={path}: not TOML ({_without_text(err)}); expected tables [[token]]") from None
    except ValidationError as err:
        raise ConfigError("; ".join(_sentence(path, dict(problem)) for problem in err.errors()[:5])) from None
    grants = [token.grant(_place(path, number)) for number, token in enumerate(found.token)]
    first: dict[bytes, int] = {}
    for number, (_, digest, *_rest) in enumerate(grants):
        if digest in first:
            raise ConfigError(f"{_place(path, number)}: the same token as number {first[digest] + 1}; give each once")
        first[digest] = number
    return grants


def _place(path: Path, number: int) -> str:
    return f"{SETTING}={path}, token {number + 1}"


def _without_text(err: Exception) -> str:
    """A decoder's message may show what stands in the file; only where it is, is told."""
    place = re.search(r"at line \d+, column \d+|at end of document|position \d+", str(err))
    return place.group() if place else "it cannot be read"


def _sentence(path: Path, problem: dict[str, object]) -> str:
    loc = problem["loc"]
    assert isinstance(loc, tuple)  # noqa: S101 (pydantic's promise, which its types leave open)
    number = next((part for part in loc if isinstance(part, int)), None)
    place = f"{SETTING}={path}" if number is None else _place(path, number)
    name = ".".join(str(part) for part in loc[2:]) or "token"
    return f"{place}: {name}: {problem['msg']}"
