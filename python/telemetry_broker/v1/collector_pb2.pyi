from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CollectedPartition(_message.Message):
    __slots__ = ("partition", "log_id", "stored_end_offset", "pending_records")
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    LOG_ID_FIELD_NUMBER: _ClassVar[int]
    STORED_END_OFFSET_FIELD_NUMBER: _ClassVar[int]
    PENDING_RECORDS_FIELD_NUMBER: _ClassVar[int]
    partition: int
    log_id: bytes
    stored_end_offset: int
    pending_records: int
    def __init__(self, partition: _Optional[int] = ..., log_id: _Optional[bytes] = ..., stored_end_offset: _Optional[int] = ..., pending_records: _Optional[int] = ...) -> None: ...

class GetStatusResponse(_message.Message):
    __slots__ = ("topic", "group", "store", "paused", "records_stored", "rows_stored", "samples_stored", "records_rejected", "commits", "last_error", "partitions")
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    STORE_FIELD_NUMBER: _ClassVar[int]
    PAUSED_FIELD_NUMBER: _ClassVar[int]
    RECORDS_STORED_FIELD_NUMBER: _ClassVar[int]
    ROWS_STORED_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_STORED_FIELD_NUMBER: _ClassVar[int]
    RECORDS_REJECTED_FIELD_NUMBER: _ClassVar[int]
    COMMITS_FIELD_NUMBER: _ClassVar[int]
    LAST_ERROR_FIELD_NUMBER: _ClassVar[int]
    PARTITIONS_FIELD_NUMBER: _ClassVar[int]
    topic: str
    group: str
    store: str
    paused: bool
    records_stored: int
    rows_stored: int
    samples_stored: int
    records_rejected: int
    commits: int
    last_error: str
    partitions: _containers.RepeatedCompositeFieldContainer[CollectedPartition]
    def __init__(self, topic: _Optional[str] = ..., group: _Optional[str] = ..., store: _Optional[str] = ..., paused: _Optional[bool] = ..., records_stored: _Optional[int] = ..., rows_stored: _Optional[int] = ..., samples_stored: _Optional[int] = ..., records_rejected: _Optional[int] = ..., commits: _Optional[int] = ..., last_error: _Optional[str] = ..., partitions: _Optional[_Iterable[_Union[CollectedPartition, _Mapping]]] = ...) -> None: ...

class FlushRequest(_message.Message):
    __slots__ = ("timeout_ms",)
    TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    timeout_ms: int
    def __init__(self, timeout_ms: _Optional[int] = ...) -> None: ...

class FlushResponse(_message.Message):
    __slots__ = ("records",)
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    records: int
    def __init__(self, records: _Optional[int] = ...) -> None: ...

class PauseRequest(_message.Message):
    __slots__ = ("paused",)
    PAUSED_FIELD_NUMBER: _ClassVar[int]
    paused: bool
    def __init__(self, paused: _Optional[bool] = ...) -> None: ...

class PauseResponse(_message.Message):
    __slots__ = ("paused",)
    PAUSED_FIELD_NUMBER: _ClassVar[int]
    paused: bool
    def __init__(self, paused: _Optional[bool] = ...) -> None: ...
