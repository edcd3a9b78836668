from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Durability(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DURABILITY_UNSPECIFIED: _ClassVar[Durability]
    DURABILITY_MEMORY: _ClassVar[Durability]
    DURABILITY_OS: _ClassVar[Durability]
    DURABILITY_FSYNC: _ClassVar[Durability]

class FullPolicy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FULL_POLICY_UNSPECIFIED: _ClassVar[FullPolicy]
    FULL_POLICY_REJECT: _ClassVar[FullPolicy]
    FULL_POLICY_DROP_OLDEST: _ClassVar[FullPolicy]

class GroupMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    GROUP_MODE_UNSPECIFIED: _ClassVar[GroupMode]
    GROUP_MODE_SHARED: _ClassVar[GroupMode]
    GROUP_MODE_ORDERED: _ClassVar[GroupMode]

class Edge(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    EDGE_UNSPECIFIED: _ClassVar[Edge]
    EDGE_START: _ClassVar[Edge]
    EDGE_END: _ClassVar[Edge]
DURABILITY_UNSPECIFIED: Durability
DURABILITY_MEMORY: Durability
DURABILITY_OS: Durability
DURABILITY_FSYNC: Durability
FULL_POLICY_UNSPECIFIED: FullPolicy
FULL_POLICY_REJECT: FullPolicy
FULL_POLICY_DROP_OLDEST: FullPolicy
GROUP_MODE_UNSPECIFIED: GroupMode
GROUP_MODE_SHARED: GroupMode
GROUP_MODE_ORDERED: GroupMode
EDGE_UNSPECIFIED: Edge
EDGE_START: Edge
EDGE_END: Edge

class Header(_message.Message):
    __slots__ = ("name", "value")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: bytes
    def __init__(self, name: _Optional[str] = ..., value: _Optional[bytes] = ...) -> None: ...

class DeadLetter(_message.Message):
    __slots__ = ("reason", "attempts", "group", "topic", "partition", "log_id", "offset", "time_ns")
    REASON_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    LOG_ID_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    TIME_NS_FIELD_NUMBER: _ClassVar[int]
    reason: str
    attempts: int
    group: str
    topic: str
    partition: int
    log_id: bytes
    offset: int
    time_ns: int
    def __init__(self, reason: _Optional[str] = ..., attempts: _Optional[int] = ..., group: _Optional[str] = ..., topic: _Optional[str] = ..., partition: _Optional[int] = ..., log_id: _Optional[bytes] = ..., offset: _Optional[int] = ..., time_ns: _Optional[int] = ...) -> None: ...

class Record(_message.Message):
    __slots__ = ("value", "key", "headers", "timestamp_ns", "dead_letter")
    VALUE_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    HEADERS_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_NS_FIELD_NUMBER: _ClassVar[int]
    DEAD_LETTER_FIELD_NUMBER: _ClassVar[int]
    value: bytes
    key: bytes
    headers: _containers.RepeatedCompositeFieldContainer[Header]
    timestamp_ns: int
    dead_letter: DeadLetter
    def __init__(self, value: _Optional[bytes] = ..., key: _Optional[bytes] = ..., headers: _Optional[_Iterable[_Union[Header, _Mapping]]] = ..., timestamp_ns: _Optional[int] = ..., dead_letter: _Optional[_Union[DeadLetter, _Mapping]] = ...) -> None: ...

class RecordBatch(_message.Message):
    __slots__ = ("records",)
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    records: _containers.RepeatedCompositeFieldContainer[Record]
    def __init__(self, records: _Optional[_Iterable[_Union[Record, _Mapping]]] = ...) -> None: ...

class TopicConfig(_message.Message):
    __slots__ = ("partitions", "durability", "retention_ms", "retention_bytes", "max_partition_bytes", "full_policy", "segment_bytes", "max_attempts", "visibility_timeout_ms")
    PARTITIONS_FIELD_NUMBER: _ClassVar[int]
    DURABILITY_FIELD_NUMBER: _ClassVar[int]
    RETENTION_MS_FIELD_NUMBER: _ClassVar[int]
    RETENTION_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_PARTITION_BYTES_FIELD_NUMBER: _ClassVar[int]
    FULL_POLICY_FIELD_NUMBER: _ClassVar[int]
    SEGMENT_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    VISIBILITY_TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    partitions: int
    durability: Durability
    retention_ms: int
    retention_bytes: int
    max_partition_bytes: int
    full_policy: FullPolicy
    segment_bytes: int
    max_attempts: int
    visibility_timeout_ms: int
    def __init__(self, partitions: _Optional[int] = ..., durability: _Optional[_Union[Durability, str]] = ..., retention_ms: _Optional[int] = ..., retention_bytes: _Optional[int] = ..., max_partition_bytes: _Optional[int] = ..., full_policy: _Optional[_Union[FullPolicy, str]] = ..., segment_bytes: _Optional[int] = ..., max_attempts: _Optional[int] = ..., visibility_timeout_ms: _Optional[int] = ...) -> None: ...

class Topic(_message.Message):
    __slots__ = ("name", "config", "config_version")
    NAME_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    CONFIG_VERSION_FIELD_NUMBER: _ClassVar[int]
    name: str
    config: TopicConfig
    config_version: int
    def __init__(self, name: _Optional[str] = ..., config: _Optional[_Union[TopicConfig, _Mapping]] = ..., config_version: _Optional[int] = ...) -> None: ...

class PartitionState(_message.Message):
    __slots__ = ("partition", "log_id", "start_offset", "end_offset", "synced_end_offset", "bytes", "last_append_time_ns", "poisoned", "recovered_cut_bytes", "dropped_records", "forgotten_producers", "broker")
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    LOG_ID_FIELD_NUMBER: _ClassVar[int]
    START_OFFSET_FIELD_NUMBER: _ClassVar[int]
    END_OFFSET_FIELD_NUMBER: _ClassVar[int]
    SYNCED_END_OFFSET_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    LAST_APPEND_TIME_NS_FIELD_NUMBER: _ClassVar[int]
    POISONED_FIELD_NUMBER: _ClassVar[int]
    RECOVERED_CUT_BYTES_FIELD_NUMBER: _ClassVar[int]
    DROPPED_RECORDS_FIELD_NUMBER: _ClassVar[int]
    FORGOTTEN_PRODUCERS_FIELD_NUMBER: _ClassVar[int]
    BROKER_FIELD_NUMBER: _ClassVar[int]
    partition: int
    log_id: bytes
    start_offset: int
    end_offset: int
    synced_end_offset: int
    bytes: int
    last_append_time_ns: int
    poisoned: str
    recovered_cut_bytes: int
    dropped_records: int
    forgotten_producers: int
    broker: str
    def __init__(self, partition: _Optional[int] = ..., log_id: _Optional[bytes] = ..., start_offset: _Optional[int] = ..., end_offset: _Optional[int] = ..., synced_end_offset: _Optional[int] = ..., bytes: _Optional[int] = ..., last_append_time_ns: _Optional[int] = ..., poisoned: _Optional[str] = ..., recovered_cut_bytes: _Optional[int] = ..., dropped_records: _Optional[int] = ..., forgotten_producers: _Optional[int] = ..., broker: _Optional[str] = ...) -> None: ...

class CreateTopicRequest(_message.Message):
    __slots__ = ("name", "config", "config_version")
    NAME_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    CONFIG_VERSION_FIELD_NUMBER: _ClassVar[int]
    name: str
    config: TopicConfig
    config_version: int
    def __init__(self, name: _Optional[str] = ..., config: _Optional[_Union[TopicConfig, _Mapping]] = ..., config_version: _Optional[int] = ...) -> None: ...

class CreateTopicResponse(_message.Message):
    __slots__ = ("topic",)
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    topic: Topic
    def __init__(self, topic: _Optional[_Union[Topic, _Mapping]] = ...) -> None: ...

class ListTopicsRequest(_message.Message):
    __slots__ = ("after", "max_topics")
    AFTER_FIELD_NUMBER: _ClassVar[int]
    MAX_TOPICS_FIELD_NUMBER: _ClassVar[int]
    after: str
    max_topics: int
    def __init__(self, after: _Optional[str] = ..., max_topics: _Optional[int] = ...) -> None: ...

class ListTopicsResponse(_message.Message):
    __slots__ = ("topics", "more")
    TOPICS_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    topics: _containers.RepeatedCompositeFieldContainer[Topic]
    more: bool
    def __init__(self, topics: _Optional[_Iterable[_Union[Topic, _Mapping]]] = ..., more: _Optional[bool] = ...) -> None: ...

class DescribeTopicRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class DescribeTopicResponse(_message.Message):
    __slots__ = ("topic", "partitions", "missing_brokers")
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    PARTITIONS_FIELD_NUMBER: _ClassVar[int]
    MISSING_BROKERS_FIELD_NUMBER: _ClassVar[int]
    topic: Topic
    partitions: _containers.RepeatedCompositeFieldContainer[PartitionState]
    missing_brokers: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, topic: _Optional[_Union[Topic, _Mapping]] = ..., partitions: _Optional[_Iterable[_Union[PartitionState, _Mapping]]] = ..., missing_brokers: _Optional[_Iterable[str]] = ...) -> None: ...

class ConfigureTopicRequest(_message.Message):
    __slots__ = ("name", "config", "if_version", "config_version")
    NAME_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    IF_VERSION_FIELD_NUMBER: _ClassVar[int]
    CONFIG_VERSION_FIELD_NUMBER: _ClassVar[int]
    name: str
    config: TopicConfig
    if_version: int
    config_version: int
    def __init__(self, name: _Optional[str] = ..., config: _Optional[_Union[TopicConfig, _Mapping]] = ..., if_version: _Optional[int] = ..., config_version: _Optional[int] = ...) -> None: ...

class ConfigureTopicResponse(_message.Message):
    __slots__ = ("topic",)
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    topic: Topic
    def __init__(self, topic: _Optional[_Union[Topic, _Mapping]] = ...) -> None: ...

class DeleteTopicRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class DeleteTopicResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class PurgeTopicRequest(_message.Message):
    __slots__ = ("name", "partitions")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PARTITIONS_FIELD_NUMBER: _ClassVar[int]
    name: str
    partitions: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, name: _Optional[str] = ..., partitions: _Optional[_Iterable[int]] = ...) -> None: ...

