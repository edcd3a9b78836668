"""What it costs that several brokers are one: a proxy in between, and a client that finds its way itself."""

import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import telemetry_broker as tb
from benchmarks.broker import ACKED_AT_ONCE, MAX_RECORDS, TELEMETRY, consume, produce_many, started_broker
from benchmarks.load import percentile
from benchmarks.processes import HOST, free_port, started
from benchmarks.results import ROOT, Result
from benchmarks.workload import PAYLOAD_BYTES, Workload

ONE = "one broker"
THROUGH = "by telemetry proxy"
BARE = "by a bare aio proxy"
ROUTED = "two brokers, routed by the client"
WAYS = (ONE, THROUGH, BARE, ROUTED)
LEAST_PERCENT = {THROUGH: 45.0, BARE: None, ROUTED: 95.0}
"""Of what one broker does without anything between."""
MOST_OVER_BARE = 1.2
TURNS = 10
CALLS = 200


@dataclass(slots=True)
class Spent:
    """Seconds by way."""

    produce: list[float] = field(default_factory=list)
    consume: list[float] = field(default_factory=list)
    round_trip: list[float] = field(default_factory=list)


def measure_proxy(workload: Workload) -> Iterator[Result]:
    """The same work each way, durability `os`; the ways take turns."""
    spent = {way: Spent() for way in WAYS}
    for _ in range(workload.rounds):
        for way in WAYS:
            with workload.scratch() as folder, reached(way, folder) as url, tb.connect(url) as client:
                client.create_topic("many", partitions=4, durability="os")
                spent[way].produce.append(workload.timed(lambda: produce_many(client, workload)))
                client.create_group("many", "bench")
                work = lambda: consume(client, workload, "bench", ACKED_AT_ONCE)  # noqa: E731
                spent[way].consume.append(workload.timed(work))
    yield from rates(workload, spent)
    measure_round_trips(workload, spent)
    yield from latencies(spent)


@contextmanager
def reached(way: str, folder: Path) -> Iterator[str]:
    """Brokers of their own, and a URL that leads to them this way."""
    with ExitStack() as stack:
        count = 2 if way == ROUTED else 1
        folders = [folder / f"broker-{number}" for number in range(count)]
        for each in folders:
            each.mkdir()
        urls = [stack.enter_context(started_broker(each))[0] for each in folders]
        addresses = [url.removeprefix("grpc://") for url in urls]
        if way in (ONE, ROUTED):
            yield "grpc://" + ",".join(addresses)
            return
        port = free_port()
        command: list[str | Path]
        if way == THROUGH:
            command = [TELEMETRY, "proxy", "--brokers", addresses[0], "--port", "0", "--grpc-port", str(port)]
        else:
            command = [sys.executable, "-m", "benchmarks.bare_proxy", str(port), addresses[0]]
        environment = {"HOST": HOST, "PYTHONPATH": str(ROOT)}
        stack.enter_context(started(way, command, port, folder, environment))
        yield f"grpc://{HOST}:{port}"


def rates(workload: Workload, spent: Mapping[str, Spent]) -> Iterator[Result]:
    count = workload.batches * len(workload.batch)
    works = (
        (
            "produce",
            f"producer.send_many, {len(workload.batch)} values a call",
            {way: each.produce for way, each in spent.items()},
        ),
        (
            "consume + ack",
            f"iterate, up to {MAX_RECORDS} a batch, ack {ACKED_AT_ONCE} batches at once",
            {way: each.consume for way, each in spent.items()},
        ),
    )
    for name, client, seconds in works:
        for way in WAYS:
            yield Result(
                name=f"{name}, {way}",
                value=workload.rate(count, seconds[way]),
                unit="records/s",
                client=client,
                payload_bytes=PAYLOAD_BYTES,
                durability="os",
            )
        for way, least in LEAST_PERCENT.items():
            yield Result(
                name=f"{name}, {way} / {ONE}",
                value=statistics.median(seconds[ONE]) / statistics.median(seconds[way]) * 100,
                unit="%",
                client="the medians of both, which took turns",
                payload_bytes=PAYLOAD_BYTES,
                durability="os",
                target=least,
            )


def measure_round_trips(workload: Workload, spent: Mapping[str, Spent]) -> None:
    """One record sent and flushed, one at a time; the ways take turns."""
    with workload.scratch() as folder, ExitStack() as stack:
        sends: dict[str, Callable[[], None]] = {}
        for way in (ONE, THROUGH, BARE):
            own = folder / way.replace(" ", "-")
            own.mkdir()
            client = stack.enter_context(tb.connect(stack.enter_context(reached(way, own))))
            client.create_topic("round-trip", partitions=4, durability="os")
            producer = stack.enter_context(client.producer("round-trip", linger=0))
            sends[way] = sender(producer)
        for turn in range(TURNS + 1):
            for way, send in sends.items():
                for _ in range(CALLS):
                    begun = time.perf_counter()
                    send()
                    if turn > 0:  # the first turn opens connections
                        spent[way].round_trip.append(time.perf_counter() - begun)


def sender(producer: tb.Producer) -> Callable[[], None]:
    value = bytes(PAYLOAD_BYTES)

    def send_and_flush() -> None:
        producer.send(value)
        producer.flush()

    return send_and_flush


def latencies(spent: Mapping[str, Spent]) -> Iterator[Result]:
    medians = {way: percentile(spent[way].round_trip, 50) for way in (ONE, THROUGH, BARE)}
    for way, seconds in medians.items():
        yield Result(
            name=f"round trip: send and flush, {way}, p50",
            value=seconds * 1000,
            unit="ms",
            client="producer.send and flush, one record, linger 0",
            payload_bytes=PAYLOAD_BYTES,
            durability="os",
            lower_is_better=True,
        )
    yield Result(
        name="added by telemetry proxy / added by a bare aio proxy",
        value=(medians[THROUGH] - medians[ONE]) / (medians[BARE] - medians[ONE]),
        unit="times",
        client="p50 less p50 of one broker, over the same, as above",
        payload_bytes=PAYLOAD_BYTES,
        durability="os",
        target=MOST_OVER_BARE,
        lower_is_better=True,
    )
