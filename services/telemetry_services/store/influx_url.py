"""`influxdb://host:port/database`, and `influxdbs://` over TLS, with options behind a question mark.

no_sync   true: a write is answered before InfluxDB has it on disk, so that a crash of InfluxDB can lose what was
          acked within its last second; false (default): after that
gzip      whether requests are compressed; default: unless the server is on this machine
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

from telemetry_services.store.errors import StoreUrlError

DEFAULT_PORT: Final = 8181

_EXPECTED: Final = (
    "expected influxdb://host:8181/database (influxdbs:// over TLS), such as influxdb://127.0.0.1/telemetry"
)
_OPTIONS: Final = ("no_sync", "gzip")


@dataclass(frozen=True, slots=True)
class InfluxUrl:
    """What such a URL says."""

    host: str
    port: int
    database: str
    tls: bool = False
    no_sync: bool = False
    gzip: bool = False

    @classmethod
    def parse(cls, url: str) -> InfluxUrl:
        """Read a URL.

        Raises:
            StoreUrlError: it is none; the message shows nothing that may be a secret.
        """
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port or DEFAULT_PORT
        except ValueError as error:
            raise StoreUrlError(f"store: not a URL ({error}); {_EXPECTED}") from error
        shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
        if "@" in parts.netloc:
            raise StoreUrlError(f"store {shown!r}: what stands before the @ gets into logs; give it as INFLUXDB_TOKEN")
        database = unquote(parts.path.removeprefix("/").removesuffix("/"))
        if not host or not database or "/" in database or parts.fragment:
            what = (
                "no host is named"
                if not host
                else "no database is named"
                if not database
                else "the path is no database"
            )
            raise StoreUrlError(f"store {shown!r}: {what}; {_EXPECTED}")
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        if unknown := [name for name in options if name not in _OPTIONS]:
            raise StoreUrlError(f"store {shown!r}: there is no option {unknown[0]!r}; there are {', '.join(_OPTIONS)}")
        return cls(
            host=host,
            port=port,
            database=database,
            tls=parts.scheme == "influxdbs",
            no_sync=_flag(shown, "no_sync", options.get("no_sync", "false")),
            gzip=_flag(shown, "gzip", options.get("gzip", str(not _is_here(host)).lower())),
        )

    @property
    def address(self) -> str:
        """Where the server is, as influxdb3-python wants it: `http://host:port`."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}"

    def __str__(self) -> str:
        """The URL without its options."""
        return f"{self.address.replace('http', 'influxdb', 1)}/{self.database}"


def _flag(shown: str, name: str, value: str) -> bool:
    if value not in ("true", "false"):
        raise StoreUrlError(f"store {shown!r}: option {name} is {value!r}; expected true or false")
    return value == "true"


def _is_here(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
