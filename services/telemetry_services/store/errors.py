"""What can go wrong with a store: a class per decision of the caller, and the gRPC status of each code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import grpc

from telemetry_broker.errors import BrokerError, CodeInfo


class StoreError(BrokerError):
    """A store cannot do what it was asked for: its disk or network failed."""

    default_code = "store.io"


class StoreUrlError(StoreError):
    """The URL does not name a store that there is. Mend it."""

    default_code = "store.url"


class StoreUnwritableError(StoreError):
    """The place cannot be made or written. Give the right to write, then retry."""

    default_code = "store.unwritable"


class StoreFullError(StoreError):
    """No space is left. Safe to retry."""

    default_code = "store.full"


class StoreForeignError(StoreError):
    """The place holds something that is not a store of ours. Choose another one."""

    default_code = "store.foreign"


class StoreCorruptError(StoreError):
    """The store's own files cannot be read. The message names the place."""

    default_code = "store.corrupt"


class StoreConflictError(StoreError):
    """Other writers kept committing first. Safe to retry."""

    default_code = "store.conflict"


class StoreClosedError(StoreError):
    """The store was closed."""

    default_code = "store.closed"


class StoreSchemaError(StoreError):
    """Rows that the store will never take. Put them aside; a retry does not help.

    Attributes:
        columns: the columns that do not fit.
    """

    default_code = "store.schema"

    def __init__(
        self, message: str, *, columns: Sequence[str] = (), code: str | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message, code=code, retry_after=retry_after)
        self.columns = list(columns)


class StorePositionError(StoreError):
    """The store stands elsewhere than the writer believed. Seek to the stored positions and go on from there.

    Attributes:
        positions: the stored next offset of each log that did not match.
    """

    default_code = "store.position"

    def __init__(
        self,
        message: str,
        *,
        positions: Mapping[str, int] | None = None,
        code: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, code=code, retry_after=retry_after)
        self.positions = dict(positions or {})


CODES: Final[dict[str, CodeInfo]] = {
    "store.io": CodeInfo(StoreError, grpc.StatusCode.INTERNAL),
    "store.url": CodeInfo(StoreUrlError, grpc.StatusCode.INVALID_ARGUMENT),
    "store.unwritable": CodeInfo(StoreUnwritableError, grpc.StatusCode.FAILED_PRECONDITION),
    "store.full": CodeInfo(StoreFullError, grpc.StatusCode.RESOURCE_EXHAUSTED),
    "store.foreign": CodeInfo(StoreForeignError, grpc.StatusCode.FAILED_PRECONDITION),
    "store.corrupt": CodeInfo(StoreCorruptError, grpc.StatusCode.DATA_LOSS),
    "store.conflict": CodeInfo(StoreConflictError, grpc.StatusCode.ABORTED),
    "store.closed": CodeInfo(StoreClosedError, grpc.StatusCode.CANCELLED),
    "store.schema": CodeInfo(StoreSchemaError, grpc.StatusCode.INVALID_ARGUMENT),
    "store.position": CodeInfo(StorePositionError, grpc.StatusCode.ABORTED),
}
"""The codes of stores, in the shape of `telemetry_broker.errors.CODES`."""
