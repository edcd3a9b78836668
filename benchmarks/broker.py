"""Produce, and consume + ack, from one Python process: embedded over file://, and over grpc:// to a broker process."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import telemetry_broker as tb
from benchmarks.bare_grpc import LIMIT_OF, measure_bare
from benchmarks.limits import measure_limits
from benchmarks.peers.compare import measure_peers, measure_servers
from benchmarks.processes import HOST, free_port, started
from benchmarks.results import Result
from benchmarks.workload import PAYLOAD_BYTES, Workload

TELEMETRY = Path(sys.executable).with_name("telemetry")
MAX_RECORDS = 2000
ACKED_AT_ONCE = 4
"""Batches to an ack over `grpc://`, where one alone is a round trip that the client waits for."""
FILE_TARGETS = {"produce": 3_000_000, "produce one by one": 2_000_000, "consume + ack": 2_000_000}
GRPC_TARGETS = {"produce": 1_000_000, "consume + ack": 1_000_000}
EACH = "consume + ack, each batch by itself"
PART_OF_BARE = 60.0
"""Percent of what bare grpcio streams carry."""


def measure_file(workload: Workload) -> Iterator[Result]:
    """`file://`, durability `os`, with what write(2), memcpy and peers make of the same bytes."""
    limits = measure_limits(workload)
    yield from limits.values()
    write = limits["write(2)"]

    @contextmanager
    def embedded(folder: Path) -> Iterator[str]:
        yield f"file://{folder}"

    ours = list(measure_broker(workload, "file://", embedded, FILE_TARGETS, {"consume + ack": 1}))
    for result in ours:
        is_produce = result.name.startswith("produce")
        yield with_limit(result, write) if is_produce else result
    yield from measure_peers(workload, ours)


def measure_grpc(workload: Workload) -> Iterator[Result]:
    """`grpc://` to a `telemetry broker` of its own, durability `os`, with what bare grpcio and peers make of it."""
    bare = {result.name: result for result in measure_bare(workload)}
    yield from bare.values()
    consumers = {"consume + ack": ACKED_AT_ONCE, EACH: 1}
    ours = list(measure_broker(workload, "grpc://", broker_process, GRPC_TARGETS, consumers))
    yield from ours
    for result in ours:
        if limit := bare.get(LIMIT_OF.get(result.name, "")):
            yield Result(
                name=f"{result.name}, grpc:// / bare grpcio stream",
                value=result.value / limit.value * 100,
                unit="%",
                client=f"{result.name}, and the stream as above",
                payload_bytes=PAYLOAD_BYTES,
                durability="os",
                target=PART_OF_BARE,
            )
    yield from measure_servers(workload, ours)


def with_limit(result: Result, limit: Result) -> Result:
    return replace(result, limit=limit.name.removeprefix("limit: "), limit_ratio=result.value / limit.value)


def measure_broker(
    workload: Workload,
    scheme: str,
    broker: Callable[[Path], AbstractContextManager[str]],
    targets: Mapping[str, float],
    consumers: Mapping[str, int],
) -> Iterator[Result]:
    """A new broker and topic of 4 partitions each round; every record that went in has to come out.

    `consumers`: names of what is measured, and how many batches are acked at once.
    """
    many: list[float] = []
    single: list[float] = []
    consumed: dict[str, list[float]] = {name: [] for name in consumers}
    for _ in range(workload.rounds):
        with workload.scratch() as folder, broker(folder) as url, tb.connect(url) as client:
            client.create_topic("many", partitions=4, durability="os")
            client.create_topic("single", partitions=4, durability="os")
            many.append(workload.timed(lambda: produce_many(client, workload)))
            for group, (name, acked_at_once) in enumerate(consumers.items()):
                # Made once for good, with a dozen syncs of the disk that is still busy with what was produced.
                client.create_group("many", f"bench-{group}")
                work = partial(consume, client, workload, f"bench-{group}", acked_at_once)
                consumed[name].append(workload.timed(work))
            single.append(workload.timed(lambda: produce_single(client, workload)))
    sent = workload.batches * len(workload.batch)
    iterate = f"{scheme} iterate, up to {MAX_RECORDS} a batch, values as bytes, "
    acks = {name: "ack each batch" if n == 1 else f"ack {n} batches at once" for name, n in consumers.items()}
    for name, client_text, seconds in (
        ("produce", f"{scheme} producer.send_many, {len(workload.batch)} values a call", many),
        ("produce one by one", f"{scheme} producer.send, one record a call", single),
        *((name, iterate + acks[name], consumed[name]) for name in consumers),
    ):
        yield Result(
            name=name,
            value=workload.rate(sent, seconds),
            unit="records/s",
            client=client_text,
            payload_bytes=PAYLOAD_BYTES,
            durability="os",
            target=targets.get(name),
        )


def produce_and_consume(client: tb.Broker, workload: Workload) -> tuple[float, float]:
    """Seconds that each took, on a topic of its own."""
    client.create_topic("many", partitions=4, durability="os")
    produced = workload.timed(lambda: produce_many(client, workload))
    client.create_group("many", "bench")
    return produced, workload.timed(lambda: consume(client, workload, "bench", ACKED_AT_ONCE))


def texts_of(workload: Workload) -> tuple[str, str]:
    """What the client does in `produce_and_consume`."""
    return (
        f"producer.send_many, {len(workload.batch)} values a call",
        f"iterate, up to {MAX_RECORDS} a batch, ack {ACKED_AT_ONCE} batches at once",
    )


def produce_many(client: tb.Broker, workload: Workload) -> None:
    with client.producer("many") as producer:
        for _ in range(workload.batches):
            producer.send_many(workload.batch)
        producer.flush()


def produce_single(client: tb.Broker, workload: Workload) -> None:
    with client.producer("single") as producer:
        send = producer.send
        for _ in range(workload.batches):
            for value in workload.batch:
                send(value)
        producer.flush()


def consume(client: tb.Broker, workload: Workload, group: str, acked_at_once: int) -> None:
    expected = workload.batches * len(workload.batch)
    seen = seen_bytes = 0
    handled: list[tb.Batch] = []
    with client.consumer(
        "many", group=group, visibility_timeout=60, max_records=MAX_RECORDS, idle_timeout=10
    ) as consumer:
        for batch in consumer:
            values = batch.values
            seen += len(values)
            seen_bytes += sum(map(len, values))
            handled.append(batch)
            if len(handled) == acked_at_once or seen == expected:
                consumer.ack(handled)
                handled.clear()
            if seen == expected:
                break
    if (seen, seen_bytes) != (expected, expected * PAYLOAD_BYTES):
        raise SystemExit(
            f"consume: {expected:,} records of {PAYLOAD_BYTES} B went in, {seen:,} of {seen_bytes:,} B came"
        )


@contextmanager
def broker_process(folder: Path) -> Iterator[str]:
    """A `telemetry broker`, by its URL."""
    with started_broker(folder) as (url, _):
        yield url


@contextmanager
def started_broker(folder: Path, *arguments: object) -> Iterator[tuple[str, int]]:
    """A `telemetry broker` on free ports, told these as well: its URL and its process id."""
    port = free_port()
    command: list[str | Path] = [
        TELEMETRY,
        "broker",
        "--data",
        folder / "data",
        "--port",
        "0",
        "--grpc-port",
        str(port),
        *map(str, arguments),
    ]
    with started("broker", command, port, folder, {"HOST": HOST}) as pid:
        yield f"grpc://{HOST}:{port}", pid
