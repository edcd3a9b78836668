"""What a producer is asked and asks: the checks, requests and answers of both faces."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

from telemetry_broker import _core
from telemetry_broker.errors import InvalidArgumentError
from telemetry_broker.positions import unsigned
from telemetry_broker.steps import Steps
from telemetry_broker.v1 import broker_pb2 as pb

if TYPE_CHECKING:
    from typing_extensions import Buffer

MAX_BUFFER_BYTES: Final = 64 * 1024 * 1024
"""Bound of the records that wait in one producer; as much again can be on its way."""

_BATCH_RECORDS: Final = 65_536


def check_times(linger: float, max_block: float, delivery_timeout: float) -> None:
    """Refuses times that are none."""
    if not (linger >= 0 and max_block >= 0 and delivery_timeout > 0):
        raise InvalidArgumentError(
            f"linger={linger}, max_block={max_block}, delivery_timeout={delivery_timeout}: give seconds, "
            "0 or more for the first two, more than 0 for the last"
        )


def producer_name(name: str | None) -> str:
    """The name, or one that nobody has."""
    return name if name is not None else f"producer-{uuid.uuid4().hex}"


def open_producer(topic: str, name: str) -> Steps[dict[int, int]]:
    """The highest sequence that each partition has from the producer; 0: none."""
    answer = yield "OpenProducer", pb.OpenProducerRequest(topic=topic, producer=name)
    return {state.partition: state.sequence for state in pb.OpenProducerResponse.FromString(answer).partitions}


def make_buffer(topic: str, name: str, sequences: dict[int, int], batch_bytes: int) -> _core.ProducerBuffer:
    """The buffer of a producer that was opened."""
    return _core.ProducerBuffer(
        topic,
        name,
        list(sequences.values()),
        min(unsigned("batch_bytes", batch_bytes), MAX_BUFFER_BYTES // max(1, len(sequences))),
        _BATCH_RECORDS,
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