class PurgeTopicResponse(_message.Message):
    __slots__ = ("records",)
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    records: int
    def __init__(self, records: _Optional[int] = ...) -> None: ...

class OpenProducerRequest(_message.Message):
    __slots__ = ("topic", "producer", "new_name")
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    PRODUCER_FIELD_NUMBER: _ClassVar[int]
    NEW_NAME_FIELD_NUMBER: _ClassVar[int]
    topic: str
    producer: str
    new_name: bool
    def __init__(self, topic: _Optional[str] = ..., producer: _Optional[str] = ..., new_name: _Optional[bool] = ...) -> None: ...

class ProducerState(_message.Message):
    __slots__ = ("partition", "log_id", "sequence")
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    LOG_ID_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    partition: int
    log_id: bytes
    sequence: int
    def __init__(self, partition: _Optional[int] = ..., log_id: _Optional[bytes] = ..., sequence: _Optional[int] = ...) -> None: ...

class OpenProducerResponse(_message.Message):
    __slots__ = ("partitions",)
    PARTITIONS_FIELD_NUMBER: _ClassVar[int]
    partitions: _containers.RepeatedCompositeFieldContainer[ProducerState]
    def __init__(self, partitions: _Optional[_Iterable[_Union[ProducerState, _Mapping]]] = ...) -> None: ...

