"""Every error of the broker, the library and the services: one hierarchy, one table of codes.

A class stands for a decision of the caller (mend the request, wait and retry, reopen, ask a person); the ``code`` says
exactly what happened and never changes its meaning. ``CODES`` is the one place that maps a code to its class and to the
gRPC status it travels as; the Rust core raises through it too.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final, NamedTuple


class BrokerError(Exception):
    """Base of all errors.

    Attributes:
        code: stable identifier such as ``topic.not_found``.
        retry_after: seconds after which the same call may succeed; None when a retry alone does not help.
        field: the field of the request that is wrong, such as ``config.partitions``; None where it is not one alone.
    """

    default_code = "internal"

    def __init__(
        self, message: str, *, code: str | None = None, retry_after: float | None = None, field: str | None = None
    ) -> None:
        super().__init__(message)
        self.code = code or self.default_code
        self.retry_after = retry_after
        self.field = field

    def __str__(self) -> str:
        return f"{self.code}: {self.args[0]}"

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.args[0], self.code, self.retry_after, self.field)

    @property
    def message(self) -> str:
        """The text without the code."""
        return str(self.args[0])


def _rebuild(
    cls: type[BrokerError], message: str, code: str, retry_after: float | None, field: str | None
) -> BrokerError:
    error = cls(message, code=code, retry_after=retry_after)
    error.field = field
    return error


class InvalidArgumentError(BrokerError):
    """The request itself is wrong; nothing was done. Mend it."""

    default_code = "invalid.argument"


class NotFoundError(BrokerError):
    """A topic, partition, group or position that does not exist. Make it, or correct the name."""

    default_code = "topic.not_found"


class ConflictError(BrokerError):
    """What exists does not fit the request: another configuration, mode or version."""

    default_code = "topic.exists"


class FullError(BrokerError):
    """No room for more records; nothing was appended. Safe to retry after ``retry_after`` seconds."""

    default_code = "log.full"


class CorruptError(BrokerError):
    """Stored bytes are damaged. The message names the file, the place and the command that mends it."""

    default_code = "log.corrupt"


class StorageError(BrokerError):
    """The disk failed: a read, write or sync; or an earlier one did and the partition must be reopened."""

    default_code = "data.io"


class InUseError(BrokerError):
    """Another process has the folder open. The message says how to share it."""

    default_code = "data.in_use"


class FormatError(BrokerError):
    """The folder was written by a newer version, or is not a broker's."""

    default_code = "data.format"


class StaleLeaseError(BrokerError):
    """Records were since given to someone else, acked under another lease, or passed by a seek; the rest was done.

    Of several brokers also: the one that gave them went away, and may or may not have done it.
    """

    default_code = "lease.stale"


class UnavailableError(BrokerError):
    """The broker cannot be reached or does not take this now. Retry later, or elsewhere."""

    default_code = "broker.unavailable"


class UnauthenticatedError(BrokerError):
    """The broker asks for a token, and none was sent, or one that is wrong, withdrawn or expired. Get a valid one."""

    default_code = "auth.unauthenticated"


class PermissionDeniedError(BrokerError):
    """This client may not do this. The message names the role that it takes: ask for it."""

    default_code = "auth.denied"


class ClosedError(BrokerError):
    """The broker, producer or consumer was closed."""

    default_code = "broker.closed"


class ProduceUnknownError(BrokerError):
    """A batch was sent and not answered in time: it may or may not be stored."""

    default_code = "produce.unknown"

    broker: str = ""
    """The broker that may have it, where a proxy said so."""


class TimedOutError(BrokerError):
    """The deadline passed before the call could be made; nothing was done."""

    default_code = "timeout"


class SourceError(BrokerError):
    """A file of samples that cannot be used. Nothing of it was sent; the message says what to mend."""

    default_code = "csv.unreadable"


class UnsupportedError(BrokerError):
    """This broker does not know the call or the option."""

    default_code = "unsupported"


class StatusCode(IntEnum):
    """gRPC's status codes: https://grpc.io/docs/guides/status-codes/.

    They are here by themselves because importing grpcio takes longer than importing all of this library. A number that
    is none of them counts as UNKNOWN.
    """

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16

    @classmethod
    def _missing_(cls, value: object) -> StatusCode:  # noqa: ARG003 (part of the signature)
        return cls.UNKNOWN


class CodeInfo(NamedTuple):
    """What a code means to a caller and on the wire."""

    error: type[BrokerError]
    status: StatusCode


