"""What it costs that several brokers are one: a proxy in between, and a client that finds its way itself."""

import statistics
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import telemetry_broker as tb
from benchmarks.broker import TELEMETRY, produce_and_consume, started_broker, texts_of
from benchmarks.latency import SEND_FLUSH, RoundTrip, send_and_flush, take_turns
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


def measure_proxy(workload: Workload) -> Iterator[Result]:
    """The same work each way, durability `os`; the ways take turns."""
    produced: dict[str, list[float]] = {way: [] for way in WAYS}
    consumed: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(workload.rounds):
        for way in WAYS:
            with workload.scratch() as folder, reached(way, folder) as url, tb.connect(url) as client:
                times = produce_and_consume(client, workload)
            for spent, seconds in zip((produced, consumed), times, strict=True):
                spent[way].append(seconds)
    texts = texts_of(workload)
    yield from rates(workload, "produce", texts[0], produced)
    yield from rates(workload, "consume + ack", texts[1], consumed)
    yield from latencies(measure_round_trips(workload))


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


def rates(workload: Workload, name: str, client: str, seconds: Mapping[str, list[float]]) -> Iterator[Result]:
    count = workload.batches * len(workload.batch)
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


def measure_round_trips(workload: Workload) -> Mapping[str, RoundTrip]:
    """One record sent and flushed, one at a time; the ways take turns."""
    with workload.scratch() as folder, ExitStack() as stack:
        round_trips: dict[str, RoundTrip] = {}
        for way in (ONE, THROUGH, BARE):
            own = folder / way.replace(" ", "-")
            own.mkdir()
            client = stack.enter_context(tb.connect(stack.enter_context(reached(way, own))))
            client.create_topic("round-trip", partitions=4, durability="os")
            round_trips[way] = send_and_flush(stack.enter_context(client.producer("round-trip", linger=0)))
        take_turns(list(round_trips.values()))
    return round_trips


def latencies(round_trips: Mapping[str, RoundTrip]) -> Iterator[Result]:
    medians = {way: percentile(round_trip.seconds, 50) for way, round_trip in round_trips.items()}
    for way, seconds in medians.items():
        yield Result(
            name=f"{SEND_FLUSH}, {way}, p50",
            value=seconds * 1000,
            unit="ms",
            client=round_trips[way].client,
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