class ProduceRequest(_message.Message):
    __slots__ = ("topic", "partition", "producer", "sequence", "resent_to", "records")
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    PRODUCER_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    RESENT_TO_FIELD_NUMBER: _ClassVar[int]
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    topic: str
    partition: int
    producer: str
    sequence: int
    resent_to: str
    records: _containers.RepeatedCompositeFieldContainer[Record]
    def __init__(self, topic: _Optional[str] = ..., partition: _Optional[int] = ..., producer: _Optional[str] = ..., sequence: _Optional[int] = ..., resent_to: _Optional[str] = ..., records: _Optional[_Iterable[_Union[Record, _Mapping]]] = ...) -> None: ...

class Appended(_message.Message):
    __slots__ = ("partition", "log_id", "base_offset", "count", "duplicate")
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    LOG_ID_FIELD_NUMBER: _ClassVar[int]
    BASE_OFFSET_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    DUPLICATE_FIELD_NUMBER: _ClassVar[int]
    partition: int
    log_id: bytes
    base_offset: int
    count: int
    duplicate: bool
    def __init__(self, partition: _Optional[int] = ..., log_id: _Optional[bytes] = ..., base_offset: _Optional[int] = ..., count: _Optional[int] = ..., duplicate: _Optional[bool] = ...) -> None: ...

class ProduceResponse(_message.Message):
    __slots__ = ("appended",)
    APPENDED_FIELD_NUMBER: _ClassVar[int]
    appended: _containers.RepeatedCompositeFieldContainer[Appended]
    def __init__(self, appended: _Optional[_Iterable[_Union[Appended, _Mapping]]] = ...) -> None: ...

class Error(_message.Message):
    __slots__ = ("code", "message", "retry_after_ms", "field", "broker")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    FIELD_FIELD_NUMBER: _ClassVar[int]
    BROKER_FIELD_NUMBER: _ClassVar[int]
    code: str
    message: str
    retry_after_ms: int
    field: str
    broker: str
    def __init__(self, code: _Optional[str] = ..., message: _Optional[str] = ..., retry_after_ms: _Optional[int] = ..., field: _Optional[str] = ..., broker: _Optional[str] = ...) -> None: ...

class ProduceStreamRequest(_message.Message):
    __slots__ = ("produce",)
    PRODUCE_FIELD_NUMBER: _ClassVar[int]
    produce: ProduceRequest
    def __init__(self, produce: _Optional[_Union[ProduceRequest, _Mapping]] = ...) -> None: ...

class ProduceStreamResponse(_message.Message):
    __slots__ = ("produced", "error")
    PRODUCED_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    produced: ProduceResponse
    error: Error
    def __init__(self, produced: _Optional[_Union[ProduceResponse, _Mapping]] = ..., error: _Optional[_Union[Error, _Mapping]] = ...) -> None: ...

class AppendRun(_message.Message):
    __slots__ = ("count", "append_time_ns")
    COUNT_FIELD_NUMBER: _ClassVar[int]
    APPEND_TIME_NS_FIELD_NUMBER: _ClassVar[int]
    count: int
    append_time_ns: int
    def __init__(self, count: _Optional[int] = ..., append_time_ns: _Optional[int] = ...) -> None: ...

