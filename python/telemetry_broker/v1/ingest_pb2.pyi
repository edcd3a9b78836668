from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Precision(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PRECISION_UNSPECIFIED: _ClassVar[Precision]
    PRECISION_NANOSECOND: _ClassVar[Precision]
    PRECISION_MICROSECOND: _ClassVar[Precision]
    PRECISION_MILLISECOND: _ClassVar[Precision]
    PRECISION_SECOND: _ClassVar[Precision]
PRECISION_UNSPECIFIED: Precision
PRECISION_NANOSECOND: Precision
PRECISION_MICROSECOND: Precision
PRECISION_MILLISECOND: Precision
PRECISION_SECOND: Precision

class WriteRequest(_message.Message):
    __slots__ = ("line_protocol", "precision", "topic", "all_or_nothing")
    LINE_PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    PRECISION_FIELD_NUMBER: _ClassVar[int]
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    ALL_OR_NOTHING_FIELD_NUMBER: _ClassVar[int]
    line_protocol: bytes
    precision: Precision
    topic: str
    all_or_nothing: bool
    def __init__(self, line_protocol: _Optional[bytes] = ..., precision: _Optional[_Union[Precision, str]] = ..., topic: _Optional[str] = ..., all_or_nothing: _Optional[bool] = ...) -> None: ...

class RejectedLine(_message.Message):
    __slots__ = ("line_number", "reason", "line")
    LINE_NUMBER_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    LINE_FIELD_NUMBER: _ClassVar[int]
    line_number: int
    reason: str
    line: bytes
    def __init__(self, line_number: _Optional[int] = ..., reason: _Optional[str] = ..., line: _Optional[bytes] = ...) -> None: ...

class WriteResponse(_message.Message):
    __slots__ = ("accepted", "rejected", "rejected_total")
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    REJECTED_FIELD_NUMBER: _ClassVar[int]
    REJECTED_TOTAL_FIELD_NUMBER: _ClassVar[int]
    accepted: int
    rejected: _containers.RepeatedCompositeFieldContainer[RejectedLine]
    rejected_total: int
    def __init__(self, accepted: _Optional[int] = ..., rejected: _Optional[_Iterable[_Union[RejectedLine, _Mapping]]] = ..., rejected_total: _Optional[int] = ...) -> None: ...
