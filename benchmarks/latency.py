"""How long one record takes over `grpc://`: stored and answered, and from `send` to the handler of a consumer."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import grpc

import telemetry_broker as tb
from benchmarks.bare_grpc import bare_server
from benchmarks.bare_grpc_server import OPTIONS
from benchmarks.bare_grpc_server import SERVICE as BARE
from benchmarks.broker import started_broker
from benchmarks.load import Arrivals, Load, percentile, precise_loop
from benchmarks.peers.compare import running_servers
from benchmarks.peers.kafka_broker import KAFKA
from benchmarks.peers.nats_jetstream import NATS
from benchmarks.results import Result
from benchmarks.workload import PAYLOAD_BYTES, Workload
from telemetry_broker import aio
from telemetry_broker.v1 import broker_pb2 as pb
from telemetry_broker.v1 import broker_pb2_grpc as stubs

RECORDS_PER_SECOND = 2000
TURNS = 10
CALLS = 200
"""Of each kind in a turn; the kinds take turns, so that a noisy neighbour meets all of them."""
EMPTY = "limit: empty grpcio round trip"
SEND_FLUSH = "round trip: send and flush"
PRODUCE = "round trip: Produce"
MOST_OVER_EMPTY = 1.3
END_TO_END_TARGETS = {50.0: 0.8, 99.0: 3.0}
"""Milliseconds by percentile."""
MOST_END_TO_END_OVER_EMPTY = 2.0
ACK_SECONDS = 0.01
"""Between two acks, at least."""
WARM_UPS = 2
"""Loads that do not count: a Java server that meets many small requests for the first time is late by seconds."""
LATENCY_PEERS = (KAFKA, NATS)


B = TypeVar("B")


class Held(Generic[B]):
    """Handled batches that are acked together, as Kafka's consumer commits.

    A program that acks each batch by itself asks the broker as often as it gets something.
    """

    def __init__(self) -> None:
        self._batches: list[B] = []
        self._acked = time.perf_counter()

    def is_due(self, batch: B) -> bool:
        """Takes one, and says whether the last ack was long enough ago."""
        self._batches.append(batch)
        return time.perf_counter() - self._acked >= ACK_SECONDS

    def taken(self) -> list[B]:
        """What is to be acked now."""
        batches, self._batches = self._batches, []
        self._acked = time.perf_counter()
        return batches


@dataclass(frozen=True, slots=True)
class RoundTrip:
    """Something that returns when its answer is here."""

    client: str
    call: Callable[[], object]
    seconds: list[float]
    durability: str | None = None


def measure_latency(workload: Workload, load: Load) -> Iterator[Result]:
    """`grpc://` to a broker of its own, durability `os`, beside empty round trips of bare grpcio and the peers."""
    with workload.scratch() as folder, bare_server(folder) as bare, started_broker(folder) as (url, _):
        round_trips = measure_round_trips(bare, url)
        threads = broker_latencies(url, load)
        with asyncio.Runner(loop_factory=precise_loop) as runner:
            event_loop = runner.run(aio_latencies(url, load))
    empty = percentile(round_trips[EMPTY].seconds, 50)
    yield from round_trip_results(round_trips, empty)
    for name, client, arrivals in (
        ("grpc://", "send with linger 0, iterate in a thread, acks each 10 ms", threads),
        ("grpc:// on asyncio", "the same as two tasks of telemetry_broker.aio", event_loop),
    ):
        yield from end_to_end_results(name, client, "os", arrivals)
        median = percentile(arrivals.warmed(), 50)
        yield over_empty(f"end to end, {name} / empty grpcio round trip", median, empty, MOST_END_TO_END_OVER_EMPTY)
    for server, running in running_servers(workload, LATENCY_PEERS):
        for _ in range(WARM_UPS):
            running.latencies(load)
        yield from end_to_end_results(server.name, server.latency_client, server.durability, running.latencies(load))


def measure_round_trips(bare: str, url: str) -> Mapping[str, RoundTrip]:
    """One at a time, one after the other, in turns."""
    with (
        grpc.insecure_channel(bare, options=OPTIONS) as bare_channel,
        grpc.insecure_channel(url.removeprefix("grpc://"), options=OPTIONS) as channel,
        tb.connect(url) as broker,
    ):
        broker.create_topic("round-trip", partitions=4, durability="os")
        producer = broker.producer("round-trip", linger=0)
        value = bytes(PAYLOAD_BYTES)
        request = pb.ProduceRequest(topic="round-trip", partition=0)
        request.records.add().value = value
        answer: grpc.UnaryUnaryMultiCallable[bytes, bytes] = bare_channel.unary_unary(f"/{BARE}/Answer")
        stub = stubs.BrokerServiceStub(channel)

        round_trips = {
            EMPTY: RoundTrip("grpc, an empty unary call to an empty handler", lambda: answer(b""), []),
            PRODUCE: RoundTrip("generated stub, Produce of one record", lambda: stub.Produce(request), [], "os"),
            SEND_FLUSH: send_and_flush(producer),
        }
        take_turns(list(round_trips.values()))
        producer.close()
    return round_trips


def send_and_flush(producer: tb.Producer) -> RoundTrip:
    value = bytes(PAYLOAD_BYTES)

    def call() -> None:
        producer.send(value)
        producer.flush()

    return RoundTrip("grpc:// producer.send and flush, one record, linger 0", call, [], "os")


def take_turns(round_trips: Sequence[RoundTrip]) -> None:
    """Measures them, one call at a time."""
    for turn in range(TURNS + 1):
        for round_trip in round_trips:
            for _ in range(CALLS):
                started = time.perf_counter()
                round_trip.call()
                if turn > 0:  # the first turn opens connections
                    round_trip.seconds.append(time.perf_counter() - started)


def round_trip_results(round_trips: Mapping[str, RoundTrip], empty: float) -> Iterator[Result]:
    for name, round_trip in round_trips.items():
        for percent in (50.0, 99.0):
            yield Result(
                f"{name}, p{percent:.0f}",
                percentile(round_trip.seconds, percent) * 1000,
                "ms",
                round_trip.client,
                PAYLOAD_BYTES if round_trip.durability else None,
                round_trip.durability,
                lower_is_better=True,
            )
    for name in (PRODUCE, SEND_FLUSH):
        yield over_empty(f"{name} / empty", percentile(round_trips[name].seconds, 50), empty, MOST_OVER_EMPTY)


def over_empty(name: str, seconds: float, empty: float, most: float) -> Result:
    return Result(
        name, seconds / empty, "times", "p50 over p50, as above", PAYLOAD_BYTES, "os", most, lower_is_better=True
    )


def broker_latencies(url: str, load: Load) -> Arrivals:
    arrivals = load.arrivals()
    with tb.connect(url) as broker:
        broker.create_topic("latency", partitions=4, durability="os")

        def take() -> None:
            with broker.consumer("latency", group="bench", visibility_timeout=60, idle_timeout=10) as consumer:
                held: Held[tb.Batch] = Held()
                for batch in consumer:
                    for value in batch.values:
                        arrivals.take(value)
                    if held.is_due(batch) or arrivals.complete:
                        consumer.ack(held.taken())
                    if arrivals.complete:
                        return

        taker = threading.Thread(target=take, daemon=True)
        taker.start()
        with broker.producer("latency", linger=0) as producer:
            for value in load.paced():
                producer.send(value)
        taker.join()
    return checked(arrivals)


async def aio_latencies(url: str, load: Load) -> Arrivals:
    arrivals = load.arrivals()
    async with aio.connect(url) as broker:
        await broker.create_topic("latency-aio", partitions=4, durability="os")

        async def take() -> None:
            async with broker.consumer(
                "latency-aio", group="bench", visibility_timeout=60, idle_timeout=10
            ) as consumer:
                held: Held[aio.Batch] = Held()
                async for batch in consumer:
                    for value in batch.values:
                        arrivals.take(value)
                    if held.is_due(batch) or arrivals.complete:
                        await consumer.ack(held.taken())
                    if arrivals.complete:
                        return

        taker = asyncio.create_task(take())
        async with broker.producer("latency-aio", linger=0) as producer:
            async for value in load.paced_async():
                await producer.send(value)
        await taker
    return checked(arrivals)


def checked(arrivals: Arrivals) -> Arrivals:
    if not arrivals.complete:
        raise SystemExit(
            f"latency: {arrivals.expected:,} records went in, {len(arrivals.seconds):,} came, then none for 10 s"
        )
    return arrivals


def end_to_end_results(name: str, client: str, durability: str, arrivals: Arrivals) -> Iterator[Result]:
    seconds = arrivals.warmed()
    for percent, target in END_TO_END_TARGETS.items():
        yield Result(
            f"{name}: end to end, p{percent:.0f}",
            percentile(seconds, percent) * 1000,
            "ms",
            f"{client}; {arrivals.rate:,.0f} records/s sent",
            PAYLOAD_BYTES,
            durability,
            target if name.startswith("grpc://") else None,
            lower_is_better=True,
        )
