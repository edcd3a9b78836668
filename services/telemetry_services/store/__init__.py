"""Where telemetry is kept: `open_store(url)` gives a `Store`, chosen by the URL.

`delta:///path` is a Delta Lake table in a local folder, `influxdb://host:port/database` a database of InfluxDB 3.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from telemetry_services.store.base import (
    ColumnStore,
    Gpu,
    HostCount,
    LineStore,
    NamespaceCount,
    OffsetRange,
    RefusedLine,
    Rows,
    Sample,
    Store,
    Summary,
)
from telemetry_services.store.errors import (
    StoreClosedError,
    StoreConflictError,
    StoreCorruptError,
    StoreDeniedError,
    StoreError,
    StoreForeignError,
    StoreFullError,
    StorePositionError,
    StoreSchemaError,
    StoreUnavailableError,
    StoreUnwritableError,
    StoreUrlError,
)

__all__ = [
    "ColumnStore",
    "Gpu",
    "HostCount",
    "LineStore",
    "NamespaceCount",
    "OffsetRange",
    "RefusedLine",
    "Rows",
    "Sample",
    "Store",
    "StoreClosedError",
    "StoreConflictError",
    "StoreCorruptError",
    "StoreDeniedError",
    "StoreError",
    "StoreForeignError",
    "StoreFullError",
    "StorePositionError",
    "StoreSchemaError",
    "StoreUnavailableError",
    "StoreUnwritableError",
    "StoreUrlError",
    "Summary",
    "open_store",
]

_EXPECTED = (
    "expected delta:///absolute/path, delta://relative/path, or influxdb://host:port/database (influxdbs:// over TLS)"
)


def open_store(url: str, *, token: str = "", ca_file: Path | None = None) -> ColumnStore | LineStore:
    """Open the store that a URL names; nothing is made, written or asked before the first call.

    Args:
        url: `delta:///absolute/path` or `delta://relative/path` (%-escapes are decoded), or
            `influxdb://host:port/database`, whose options `telemetry_services.store.influx_url` lists. A store that is
            not there yet reads as empty.
        token: for InfluxDB; empty: none.
        ca_file: authorities, as PEM, to trust at an `influxdbs://` server; None: those of this machine.

    Raises:
        StoreUrlError: the URL names no store that there is.
        StoreForeignError: the path is a file, or a folder of something else. (A Delta table of another layout is
            told by the first call that opens it.)
    """
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise StoreUrlError(f"store: not a URL ({error}); {_EXPECTED}") from error
    if parts.scheme in ("influxdb", "influxdbs"):
        from telemetry_services.store.influx import InfluxStore
        from telemetry_services.store.influx_url import InfluxUrl

        return InfluxStore(InfluxUrl.parse(url), token=token, ca_file=ca_file)
    if parts.scheme != "delta":
        problem = f"unknown scheme {parts.scheme!r}" if parts.scheme else "no scheme"
        raise StoreUrlError(f"store {_without_secrets(url)!r}: {problem}; {_EXPECTED}")
    if parts.query or parts.fragment:
        raise StoreUrlError(f"store {url!r}: a path with ? or # writes them as %3F and %23; {_EXPECTED}")
    path = unquote(parts.netloc + parts.path)
    if not path.strip("/") or "\0" in path:
        raise StoreUrlError(f"store {url!r}: no folder is named; {_EXPECTED}")
    if "%" in path:
        raise StoreUrlError(f"store {url!r}: a folder whose path holds % cannot hold a Delta table; name another")
    # Imported here: pyarrow, deltalake and datafusion take 100 MB and half a second, which only their users pay.
    from telemetry_services.store.delta import DeltaStore

    return DeltaStore(Path(path).absolute())


def _without_secrets(url: str) -> str:
    """Leave out user, password and query, which may hold a token."""
    parts = urlsplit(url)
    scheme = f"{parts.scheme}://" if "://" in url else f"{parts.scheme}:" if parts.scheme else ""
    return f"{scheme}{parts.netloc.rpartition('@')[2]}{parts.path}"
