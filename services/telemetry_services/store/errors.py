"""What can go wrong with a store: a class per decision of the caller. Codes on the wire: `telemetry_services.codes`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from telemetry_broker.errors import BrokerError


class StoreError(BrokerError):
    """A store cannot do what it was asked for: its disk or network failed."""

    default_code = "store.io"


class StoreUrlError(StoreError):
    """The URL does not name a store that there is. Mend it."""

    default_code = "store.url"


class StoreUnwritableError(StoreError):
    """The place cannot be made or written. Give the right to write, then retry."""

    default_code = "store.unwritable"


class StoreUnavailableError(StoreError):
    """The store's server does not answer, or is overloaded. Safe to retry."""

    default_code = "store.unavailable"


class StoreDeniedError(StoreError):
    """The store's server does not know the token, or the token has no right to this. Give one that has."""

    default_code = "store.denied"


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


class StoreQueryError(StoreError):
    """The question cannot be answered as it is asked. The message says what to ask instead."""

    default_code = "store.query"


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