class Delivery(_message.Message):
    __slots__ = ("topic", "partition", "log_id", "base_offset", "lease_id", "attempt", "visibility_timeout_ms", "append_runs", "broker", "records")
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    LOG_ID_FIELD_NUMBER: _ClassVar[int]
    BASE_OFFSET_FIELD_NUMBER: _ClassVar[int]
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    VISIBILITY_TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    APPEND_RUNS_FIELD_NUMBER: _ClassVar[int]
    BROKER_FIELD_NUMBER: _ClassVar[int]
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    topic: str
    partition: int
    log_id: bytes
    base_offset: int
    lease_id: bytes
    attempt: int
    visibility_timeout_ms: int
    append_runs: _containers.RepeatedCompositeFieldContainer[AppendRun]
    broker: str
    records: _containers.RepeatedCompositeFieldContainer[Record]
    def __init__(self, topic: _Optional[str] = ..., partition: _Optional[int] = ..., log_id: _Optional[bytes] = ..., base_offset: _Optional[int] = ..., lease_id: _Optional[bytes] = ..., attempt: _Optional[int] = ..., visibility_timeout_ms: _Optional[int] = ..., append_runs: _Optional[_Iterable[_Union[AppendRun, _Mapping]]] = ..., broker: _Optional[str] = ..., records: _Optional[_Iterable[_Union[Record, _Mapping]]] = ...) -> None: ...

class ReceiveRequest(_message.Message):
    __slots__ = ("topic", "group", "consumer", "partitions", "max_records", "max_bytes", "wait_ms", "visibility_timeout_ms", "mode", "max_deliveries")
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    CONSUMER_FIELD_NUMBER: _ClassVar[int]
    PARTITIONS_FIELD_NUMBER: _ClassVar[int]
    MAX_RECORDS_FIELD_NUMBER: _ClassVar[int]
    MAX_BYTES_FIELD_NUMBER: _ClassVar[int]
    WAIT_MS_FIELD_NUMBER: _ClassVar[int]
    VISIBILITY_TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    MAX_DELIVERIES_FIELD_NUMBER: _ClassVar[int]
    topic: str
    group: str
    consumer: str
    partitions: _containers.RepeatedScalarFieldContainer[int]
    max_records: int
    max_bytes: int
    wait_ms: int
    visibility_timeout_ms: int
    mode: GroupMode
    max_deliveries: int
    def __init__(self, topic: _Optional[str] = ..., group: _Optional[str] = ..., consumer: _Optional[str] = ..., partitions: _Optional[_Iterable[int]] = ..., max_records: _Optional[int] = ..., max_bytes: _Optional[int] = ..., wait_ms: _Optional[int] = ..., visibility_timeout_ms: _Optional[int] = ..., mode: _Optional[_Union[GroupMode, str]] = ..., max_deliveries: _Optional[int] = ...) -> None: ...

class ReceiveResponse(_message.Message):
    __slots__ = ("deliveries", "next_due_ms")
    DELIVERIES_FIELD_NUMBER: _ClassVar[int]
    NEXT_DUE_MS_FIELD_NUMBER: _ClassVar[int]
    deliveries: _containers.RepeatedCompositeFieldContainer[Delivery]
    next_due_ms: int
    def __init__(self, deliveries: _Optional[_Iterable[_Union[Delivery, _Mapping]]] = ..., next_due_ms: _Optional[int] = ...) -> None: ...

class ConsumeStart(_message.Message):
    __slots__ = ("receive", "credit_records", "keep_leases", "credit_deliveries", "tell_waiting", "count_deliveries")
    RECEIVE_FIELD_NUMBER: _ClassVar[int]
    CREDIT_RECORDS_FIELD_NUMBER: _ClassVar[int]
    KEEP_LEASES_FIELD_NUMBER: _ClassVar[int]
    CREDIT_DELIVERIES_FIELD_NUMBER: _ClassVar[int]
    TELL_WAITING_FIELD_NUMBER: _ClassVar[int]
    COUNT_DELIVERIES_FIELD_NUMBER: _ClassVar[int]
    receive: ReceiveRequest
    credit_records: int
    keep_leases: bool
    credit_deliveries: int
    tell_waiting: bool
    count_deliveries: bool
    def __init__(self, receive: _Optional[_Union[ReceiveRequest, _Mapping]] = ..., credit_records: _Optional[int] = ..., keep_leases: _Optional[bool] = ..., credit_deliveries: _Optional[int] = ..., tell_waiting: _Optional[bool] = ..., count_deliveries: _Optional[bool] = ...) -> None: ...

class ConsumeCredit(_message.Message):
    __slots__ = ("records", "deliveries", "replace")
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    DELIVERIES_FIELD_NUMBER: _ClassVar[int]
    REPLACE_FIELD_NUMBER: _ClassVar[int]
    records: int
    deliveries: int
    replace: bool
    def __init__(self, records: _Optional[int] = ..., deliveries: _Optional[int] = ..., replace: _Optional[bool] = ...) -> None: ...

