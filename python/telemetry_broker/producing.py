"""What a producer is asked and asks: the checks, requests and answers of both faces."""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from typing import TYPE_CHECKING, Final

from telemetry_broker import _core
from telemetry_broker.errors import BrokerError, InvalidArgumentError
from telemetry_broker.positions import unsigned
from telemetry_broker.steps import Steps
from telemetry_broker.v1 import broker_pb2 as pb

if TYPE_CHECKING:
    from typing_extensions import Buffer

MAX_BUFFER_BYTES: Final = 64 * 1024 * 1024
"""Bound of the records that wait in one producer; as much again can be on its way."""

_BATCH_RECORDS: Final = 65_536
_READY: Final = (0).__le__  # of an answer of ProducerBuffer.send: it names the partition whose batch must leave


@dataclass(frozen=True, slots=True)
class ProducerSettings:
    """What a producer is told, checked; made by ``Broker.producer``, where each argument is explained."""

    topic: str
    name: str
    is_named: bool
    """Its name was given, and not made up."""
    linger: float
    batch_bytes: int
    max_block: float
    delivery_timeout: float
    on_error: Callable[[BrokerError], None] | None

    def __post_init__(self) -> None:
        if not (self.linger >= 0 and self.max_block >= 0 and self.delivery_timeout > 0):
            raise InvalidArgumentError(
                f"linger={self.linger}, max_block={self.max_block}, delivery_timeout={self.delivery_timeout}: "
                "give seconds, 0 or more for the first two, more than 0 for the last"
            )


def new_name() -> str:
    """A producer's name that nobody has; all are of one length."""
    return f"producer-{uuid.uuid4().hex}"


def open_producer(settings: ProducerSettings) -> Steps[dict[int, int]]:
    """The highest sequence that each partition has from the producer; 0: none."""
    request = pb.OpenProducerRequest(topic=settings.topic, producer=settings.name, new_name=not settings.is_named)
    answer = yield "OpenProducer", request
    return {state.partition: state.sequence for state in pb.OpenProducerResponse.FromString(answer).partitions}


def make_buffer(settings: ProducerSettings, sequences: dict[int, int]) -> _core.ProducerBuffer:
    """The buffer of a producer that was opened."""
    return _core.ProducerBuffer(
        settings.topic,
        settings.name,
        list(sequences.values()),
        min(unsigned("batch_bytes", settings.batch_bytes), MAX_BUFFER_BYTES // max(1, len(sequences))),
        _BATCH_RECORDS,
        settings.linger or math.inf,  # what does not linger leaves with whoever added it
    )


def bad_numbers(partition: int | None, timestamp_ns: int) -> InvalidArgumentError:
    """What a record with numbers that fit no field answers."""
    return InvalidArgumentError(
        f"partition={partition}, timestamp_ns={timestamp_ns}: give 0 or more, and a time that fits 64 bits"
    )


def check_keys(values: Sequence[Buffer], keys: Sequence[Buffer | None] | None) -> None:
    """Refuses another number of keys than of values."""
    if keys is not None and len(keys) != len(values):
        raise InvalidArgumentError(f"{len(values)} values and {len(keys)} keys: give a key or None for each")


def add_many(
    buffer: _core.ProducerBuffer,
    values: Sequence[Buffer],
    keys: Sequence[Buffer | None] | None,
    headers: Mapping[str, bytes] | None,
    start: int,
) -> tuple[int, int]:
    """``ProducerBuffer.send_many``, with headers. No frame of Python is entered for a record either way."""
    if not headers:
        return buffer.send_many(values, keys, start)
    indexes = iter(range(start, len(values)))
    answers = map(
        partial(buffer.send, headers=headers),
        map(values.__getitem__, indexes),
        repeat(None) if keys is None else map(keys.__getitem__, range(start, len(values))),
    )
    ready = next(filter(_READY, answers), -1)
    return next(indexes, len(values)), ready


def append_requests(
    topic: str, producer: str, batches: Iterable[tuple[int, Buffer]], sequence: int
) -> list[tuple[int, bytes]]:
    """A Produce request for each partition's encoded records, all under one sequence."""
    requests: dict[int, bytes] = {}
    for partition, records in batches:
        if partition in requests:
            raise InvalidArgumentError(f"partition {partition} is given twice: one sequence is one batch there")
        head = pb.ProduceRequest(
            topic=topic,
            partition=unsigned("a partition", partition, bits=32),
            producer=producer,
            sequence=unsigned("the sequence", sequence),
        )
        # Protobuf fields may stand in any order: the encoded records follow the others as they are.
        requests[partition] = b"".join((head.SerializeToString(), records))
    return list(requests.items())
