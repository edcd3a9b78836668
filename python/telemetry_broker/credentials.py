"""What a connection shows to a broker elsewhere, and whom it trusts."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from telemetry_broker import _core
from telemetry_broker.errors import InvalidArgumentError

FilePath: TypeAlias = "str | os.PathLike[str]"


@dataclass(frozen=True, slots=True, repr=False)
class Credentials:
    """A token, or a file with one, and certificates; see ``connect``."""

    token: str | None = None
    token_file: FilePath | None = None
    ca_file: FilePath | None = None
    cert_file: FilePath | None = None
    key_file: FilePath | None = None

    @property
    def certificates(self) -> list[str]:
        """Names of the arguments that only TLS takes, of those that were given."""
        names = ("ca_file", "cert_file", "key_file")
        return [name for name in names if getattr(self, name) is not None]

    def open_channel(
        self, target: str | Sequence[tuple[str, str]], *, tls: bool, follow: bool = False
    ) -> _core.Channel:
        """A channel to an address, or to several brokers' names and addresses, with these credentials.

        Args:
            follow: of several brokers: take over the members that these know of.

        Raises:
            InvalidArgumentError: a file cannot be read or used, or two of the arguments exclude each other.
        """
        if self.token is not None and self.token_file is not None:
            raise InvalidArgumentError("both token and token_file are given: give one of them")
        if (self.cert_file is None) != (self.key_file is None):
            missing = "key_file" if self.key_file is None else "cert_file"
            raise InvalidArgumentError(f"{missing} is missing: a certificate needs both cert_file and key_file")
        identity = None
        if self.cert_file is not None and self.key_file is not None:
            identity = _read("cert_file", self.cert_file), _read("key_file", self.key_file)
        token_file = None if self.token_file is None else os.fspath(self.token_file)
        ca = None if self.ca_file is None else _read("ca_file", self.ca_file)
        if isinstance(target, str):
            return _core.Channel(target, token=self.token, token_file=token_file, tls=tls, ca=ca, identity=identity)
        return _core.Channel.to_many(
            target, token=self.token, token_file=token_file, tls=tls, ca=ca, identity=identity, follow=follow
        )


def _read(name: str, path: FilePath) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InvalidArgumentError(
            f"{name} {os.fspath(path)!r} cannot be read ({error.strerror}): give a PEM file that this user may read"
        ) from error
