"""Topics and groups are made, shown, changed and deleted; what is wrong with a request is said alike everywhere."""

from collections.abc import Callable

import pytest

import telemetry_broker as tb
from telemetry_broker.v1 import broker_pb2 as pb
from tests.integration.contract.engines import TIMEOUT, Engine


def test_a_topic_is_made_once_with_defaults_filled_in(broker: tb.Broker) -> None:
    topic = broker.create_topic("t")
    assert topic.name == "t"
    assert topic.config_version == 1
    assert topic.config == tb.TopicConfig(
        partitions=4,
        durability="os",
        retention=86_400.0,
        retention_bytes=1024**3,
        max_partition_bytes=None,
        full_policy="reject",
        segment_bytes=64 * 1024**2,
        max_attempts=20,
        visibility_timeout=30.0,
    )
    assert broker.create_topic("t") == topic
    assert broker.create_topic("t", partitions=4) == topic
    assert broker.topics() == [topic]


def test_every_part_of_a_configuration_is_kept(broker: tb.Broker) -> None:
    topic = broker.create_topic(
        "t",
        partitions=7,
        durability="memory",
        retention=1.5,
        retention_bytes=0,
        max_partition_bytes=10 * 1024**2,
        full_policy="drop_oldest",
        segment_bytes=1024**2,
        max_attempts=0,
        visibility_timeout=0.25,
    )
    assert topic.config == tb.TopicConfig(7, "memory", 1.5, 0, 10 * 1024**2, "drop_oldest", 1024**2, 0, 0.25)
    assert broker.describe_topic("t").topic == topic


def test_a_topic_is_changed_by_what_is_given_and_by_version(broker: tb.Broker) -> None:
    broker.create_topic("t", partitions=2)
    changed = broker.configure_topic("t", partitions=3, retention=60, if_version=1)
    assert (changed.config.partitions, changed.config.retention, changed.config_version) == (3, 60.0, 2)
    assert changed.config.visibility_timeout == 30.0
    assert len(broker.describe_topic("t").partitions) == 3
    with pytest.raises(tb.ConflictError) as caught:
        broker.configure_topic("t", retention=1, if_version=1)
    assert caught.value.code == "topic.version"
    with pytest.raises(tb.InvalidArgumentError):
        broker.configure_topic("t", partitions=1)


def test_a_topic_shows_its_partitions(broker: tb.Broker) -> None:
    broker.create_topic("t", partitions=2)
    with broker.producer("t") as producer:
        producer.send(b"a", partition=1)
    first, second = broker.describe_topic("t").partitions
    assert (first.partition, first.start_offset, first.end_offset) == (0, 0, 0)
    assert (second.partition, second.start_offset, second.end_offset) == (1, 0, 1)
    assert first.log_id != second.log_id
    assert second.last_append_time_ns > 0
    assert (second.poisoned, second.recovered_cut_bytes) == ("", 0)
    assert (second.dropped_records, second.forgotten_producers) == (0, 0)


def test_a_purge_deletes_records_and_keeps_offsets(broker: tb.Broker) -> None:
    broker.create_topic("t", partitions=2)
    with broker.producer("t") as producer:
        for partition in range(2):
            for _ in range(3):
                producer.send(b"x", partition=partition)
    assert broker.purge_topic("t", [0]) == 3
    assert not broker.read("t", 0)
    assert len(broker.read("t", 1)) == 3
    assert broker.purge_topic("t") == 3
    with broker.producer("t") as producer:
        producer.send(b"y", partition=0)
    assert broker.read("t", 0).offsets == [3]


def test_a_deleted_topic_is_gone_and_can_be_made_anew(broker: tb.Broker) -> None:
    broker.create_topic("t", partitions=1)
    with broker.producer("t") as producer:
        producer.send(b"a")
    log_id = broker.describe_topic("t").partitions[0].log_id
    broker.delete_topic("t")
    assert broker.topics() == []
    broker.create_topic("t", partitions=1)
    state = broker.describe_topic("t").partitions[0]
    assert state.end_offset == 0
    assert state.log_id != log_id


def test_the_broker_describes_itself(broker: tb.Broker) -> None:
    broker.create_topic("t", partitions=3)
    state = broker.describe()
    ids = [member.broker_id for member in state.members] or [state.broker_id]
    assert [len(broker_id) for broker_id in ids] == [8] * len(ids)
    assert state.version == tb.__version__
    assert state.partitions == 3
    assert not state.draining


