"""Where telemetry is kept: `open_store(url)` gives a `Store`, chosen by the URL.

`delta:///path` is a Delta Lake table in a local folder, `s3://bucket/path` and the like one in an object store,
`influxdb://host:port/database` a database of InfluxDB 3.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from telemetry_services.store.base import (
    ALL_GPUS,
    Aggregate,
    ColumnStore,
    Cursor,
    Filters,
    Gpu,
    GroupBy,
    HostCount,
    LineStore,
    NamespaceCount,
    OffsetRange,
    RefusedLine,
    Retention,
    Rows,
    Sample,
    SeriesQuery,
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
    StoreQueryError,
    StoreSchemaError,
    StoreUnavailableError,
    StoreUnwritableError,
    StoreUrlError,
)

__all__ = [
    "ALL_GPUS",
    "Aggregate",
    "ColumnStore",
    "Cursor",
    "Filters",
    "Gpu",
    "GroupBy",
    "HostCount",
    "LineStore",
    "NamespaceCount",
    "OffsetRange",
    "RefusedLine",
    "Retention",
    "Rows",
    "Sample",
    "SeriesQuery",
    "Store",
    "StoreClosedError",
    "StoreConflictError",
    "StoreCorruptError",
    "StoreDeniedError",
    "StoreError",
    "StoreForeignError",
    "StoreFullError",
    "StorePositionError",
    "StoreQueryError",
    "StoreSchemaError",
    "StoreUnavailableError",
    "StoreUnwritableError",
    "StoreUrlError",
    "Summary",
    "open_store",
]

OBJECT_SCHEMES = frozenset({"s3", "s3a", "gs", "az", "adl", "abfs", "abfss"})
"""Of the object stores that deltalake takes."""

_EXPECTED = (
    "expected delta:///absolute/path, delta://relative/path, an object store's, such as s3://bucket/path, or "
    "influxdb://host:port/database (influxdbs:// over TLS)"
)


def open_store(url: str, *, token: str = "", ca_file: Path | None = None) -> ColumnStore | LineStore:
    """Open the store that a URL names; nothing is made, written or asked before the first call.

    Args:
        url: `delta:///absolute/path` or `delta://relative/path` (%-escapes are decoded); a bucket and path with one of
            `OBJECT_SCHEMES`, such as `s3://bucket/path`, with `delta+` in front or not; or
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
    scheme = parts.scheme.removeprefix("delta+")
    if scheme in OBJECT_SCHEMES:
        return _open_object_store(scheme, parts)
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


def _open_object_store(scheme: str, parts: SplitResult) -> ColumnStore:
    place = f"{scheme}://{parts.netloc}{parts.path}"
    if not parts.netloc:
        raise StoreUrlError(f"store {place!r}: no bucket is named; {_EXPECTED}")
    if parts.query or parts.fragment or parts.password:
        raise StoreUrlError(
            f"store {_without_secrets(place)!r}: options and credentials are not part of the URL; give them as the "
            "variables that deltalake reads, such as AWS_ACCESS_KEY_ID and AWS_ENDPOINT_URL"
        )
    # Imported here, as below.
    from telemetry_services.store.delta import DeltaStore
    from telemetry_services.store.object_files import ObjectFiles

    return DeltaStore(ObjectFiles(place))


def _without_secrets(url: str) -> str:
    """Leave out user, password and query, which may hold a token."""
    parts = urlsplit(url)
    scheme = f"{parts.scheme}://" if "://" in url else f"{parts.scheme}:" if parts.scheme else ""
    return f"{scheme}{parts.netloc.rpartition('@')[2]}{parts.path}"