class ConsumeEnd(_message.Message):
    __slots__ = ("keep_leases",)
    KEEP_LEASES_FIELD_NUMBER: _ClassVar[int]
    keep_leases: bool
    def __init__(self, keep_leases: _Optional[bool] = ...) -> None: ...

class ConsumeRequest(_message.Message):
    __slots__ = ("start", "credit", "ack", "nack", "extend", "end")
    START_FIELD_NUMBER: _ClassVar[int]
    CREDIT_FIELD_NUMBER: _ClassVar[int]
    ACK_FIELD_NUMBER: _ClassVar[int]
    NACK_FIELD_NUMBER: _ClassVar[int]
    EXTEND_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    start: ConsumeStart
    credit: ConsumeCredit
    ack: AckRequest
    nack: NackRequest
    extend: ExtendRequest
    end: ConsumeEnd
    def __init__(self, start: _Optional[_Union[ConsumeStart, _Mapping]] = ..., credit: _Optional[_Union[ConsumeCredit, _Mapping]] = ..., ack: _Optional[_Union[AckRequest, _Mapping]] = ..., nack: _Optional[_Union[NackRequest, _Mapping]] = ..., extend: _Optional[_Union[ExtendRequest, _Mapping]] = ..., end: _Optional[_Union[ConsumeEnd, _Mapping]] = ...) -> None: ...