@pytest.mark.parametrize(
    ("code", "error", "call"),
    [
        ("topic.not_found", tb.NotFoundError, lambda broker: broker.describe_topic("nowhere")),
        ("topic.not_found", tb.NotFoundError, lambda broker: broker.delete_topic("nowhere")),
        ("topic.not_found", tb.NotFoundError, lambda broker: broker.producer("nowhere")),
        ("topic.not_found", tb.NotFoundError, lambda broker: broker.consumer("nowhere", "g").receive()),
        ("topic.not_found", tb.NotFoundError, lambda broker: broker.read("nowhere", 0)),
        ("partition.not_found", tb.NotFoundError, lambda broker: broker.read("t", 99)),
        ("partition.not_found", tb.NotFoundError, lambda broker: broker.consumer("t", "g", partitions=[9]).receive()),
        ("group.not_found", tb.NotFoundError, lambda broker: broker.describe_group("t", "nobody")),
        ("group.not_found", tb.NotFoundError, lambda broker: broker.seek("t", "nobody", tb.START)),
        ("topic.exists", tb.ConflictError, lambda broker: broker.create_topic("t", partitions=5)),
        ("invalid.name", tb.InvalidArgumentError, lambda broker: broker.create_topic("../t")),
        ("invalid.name", tb.InvalidArgumentError, lambda broker: broker.create_topic("")),
        ("invalid.name", tb.InvalidArgumentError, lambda broker: broker.create_topic("t" * 201)),
        ("invalid.name", tb.InvalidArgumentError, lambda broker: broker.create_group("t", "a/b")),
        ("invalid.argument", tb.InvalidArgumentError, lambda broker: broker.create_topic("u", partitions=0)),
        ("invalid.argument", tb.InvalidArgumentError, lambda broker: broker.create_topic("u", partitions=4097)),
        ("invalid.argument", tb.InvalidArgumentError, lambda broker: broker.create_topic("u", segment_bytes=1)),
        ("invalid.argument", tb.InvalidArgumentError, lambda broker: broker.create_topic("u", max_attempts=1001)),
        ("invalid.argument", tb.InvalidArgumentError, lambda broker: broker.create_topic("u", retention=-1)),
        ("invalid.argument", tb.InvalidArgumentError, lambda broker: broker.create_topic("u", durability="maybe")),
        ("invalid.argument", tb.InvalidArgumentError, lambda broker: broker.consumer("t", "g").receive(max_records=0)),
        ("invalid.argument", tb.InvalidArgumentError, lambda broker: broker.consumer("t", "g").receive(wait=-1)),
        (
            "invalid.argument",
            tb.InvalidArgumentError,
            lambda broker: broker.consumer("t", "g", visibility_timeout=43_201),
        ),
        ("invalid.argument", tb.InvalidArgumentError, lambda broker: broker.consumer("t", "g", idle_timeout=-1)),
        ("invalid.argument", tb.InvalidArgumentError, lambda broker: broker.consumer("t", "g", reconnect_timeout=-1)),
        ("invalid.argument", tb.InvalidArgumentError, lambda broker: broker.producer("t", linger=-1)),
        ("invalid.argument", tb.InvalidArgumentError, lambda broker: broker.producer("t", batch_bytes=0)),
        ("invalid.argument", tb.InvalidArgumentError, lambda broker: broker.read("t", -1)),
        ("invalid.argument", tb.InvalidArgumentError, lambda broker: broker.read("t", 0, -1)),
    ],
)
def test_an_error_has_its_class_its_code_and_a_message(
    broker: tb.Broker, code: str, error: type[tb.BrokerError], call: Callable[[tb.Broker], object]
) -> None:
    broker.create_topic("t", partitions=4)
    with pytest.raises(error) as caught:
        call(broker)
    assert caught.value.code == code
    assert len(caught.value.message) > 10
    assert str(caught.value) == f"{code}: {caught.value.message}"


def stale_ack(broker: tb.Broker) -> None:
    broker.purge_topic("t")
    with broker.producer("t") as producer:
        producer.send(b"a", partition=0)
    with broker.consumer("t", "stale") as consumer:
        batch = consumer.receive(wait=TIMEOUT)
        broker.seek("t", "stale", tb.START)
        batch.ack()


