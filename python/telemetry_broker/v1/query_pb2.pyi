from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Aggregation(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    AGGREGATION_UNSPECIFIED: _ClassVar[Aggregation]
    AGGREGATION_MEAN: _ClassVar[Aggregation]
    AGGREGATION_MIN: _ClassVar[Aggregation]
    AGGREGATION_MAX: _ClassVar[Aggregation]
    AGGREGATION_LAST: _ClassVar[Aggregation]
    AGGREGATION_P95: _ClassVar[Aggregation]
AGGREGATION_UNSPECIFIED: Aggregation
AGGREGATION_MEAN: Aggregation
AGGREGATION_MIN: Aggregation
AGGREGATION_MAX: Aggregation
AGGREGATION_LAST: Aggregation
AGGREGATION_P95: Aggregation

class GpuFilter(_message.Message):
    __slots__ = ("ids", "hostname", "namespace", "pod", "model_name")
    IDS_FIELD_NUMBER: _ClassVar[int]
    HOSTNAME_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    POD_FIELD_NUMBER: _ClassVar[int]
    MODEL_NAME_FIELD_NUMBER: _ClassVar[int]
    ids: _containers.RepeatedScalarFieldContainer[str]
    hostname: str
    namespace: str
    pod: str
    model_name: str
    def __init__(self, ids: _Optional[_Iterable[str]] = ..., hostname: _Optional[str] = ..., namespace: _Optional[str] = ..., pod: _Optional[str] = ..., model_name: _Optional[str] = ...) -> None: ...

class Gpu(_message.Message):
    __slots__ = ("device_id", "gpu_id", "uuid", "model_name", "hostname", "container", "pod", "namespace", "last_seen_ns")
    DEVICE_ID_FIELD_NUMBER: _ClassVar[int]
    GPU_ID_FIELD_NUMBER: _ClassVar[int]
    UUID_FIELD_NUMBER: _ClassVar[int]
    MODEL_NAME_FIELD_NUMBER: _ClassVar[int]
    HOSTNAME_FIELD_NUMBER: _ClassVar[int]
    CONTAINER_FIELD_NUMBER: _ClassVar[int]
    POD_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    LAST_SEEN_NS_FIELD_NUMBER: _ClassVar[int]
    device_id: str
    gpu_id: str
    uuid: str
    model_name: str
    hostname: str
    container: str
    pod: str
    namespace: str
    last_seen_ns: int
    def __init__(self, device_id: _Optional[str] = ..., gpu_id: _Optional[str] = ..., uuid: _Optional[str] = ..., model_name: _Optional[str] = ..., hostname: _Optional[str] = ..., container: _Optional[str] = ..., pod: _Optional[str] = ..., namespace: _Optional[str] = ..., last_seen_ns: _Optional[int] = ...) -> None: ...

class ListGpusRequest(_message.Message):
    __slots__ = ("filter", "page_size", "page_token")
    FILTER_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    filter: GpuFilter
    page_size: int
    page_token: str
    def __init__(self, filter: _Optional[_Union[GpuFilter, _Mapping]] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListGpusResponse(_message.Message):
    __slots__ = ("gpus", "next_page_token")
    GPUS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    gpus: _containers.RepeatedCompositeFieldContainer[Gpu]
    next_page_token: str
    def __init__(self, gpus: _Optional[_Iterable[_Union[Gpu, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class GetTelemetryRequest(_message.Message):
    __slots__ = ("gpu_id", "hostname", "metrics", "start_ns", "end_ns", "limit", "window_ms", "aggregation")
    GPU_ID_FIELD_NUMBER: _ClassVar[int]
    HOSTNAME_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    START_NS_FIELD_NUMBER: _ClassVar[int]
    END_NS_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    WINDOW_MS_FIELD_NUMBER: _ClassVar[int]
    AGGREGATION_FIELD_NUMBER: _ClassVar[int]
    gpu_id: str
    hostname: str
    metrics: _containers.RepeatedScalarFieldContainer[str]
    start_ns: int
    end_ns: int
    limit: int
    window_ms: int
    aggregation: Aggregation
    def __init__(self, gpu_id: _Optional[str] = ..., hostname: _Optional[str] = ..., metrics: _Optional[_Iterable[str]] = ..., start_ns: _Optional[int] = ..., end_ns: _Optional[int] = ..., limit: _Optional[int] = ..., window_ms: _Optional[int] = ..., aggregation: _Optional[_Union[Aggregation, str]] = ...) -> None: ...

class Sample(_message.Message):
    __slots__ = ("uuid", "metric", "time_ns", "value")
    UUID_FIELD_NUMBER: _ClassVar[int]
    METRIC_FIELD_NUMBER: _ClassVar[int]
    TIME_NS_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    uuid: str
    metric: str
    time_ns: int
    value: float
    def __init__(self, uuid: _Optional[str] = ..., metric: _Optional[str] = ..., time_ns: _Optional[int] = ..., value: _Optional[float] = ...) -> None: ...

class GetTelemetryResponse(_message.Message):
    __slots__ = ("gpus", "samples")
    GPUS_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    gpus: _containers.RepeatedCompositeFieldContainer[Gpu]
    samples: _containers.RepeatedCompositeFieldContainer[Sample]
    def __init__(self, gpus: _Optional[_Iterable[_Union[Gpu, _Mapping]]] = ..., samples: _Optional[_Iterable[_Union[Sample, _Mapping]]] = ...) -> None: ...

class LatestRequest(_message.Message):
    __slots__ = ("filter", "metrics")
    FILTER_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    filter: GpuFilter
    metrics: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, filter: _Optional[_Union[GpuFilter, _Mapping]] = ..., metrics: _Optional[_Iterable[str]] = ...) -> None: ...

class LatestResponse(_message.Message):
    __slots__ = ("gpus", "samples")
    GPUS_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    gpus: _containers.RepeatedCompositeFieldContainer[Gpu]
    samples: _containers.RepeatedCompositeFieldContainer[Sample]
    def __init__(self, gpus: _Optional[_Iterable[_Union[Gpu, _Mapping]]] = ..., samples: _Optional[_Iterable[_Union[Sample, _Mapping]]] = ...) -> None: ...

class WatchRequest(_message.Message):
    __slots__ = ("filter", "metrics", "resume_token")
    FILTER_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    RESUME_TOKEN_FIELD_NUMBER: _ClassVar[int]
    filter: GpuFilter
    metrics: _containers.RepeatedScalarFieldContainer[str]
    resume_token: str
    def __init__(self, filter: _Optional[_Union[GpuFilter, _Mapping]] = ..., metrics: _Optional[_Iterable[str]] = ..., resume_token: _Optional[str] = ...) -> None: ...

class WatchResponse(_message.Message):
    __slots__ = ("gpus", "samples", "resume_token", "dropped")
    GPUS_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    RESUME_TOKEN_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    gpus: _containers.RepeatedCompositeFieldContainer[Gpu]
    samples: _containers.RepeatedCompositeFieldContainer[Sample]
    resume_token: str
    dropped: int
    def __init__(self, gpus: _Optional[_Iterable[_Union[Gpu, _Mapping]]] = ..., samples: _Optional[_Iterable[_Union[Sample, _Mapping]]] = ..., resume_token: _Optional[str] = ..., dropped: _Optional[int] = ...) -> None: ...