class Credited(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Heartbeat(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Waiting(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Goodbye(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ConsumeResponse(_message.Message):
    __slots__ = ("delivery", "acked", "nacked", "extended", "heartbeat", "goodbye", "error", "credited", "waiting")
    DELIVERY_FIELD_NUMBER: _ClassVar[int]
    ACKED_FIELD_NUMBER: _ClassVar[int]
    NACKED_FIELD_NUMBER: _ClassVar[int]
    EXTENDED_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    GOODBYE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    CREDITED_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    delivery: Delivery
    acked: AckResponse
    nacked: NackResponse
    extended: ExtendResponse
    heartbeat: Heartbeat
    goodbye: Goodbye
    error: Error
    credited: Credited
    waiting: Waiting
    def __init__(self, delivery: _Optional[_Union[Delivery, _Mapping]] = ..., acked: _Optional[_Union[AckResponse, _Mapping]] = ..., nacked: _Optional[_Union[NackResponse, _Mapping]] = ..., extended: _Optional[_Union[ExtendResponse, _Mapping]] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ..., goodbye: _Optional[_Union[Goodbye, _Mapping]] = ..., error: _Optional[_Union[Error, _Mapping]] = ..., credited: _Optional[_Union[Credited, _Mapping]] = ..., waiting: _Optional[_Union[Waiting, _Mapping]] = ...) -> None: ...

class OffsetRange(_message.Message):
    __slots__ = ("start", "end")
    START_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    start: int
    end: int
    def __init__(self, start: _Optional[int] = ..., end: _Optional[int] = ...) -> None: ...

class LeaseRange(_message.Message):
    __slots__ = ("lease_id", "ranges")
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    RANGES_FIELD_NUMBER: _ClassVar[int]
    lease_id: bytes
    ranges: _containers.RepeatedCompositeFieldContainer[OffsetRange]
    def __init__(self, lease_id: _Optional[bytes] = ..., ranges: _Optional[_Iterable[_Union[OffsetRange, _Mapping]]] = ...) -> None: ...

class AckRequest(_message.Message):
    __slots__ = ("topic", "group", "leases")
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    LEASES_FIELD_NUMBER: _ClassVar[int]
    topic: str
    group: str
    leases: _containers.RepeatedCompositeFieldContainer[LeaseRange]
    def __init__(self, topic: _Optional[str] = ..., group: _Optional[str] = ..., leases: _Optional[_Iterable[_Union[LeaseRange, _Mapping]]] = ...) -> None: ...

class StaleLease(_message.Message):
    __slots__ = ("lease_id", "ranges")
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    RANGES_FIELD_NUMBER: _ClassVar[int]
    lease_id: bytes
    ranges: _containers.RepeatedCompositeFieldContainer[OffsetRange]
    def __init__(self, lease_id: _Optional[bytes] = ..., ranges: _Optional[_Iterable[_Union[OffsetRange, _Mapping]]] = ...) -> None: ...

class AckResponse(_message.Message):
    __slots__ = ("acked", "stale")
    ACKED_FIELD_NUMBER: _ClassVar[int]
    STALE_FIELD_NUMBER: _ClassVar[int]
    acked: int
    stale: _containers.RepeatedCompositeFieldContainer[StaleLease]
    def __init__(self, acked: _Optional[int] = ..., stale: _Optional[_Iterable[_Union[StaleLease, _Mapping]]] = ...) -> None: ...

class NackRequest(_message.Message):
    __slots__ = ("topic", "group", "leases", "delay_ms", "dead_letter", "reason")
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    LEASES_FIELD_NUMBER: _ClassVar[int]
    DELAY_MS_FIELD_NUMBER: _ClassVar[int]
    DEAD_LETTER_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    topic: str
    group: str
    leases: _containers.RepeatedCompositeFieldContainer[LeaseRange]
    delay_ms: int
    dead_letter: bool
    reason: str
    def __init__(self, topic: _Optional[str] = ..., group: _Optional[str] = ..., leases: _Optional[_Iterable[_Union[LeaseRange, _Mapping]]] = ..., delay_ms: _Optional[int] = ..., dead_letter: _Optional[bool] = ..., reason: _Optional[str] = ...) -> None: ...

class NackResponse(_message.Message):
    __slots__ = ("nacked", "stale")
    NACKED_FIELD_NUMBER: _ClassVar[int]
    STALE_FIELD_NUMBER: _ClassVar[int]
    nacked: int
    stale: _containers.RepeatedCompositeFieldContainer[StaleLease]
    def __init__(self, nacked: _Optional[int] = ..., stale: _Optional[_Iterable[_Union[StaleLease, _Mapping]]] = ...) -> None: ...

class ExtendRequest(_message.Message):
    __slots__ = ("topic", "group", "leases", "visibility_timeout_ms")
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    LEASES_FIELD_NUMBER: _ClassVar[int]
    VISIBILITY_TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    topic: str
    group: str
    leases: _containers.RepeatedCompositeFieldContainer[LeaseRange]
    visibility_timeout_ms: int
    def __init__(self, topic: _Optional[str] = ..., group: _Optional[str] = ..., leases: _Optional[_Iterable[_Union[LeaseRange, _Mapping]]] = ..., visibility_timeout_ms: _Optional[int] = ...) -> None: ...

class ExtendResponse(_message.Message):
    __slots__ = ("extended", "stale")
    EXTENDED_FIELD_NUMBER: _ClassVar[int]
    STALE_FIELD_NUMBER: _ClassVar[int]
    extended: int
    stale: _containers.RepeatedCompositeFieldContainer[StaleLease]
    def __init__(self, extended: _Optional[int] = ..., stale: _Optional[_Iterable[_Union[StaleLease, _Mapping]]] = ...) -> None: ...

class Position(_message.Message):
    __slots__ = ("offset", "time_ns", "edge", "log_id")
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    TIME_NS_FIELD_NUMBER: _ClassVar[int]
    EDGE_FIELD_NUMBER: _ClassVar[int]
    LOG_ID_FIELD_NUMBER: _ClassVar[int]
    offset: int
    time_ns: int
    edge: Edge
    log_id: bytes
    def __init__(self, offset: _Optional[int] = ..., time_ns: _Optional[int] = ..., edge: _Optional[_Union[Edge, str]] = ..., log_id: _Optional[bytes] = ...) -> None: ...

class ReadRequest(_message.Message):
    __slots__ = ("topic", "partition", "max_records", "max_bytes", "wait_ms")
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    FROM_FIELD_NUMBER: _ClassVar[int]
    MAX_RECORDS_FIELD_NUMBER: _ClassVar[int]
    MAX_BYTES_FIELD_NUMBER: _ClassVar[int]
    WAIT_MS_FIELD_NUMBER: _ClassVar[int]
    topic: str
    partition: int
    max_records: int
    max_bytes: int
    wait_ms: int
    def __init__(self, topic: _Optional[str] = ..., partition: _Optional[int] = ..., max_records: _Optional[int] = ..., max_bytes: _Optional[int] = ..., wait_ms: _Optional[int] = ..., **kwargs) -> None: ...

class ReadResponse(_message.Message):
    __slots__ = ("deliveries", "next_offset", "log_id")
    DELIVERIES_FIELD_NUMBER: _ClassVar[int]
    NEXT_OFFSET_FIELD_NUMBER: _ClassVar[int]
    LOG_ID_FIELD_NUMBER: _ClassVar[int]
    deliveries: _containers.RepeatedCompositeFieldContainer[Delivery]
    next_offset: int
    log_id: bytes
    def __init__(self, deliveries: _Optional[_Iterable[_Union[Delivery, _Mapping]]] = ..., next_offset: _Optional[int] = ..., log_id: _Optional[bytes] = ...) -> None: ...

class Group(_message.Message):
    __slots__ = ("name", "mode")
    NAME_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    name: str
    mode: GroupMode
    def __init__(self, name: _Optional[str] = ..., mode: _Optional[_Union[GroupMode, str]] = ...) -> None: ...

class CreateGroupRequest(_message.Message):
    __slots__ = ("topic", "group", "mode")
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    FROM_FIELD_NUMBER: _ClassVar[int]
    topic: str
    group: str
    mode: GroupMode
    def __init__(self, topic: _Optional[str] = ..., group: _Optional[str] = ..., mode: _Optional[_Union[GroupMode, str]] = ..., **kwargs) -> None: ...

class CreateGroupResponse(_message.Message):
    __slots__ = ("group",)
    GROUP_FIELD_NUMBER: _ClassVar[int]
    group: Group
    def __init__(self, group: _Optional[_Union[Group, _Mapping]] = ...) -> None: ...

class ListGroupsRequest(_message.Message):
    __slots__ = ("topic",)
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    topic: str
    def __init__(self, topic: _Optional[str] = ...) -> None: ...

class ListGroupsResponse(_message.Message):
    __slots__ = ("groups",)
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    groups: _containers.RepeatedCompositeFieldContainer[Group]
    def __init__(self, groups: _Optional[_Iterable[_Union[Group, _Mapping]]] = ...) -> None: ...

class DescribeGroupRequest(_message.Message):
    __slots__ = ("topic", "group")
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    topic: str
    group: str
    def __init__(self, topic: _Optional[str] = ..., group: _Optional[str] = ...) -> None: ...

class GroupPartitionState(_message.Message):
    __slots__ = ("partition", "log_id", "acked_end_offset", "next_offset", "lag", "in_flight", "leases", "holder", "redelivered", "journal_bad_bytes", "broker")
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    LOG_ID_FIELD_NUMBER: _ClassVar[int]
    ACKED_END_OFFSET_FIELD_NUMBER: _ClassVar[int]
    NEXT_OFFSET_FIELD_NUMBER: _ClassVar[int]
    LAG_FIELD_NUMBER: _ClassVar[int]
    IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    LEASES_FIELD_NUMBER: _ClassVar[int]
    HOLDER_FIELD_NUMBER: _ClassVar[int]
    REDELIVERED_FIELD_NUMBER: _ClassVar[int]
    JOURNAL_BAD_BYTES_FIELD_NUMBER: _ClassVar[int]
    BROKER_FIELD_NUMBER: _ClassVar[int]
    partition: int
    log_id: bytes
    acked_end_offset: int
    next_offset: int
    lag: int
    in_flight: int
    leases: int
    holder: str
    redelivered: int
    journal_bad_bytes: int
    broker: str
    def __init__(self, partition: _Optional[int] = ..., log_id: _Optional[bytes] = ..., acked_end_offset: _Optional[int] = ..., next_offset: _Optional[int] = ..., lag: _Optional[int] = ..., in_flight: _Optional[int] = ..., leases: _Optional[int] = ..., holder: _Optional[str] = ..., redelivered: _Optional[int] = ..., journal_bad_bytes: _Optional[int] = ..., broker: _Optional[str] = ...) -> None: ...

class DescribeGroupResponse(_message.Message):
    __slots__ = ("group", "partitions", "missing_brokers")
    GROUP_FIELD_NUMBER: _ClassVar[int]
    PARTITIONS_FIELD_NUMBER: _ClassVar[int]
    MISSING_BROKERS_FIELD_NUMBER: _ClassVar[int]
    group: Group
    partitions: _containers.RepeatedCompositeFieldContainer[GroupPartitionState]
    missing_brokers: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, group: _Optional[_Union[Group, _Mapping]] = ..., partitions: _Optional[_Iterable[_Union[GroupPartitionState, _Mapping]]] = ..., missing_brokers: _Optional[_Iterable[str]] = ...) -> None: ...

class SeekGroupRequest(_message.Message):
    __slots__ = ("topic", "group", "partitions", "to")
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    PARTITIONS_FIELD_NUMBER: _ClassVar[int]
    TO_FIELD_NUMBER: _ClassVar[int]
    topic: str
    group: str
    partitions: _containers.RepeatedScalarFieldContainer[int]
    to: Position
    def __init__(self, topic: _Optional[str] = ..., group: _Optional[str] = ..., partitions: _Optional[_Iterable[int]] = ..., to: _Optional[_Union[Position, _Mapping]] = ...) -> None: ...

class SeekGroupResponse(_message.Message):
    __slots__ = ("partitions",)
    PARTITIONS_FIELD_NUMBER: _ClassVar[int]
    partitions: _containers.RepeatedCompositeFieldContainer[GroupPartitionState]
    def __init__(self, partitions: _Optional[_Iterable[_Union[GroupPartitionState, _Mapping]]] = ...) -> None: ...

class DeleteGroupRequest(_message.Message):
    __slots__ = ("topic", "group")
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    topic: str
    group: str
    def __init__(self, topic: _Optional[str] = ..., group: _Optional[str] = ...) -> None: ...

class DeleteGroupResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListDeadLettersRequest(_message.Message):
    __slots__ = ("topic", "partition", "group", "from_offset", "max_records", "max_bytes", "from_partition", "from_broker")
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    FROM_OFFSET_FIELD_NUMBER: _ClassVar[int]
    MAX_RECORDS_FIELD_NUMBER: _ClassVar[int]
    MAX_BYTES_FIELD_NUMBER: _ClassVar[int]
    FROM_PARTITION_FIELD_NUMBER: _ClassVar[int]
    FROM_BROKER_FIELD_NUMBER: _ClassVar[int]
    topic: str
    partition: int
    group: str
    from_offset: int
    max_records: int
    max_bytes: int
    from_partition: int
    from_broker: str
    def __init__(self, topic: _Optional[str] = ..., partition: _Optional[int] = ..., group: _Optional[str] = ..., from_offset: _Optional[int] = ..., max_records: _Optional[int] = ..., max_bytes: _Optional[int] = ..., from_partition: _Optional[int] = ..., from_broker: _Optional[str] = ...) -> None: ...

class ListDeadLettersResponse(_message.Message):
    __slots__ = ("deliveries", "total", "next_partition", "next_offset", "next_broker", "missing_brokers")
    DELIVERIES_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    NEXT_PARTITION_FIELD_NUMBER: _ClassVar[int]
    NEXT_OFFSET_FIELD_NUMBER: _ClassVar[int]
    NEXT_BROKER_FIELD_NUMBER: _ClassVar[int]
    MISSING_BROKERS_FIELD_NUMBER: _ClassVar[int]
    deliveries: _containers.RepeatedCompositeFieldContainer[Delivery]
    total: int
    next_partition: int
    next_offset: int
    next_broker: str
    missing_brokers: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, deliveries: _Optional[_Iterable[_Union[Delivery, _Mapping]]] = ..., total: _Optional[int] = ..., next_partition: _Optional[int] = ..., next_offset: _Optional[int] = ..., next_broker: _Optional[str] = ..., missing_brokers: _Optional[_Iterable[str]] = ...) -> None: ...

class RedriveDeadLettersRequest(_message.Message):
    __slots__ = ("topic", "partition", "group", "ranges", "broker")
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    RANGES_FIELD_NUMBER: _ClassVar[int]
    BROKER_FIELD_NUMBER: _ClassVar[int]
    topic: str
    partition: int
    group: str
    ranges: _containers.RepeatedCompositeFieldContainer[OffsetRange]
    broker: str
    def __init__(self, topic: _Optional[str] = ..., partition: _Optional[int] = ..., group: _Optional[str] = ..., ranges: _Optional[_Iterable[_Union[OffsetRange, _Mapping]]] = ..., broker: _Optional[str] = ...) -> None: ...

class RedriveDeadLettersResponse(_message.Message):
    __slots__ = ("redriven",)
    REDRIVEN_FIELD_NUMBER: _ClassVar[int]
    redriven: int
    def __init__(self, redriven: _Optional[int] = ...) -> None: ...

class DescribeBrokerRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DescribeBrokerResponse(_message.Message):
    __slots__ = ("broker_id", "version", "started_ns", "data_dir", "free_bytes", "min_free_bytes", "draining", "partitions", "name", "members")
    BROKER_ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STARTED_NS_FIELD_NUMBER: _ClassVar[int]
    DATA_DIR_FIELD_NUMBER: _ClassVar[int]
    FREE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MIN_FREE_BYTES_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    PARTITIONS_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    broker_id: bytes
    version: str
    started_ns: int
    data_dir: str
    free_bytes: int
    min_free_bytes: int
    draining: bool
    partitions: int
    name: str
    members: _containers.RepeatedCompositeFieldContainer[Member]
    def __init__(self, broker_id: _Optional[bytes] = ..., version: _Optional[str] = ..., started_ns: _Optional[int] = ..., data_dir: _Optional[str] = ..., free_bytes: _Optional[int] = ..., min_free_bytes: _Optional[int] = ..., draining: _Optional[bool] = ..., partitions: _Optional[int] = ..., name: _Optional[str] = ..., members: _Optional[_Iterable[_Union[Member, _Mapping]]] = ...) -> None: ...

class Member(_message.Message):
    __slots__ = ("name", "address", "healthy", "draining", "broker_id", "version", "error")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    HEALTHY_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    BROKER_ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    name: str
    address: str
    healthy: bool
    draining: bool
    broker_id: bytes
    version: str
    error: str
    def __init__(self, name: _Optional[str] = ..., address: _Optional[str] = ..., healthy: _Optional[bool] = ..., draining: _Optional[bool] = ..., broker_id: _Optional[bytes] = ..., version: _Optional[str] = ..., error: _Optional[str] = ...) -> None: ...

class DrainBrokerRequest(_message.Message):
    __slots__ = ("draining", "broker")
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    BROKER_FIELD_NUMBER: _ClassVar[int]
    draining: bool
    broker: str
    def __init__(self, draining: _Optional[bool] = ..., broker: _Optional[str] = ...) -> None: ...

class DrainBrokerResponse(_message.Message):
    __slots__ = ("remaining",)
    REMAINING_FIELD_NUMBER: _ClassVar[int]
    remaining: int
    def __init__(self, remaining: _Optional[int] = ...) -> None: ...