def with_producer(broker: tb.Broker, work: Callable[[tb.Producer], object]) -> None:
    producer = broker.producer("t", name="n")
    try:
        work(producer)
    finally:
        producer.close(flush=False)


def encode(*values: bytes) -> bytes:
    return pb.RecordBatch(records=[pb.Record(value=value) for value in values]).SerializeToString()


MIB = 1024 * 1024


@pytest.mark.parametrize(
    ("code", "says", "call"),
    [
        ("topic.not_found", 'no topic "nowhere"; create it', lambda b: b.describe_topic("nowhere")),
        ("topic.not_found", 'no topic "nowhere"; create it', lambda b: b.consumer("nowhere", "g").receive()),
        ("topic.not_found", 'no topic "nowhere"; create it', lambda b: b.producer("nowhere")),
        ("group.not_found", 'topic "t" has no group "nobody"; a group is', lambda b: b.describe_group("t", "nobody")),
        ("group.not_found", 'topic "t" has no group "nobody"; a group is', lambda b: b.delete_group("t", "nobody")),
        ("partition.not_found", "0 to 1, not 9; give one of these", lambda b: b.read("t", 9)),
        ("partition.not_found", "0 to 1, not 9", lambda b: b.consumer("t", "g", partitions=[9]).receive()),
        ("partition.not_found", "0 to 1, not 9", lambda b: b.purge_topic("t", [9])),
        (
            "invalid.argument",
            "partition 9 does not exist",
            lambda b: with_producer(b, lambda p: p.send(b"", partition=9)),
        ),
        (
            "partition.not_found",
            "0 to 1, not 9",
            lambda b: with_producer(b, lambda p: p.append(encode(b"a"), partition=9, sequence=1)),
        ),
        ("invalid.argument", "may have 1048576", lambda b: with_producer(b, lambda p: p.send(bytes(MIB + 1)))),
        ("invalid.argument", "may have 1048576", lambda b: with_producer(b, lambda p: p.send(b"", key=bytes(MIB + 1)))),
        (
            "invalid.batch",
            "it has 1048581 bytes, a record may have 1048576; nothing of the batch was stored",
            lambda b: with_producer(b, lambda p: p.append(encode(bytes(MIB + 1)), partition=0, sequence=1)),
        ),
        (
            "invalid.batch",
            "more than 8388608 bytes; send it as several",
            lambda b: with_producer(b, lambda p: p.append(encode(*[bytes(MIB - 9)] * 9), partition=0, sequence=1)),
        ),
        (
            "invalid.batch",
            "malformed protobuf",
            lambda b: with_producer(b, lambda p: p.append(b"\x7a\x05no", partition=0, sequence=1)),
        ),
        ("lease.stale", "t/0 offsets 0 to 0", stale_ack),
        ("position.out_of_range", "it has no 99: give an offset up to 0", lambda b: b.read("t", 0, 99)),
        ("invalid.name", '"../t" is not allowed: 1 to 200 characters', lambda b: b.create_topic("../t")),
        (
            "invalid.argument",
            "partitions is 5000, it must be 1 to 4096",
            lambda b: b.create_topic("u", partitions=5000),
        ),
        ("topic.exists", "describe it, and configure it", lambda b: b.create_topic("t", partitions=3)),
    ],
)
def test_bad_input_is_named_with_its_remedy_in_the_same_words_near_and_far(
    engine: Engine, code: str, says: str, call: Callable[[tb.Broker], object]
) -> None:
    with tb.connect("mem://") as near:
        errors = []
        for broker in (near, engine.broker):
            broker.create_topic("t", partitions=2)
            with pytest.raises(tb.BrokerError) as caught:
                call(broker)
            errors.append((type(caught.value), caught.value.code, caught.value.message))
    assert errors[0] == errors[1]
    assert errors[0][1] == code
    assert says in errors[0][2]


def test_a_closed_broker_says_so(broker: tb.Broker) -> None:
    broker.create_topic("t")
    consumer = broker.consumer("t", "g")
    producer = broker.producer("t")
    broker.close()
    broker.close()
    for call in (broker.topics, consumer.receive, lambda: producer.send(b"a")):
        with pytest.raises(tb.ClosedError):
            call()
