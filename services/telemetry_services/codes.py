"""The one table of every code that a process of ours may answer with: library, services and stores.

gRPC takes the status from here, and the REST API derives its own from that.
"""

from typing import Final

import grpc

from telemetry_broker.errors import CODES as LIBRARY_CODES
from telemetry_broker.errors import CodeInfo, StatusCode
from telemetry_services import errors
from telemetry_services.store import errors as store

CODES: Final[dict[str, CodeInfo]] = {
    **LIBRARY_CODES,
    "service.failed": CodeInfo(errors.ServiceError, StatusCode.INTERNAL),
    "config.invalid": CodeInfo(errors.ConfigError, StatusCode.INVALID_ARGUMENT),
    "config.insecure": CodeInfo(errors.ConfigError, StatusCode.FAILED_PRECONDITION),
    "config.missing": CodeInfo(errors.ConfigError, StatusCode.INVALID_ARGUMENT),
    "config.unsupported": CodeInfo(errors.ConfigError, StatusCode.UNIMPLEMENTED),
    "address.unusable": CodeInfo(errors.AddressError, StatusCode.FAILED_PRECONDITION),
    "port.in_use": CodeInfo(errors.PortInUseError, StatusCode.FAILED_PRECONDITION),
    "api.key": CodeInfo(errors.ApiKeyError, StatusCode.FAILED_PRECONDITION),
    "source.unreadable": CodeInfo(errors.SourceError, StatusCode.FAILED_PRECONDITION),
    "source.no_rows": CodeInfo(errors.SourceError, StatusCode.INVALID_ARGUMENT),
    "source.incomplete": CodeInfo(errors.SourceError, StatusCode.FAILED_PRECONDITION),
    "store.io": CodeInfo(store.StoreError, StatusCode.INTERNAL),
    "store.url": CodeInfo(store.StoreUrlError, StatusCode.INVALID_ARGUMENT),
    "store.unwritable": CodeInfo(store.StoreUnwritableError, StatusCode.FAILED_PRECONDITION),
    "store.unavailable": CodeInfo(store.StoreUnavailableError, StatusCode.UNAVAILABLE),
    "store.denied": CodeInfo(store.StoreDeniedError, StatusCode.FAILED_PRECONDITION),
    "store.full": CodeInfo(store.StoreFullError, StatusCode.RESOURCE_EXHAUSTED),
    "store.foreign": CodeInfo(store.StoreForeignError, StatusCode.FAILED_PRECONDITION),
    "store.corrupt": CodeInfo(store.StoreCorruptError, StatusCode.DATA_LOSS),
    "store.conflict": CodeInfo(store.StoreConflictError, StatusCode.ABORTED),
    "store.closed": CodeInfo(store.StoreClosedError, StatusCode.CANCELLED),
    "store.query": CodeInfo(store.StoreQueryError, StatusCode.INVALID_ARGUMENT),
    "store.schema": CodeInfo(store.StoreSchemaError, StatusCode.INVALID_ARGUMENT),
    "store.position": CodeInfo(store.StorePositionError, StatusCode.ABORTED),
}


def status_of(code: str) -> grpc.StatusCode:
    """The gRPC status of a code; one that a newer broker invented is INTERNAL."""
    info = CODES.get(code)
    return grpc.StatusCode[info.status.name] if info else grpc.StatusCode.INTERNAL