CODES: Final[dict[str, CodeInfo]] = {
    "internal": CodeInfo(BrokerError, StatusCode.INTERNAL),
    "invalid.argument": CodeInfo(InvalidArgumentError, StatusCode.INVALID_ARGUMENT),
    "invalid.name": CodeInfo(InvalidArgumentError, StatusCode.INVALID_ARGUMENT),
    "invalid.batch": CodeInfo(InvalidArgumentError, StatusCode.INVALID_ARGUMENT),
    "invalid.lease": CodeInfo(InvalidArgumentError, StatusCode.INVALID_ARGUMENT),
    "invalid.url": CodeInfo(InvalidArgumentError, StatusCode.INVALID_ARGUMENT),
    "topic.not_found": CodeInfo(NotFoundError, StatusCode.NOT_FOUND),
    "partition.not_found": CodeInfo(NotFoundError, StatusCode.NOT_FOUND),
    "group.not_found": CodeInfo(NotFoundError, StatusCode.NOT_FOUND),
    "position.log_id": CodeInfo(NotFoundError, StatusCode.NOT_FOUND),
    "position.out_of_range": CodeInfo(InvalidArgumentError, StatusCode.OUT_OF_RANGE),
    "topic.exists": CodeInfo(ConflictError, StatusCode.ALREADY_EXISTS),
    "group.exists": CodeInfo(ConflictError, StatusCode.ALREADY_EXISTS),
    "topic.version": CodeInfo(ConflictError, StatusCode.FAILED_PRECONDITION),
    "group.mode": CodeInfo(ConflictError, StatusCode.FAILED_PRECONDITION),
    "producer.name": CodeInfo(ConflictError, StatusCode.FAILED_PRECONDITION),
    "log.full": CodeInfo(FullError, StatusCode.RESOURCE_EXHAUSTED),
    "log.corrupt": CodeInfo(CorruptError, StatusCode.DATA_LOSS),
    "log.poisoned": CodeInfo(StorageError, StatusCode.INTERNAL),
    "data.io": CodeInfo(StorageError, StatusCode.INTERNAL),
    "data.in_use": CodeInfo(InUseError, StatusCode.FAILED_PRECONDITION),
    "data.format": CodeInfo(FormatError, StatusCode.FAILED_PRECONDITION),
    "lease.stale": CodeInfo(StaleLeaseError, StatusCode.FAILED_PRECONDITION),
    "broker.unavailable": CodeInfo(UnavailableError, StatusCode.UNAVAILABLE),
    "broker.draining": CodeInfo(UnavailableError, StatusCode.UNAVAILABLE),
    "auth.unauthenticated": CodeInfo(UnauthenticatedError, StatusCode.UNAUTHENTICATED),
    "auth.denied": CodeInfo(PermissionDeniedError, StatusCode.PERMISSION_DENIED),
    "limit.exceeded": CodeInfo(UnavailableError, StatusCode.RESOURCE_EXHAUSTED),
    "broker.closed": CodeInfo(ClosedError, StatusCode.CANCELLED),
    "produce.unknown": CodeInfo(ProduceUnknownError, StatusCode.UNKNOWN),
    "timeout": CodeInfo(TimedOutError, StatusCode.DEADLINE_EXCEEDED),
    "csv.not_found": CodeInfo(SourceError, StatusCode.NOT_FOUND),
    "csv.unreadable": CodeInfo(SourceError, StatusCode.FAILED_PRECONDITION),
    "csv.empty": CodeInfo(SourceError, StatusCode.INVALID_ARGUMENT),
    "csv.header": CodeInfo(SourceError, StatusCode.INVALID_ARGUMENT),
    "csv.shrunk": CodeInfo(SourceError, StatusCode.FAILED_PRECONDITION),
    "csv.rejects": CodeInfo(SourceError, StatusCode.FAILED_PRECONDITION),
    "unsupported": CodeInfo(UnsupportedError, StatusCode.UNIMPLEMENTED),
}
"""Every code of the broker and the library. Services add theirs under prefixes of their own."""


def error_from_code(code: str, message: str, retry_after: float | None = None, field: str | None = None) -> BrokerError:
    """Makes the error of a code; one that a newer broker invented becomes a plain ``BrokerError`` that keeps it."""
    info = CODES.get(code)
    return (info.error if info else BrokerError)(message, code=code, retry_after=retry_after, field=field)
