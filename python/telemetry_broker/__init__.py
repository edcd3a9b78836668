"""A durable, at-least-once telemetry broker: embedded in this process, in memory, or over gRPC.

    import telemetry_broker as tb

    with tb.connect("file:///var/lib/telemetry") as broker:
        broker.create_topic("telemetry", partitions=4)
        with broker.producer("telemetry") as producer:
            producer.send(b"...", key=b"GPU-1")
        with broker.consumer("telemetry", group="collector", idle_timeout=1) as consumer:
            for batch in consumer:
                print(batch.values)
                batch.ack()

Words: a **topic** has **partitions**, each a log of **records** with rising **offsets**. A consumer **group** gets
every record of a topic; its consumers share the work. A consumer gets a **batch** under a **lease**, which is extended
while it works on the batch and ends with the **visibility timeout** when it is gone: what was not **acked** by then,
somebody gets again. So each record is handled at least once.

``telemetry_broker.aio`` has the same words for asyncio programs.

Durations are float seconds, times nanoseconds since the epoch, sizes bytes. Every error is a ``BrokerError`` with a
stable ``code``.
"""

import importlib
from typing import TYPE_CHECKING, Any

from telemetry_broker._core import HashRing, __version__, partition_for_key
from telemetry_broker.admin import (
    BrokerState,
    DeadLetter,
    DeadLetters,
    Durability,
    FullPolicy,
    Group,
    GroupPartition,
    GroupState,
    Mode,
    PartitionState,
    Topic,
    TopicConfig,
    TopicState,
)
from telemetry_broker.batch import Batch, Page, Records
from telemetry_broker.broker import Broker
from telemetry_broker.connection import connect
from telemetry_broker.consumer import Consumer
from telemetry_broker.errors import (
    BrokerError,
    ClosedError,
    ConflictError,
    CorruptError,
    FormatError,
    FullError,
    InUseError,
    InvalidArgumentError,
    NotFoundError,
    PermissionDeniedError,
    ProduceUnknownError,
    SourceError,
    StaleLeaseError,
    StorageError,
    TimedOutError,
    UnauthenticatedError,
    UnavailableError,
    UnsupportedError,
)
from telemetry_broker.outbox import Appended
from telemetry_broker.positions import END, START, AtTime, Offset, Position, at_time
from telemetry_broker.producer import Producer

if TYPE_CHECKING:
    from telemetry_broker import aio

__all__ = [
    "END",
    "START",
    "Appended",
    "AtTime",
    "Batch",
    "Broker",
    "BrokerError",
    "BrokerState",
    "ClosedError",
    "ConflictError",
    "Consumer",
    "CorruptError",
    "DeadLetter",
    "DeadLetters",
    "Durability",
    "FormatError",
    "FullError",
    "FullPolicy",
    "Group",
    "GroupPartition",
    "GroupState",
    "HashRing",
    "InUseError",
    "InvalidArgumentError",
    "Mode",
    "NotFoundError",
    "Offset",
    "Page",
    "PartitionState",
    "PermissionDeniedError",
    "Position",
    "ProduceUnknownError",
    "Producer",
    "Records",
    "SourceError",
    "StaleLeaseError",
    "StorageError",
    "TimedOutError",
    "Topic",
    "TopicConfig",
    "TopicState",
    "UnauthenticatedError",
    "UnavailableError",
    "UnsupportedError",
    "__version__",
    "aio",
    "at_time",
    "connect",
    "partition_for_key",
]


def __getattr__(name: str) -> Any:
    if name == "aio":  # imported once it is asked for: most programs have no event loop, and asyncio takes its time
        return importlib.import_module("telemetry_broker.aio")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
