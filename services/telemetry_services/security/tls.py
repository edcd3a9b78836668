"""The certificates of a server, for both of its ports."""

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from telemetry_services.errors import ConfigError
from telemetry_services.security.files import read_bounded

_MAX_PEM_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Certificates:
    """What a server shows, and of whom its clients must have a certificate. The bytes are PEM."""

    chain: bytes
    key: bytes
    client_ca: bytes | None


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """Where they are."""

    chain: Path
    key: Path
    client_ca: Path | None

    @property
    def paths(self) -> list[Path]:
        return [path for path in (self.chain, self.key, self.client_ca) if path is not None]

    def read(self) -> Certificates:
        """Raises ConfigError."""
        return Certificates(
            read_bounded(self.chain, _MAX_PEM_BYTES, "TLS_CERT_FILE"),
            read_bounded(self.key, _MAX_PEM_BYTES, "TLS_KEY_FILE"),
            None if self.client_ca is None else read_bounded(self.client_ca, _MAX_PEM_BYTES, "TLS_CLIENT_CA_FILE"),
        )

    def __str__(self) -> str:
        shown = f"TLS_CERT_FILE={self.chain}, TLS_KEY_FILE={self.key}"
        return shown if self.client_ca is None else f"{shown}, TLS_CLIENT_CA_FILE={self.client_ca}"


class HttpTls(ssl.SSLContext):
    """The TLS of an HTTP port. Each connection has the certificates of the moment in which it began.

    A client may come without a certificate: probes have none. What needs one asks whether there was one.
    """

    _current: ssl.SSLContext

    def __new__(cls) -> Self:
        return super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)

    def use(self, files: CertificateFiles) -> None:
        """Takes up the files as they are now; raises ConfigError and changes nothing where they cannot be used."""
        fresh = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        fresh.minimum_version = ssl.TLSVersion.TLSv1_2
        fresh.set_alpn_protocols(["http/1.1"])
        try:
            fresh.load_cert_chain(files.chain, files.key, password=_no_password)
            if files.client_ca is not None:
                fresh.load_verify_locations(files.client_ca)
                fresh.verify_mode = ssl.CERT_OPTIONAL
        except (OSError, ssl.SSLError, ValueError) as err:
            raise ConfigError(f"{files}: they cannot be used ({err}); give PEM files that belong together") from err
        self._current = fresh

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        """What asyncio begins a connection with."""
        return self._current.wrap_bio(*args, **kwargs)


def _no_password() -> str:
    raise ValueError("the private key is encrypted, and there is nobody to ask for its password")
