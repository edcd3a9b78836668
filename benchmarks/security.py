"""What it costs to ask who comes, and to be looked at: TLS and a token, refused calls, and scrapes under load."""

import statistics
import threading
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path

import trustme

import telemetry_broker as tb
from benchmarks.broker import produce_and_consume, produce_many, started_broker, texts_of
from benchmarks.processes import cpu_seconds, free_port
from benchmarks.results import Result
from benchmarks.workload import PAYLOAD_BYTES, Workload
from telemetry_broker import _core

TOKEN = "a-token-of-the-benchmark"
REFUSED_CALLS = 20_000
PARTITIONS = 1000
"""Of the broker that is scraped."""
SCRAPE_SECONDS = 1.0
MOST_PERCENT = {"TLS and a token": 25.0, "a scrape each second": 3.0}


def measure_security(workload: Workload) -> Iterator[Result]:
    yield from measure_tls(workload)
    yield from measure_refusals(workload)
    yield from measure_scrapes(workload)


def measure_tls(workload: Workload) -> Iterator[Result]:
    """The same work in plain text and over TLS with a token; they take turns."""
    seconds: dict[tuple[str, str], list[float]] = {}
    for _ in range(workload.rounds):
        for door in ("grpc://", "grpcs://, TLS and a token"):
            with workload.scratch() as folder, connected(folder, secure=door != "grpc://") as client:
                produced, consumed = produce_and_consume(client, workload)
            seconds.setdefault(("produce", door), []).append(produced)
            seconds.setdefault(("consume + ack", door), []).append(consumed)
    count = workload.batches * len(workload.batch)
    texts = dict(zip(("produce", "consume + ack"), texts_of(workload), strict=True))
    for (name, door), spent in seconds.items():
        yield Result(
            name=f"{name}, {door}",
            value=workload.rate(count, spent),
            unit="records/s",
            client=texts[name],
            payload_bytes=PAYLOAD_BYTES,
            durability="os",
        )
    for name in texts:
        plain, secure = (spent for (each, _), spent in seconds.items() if each == name)
        yield cost("TLS and a token", name, plain, secure)


def measure_refusals(workload: Workload) -> Iterator[Result]:
    """Calls with a wrong token, over a connection that stays: processor time of the broker for each."""
    with workload.scratch() as folder, guarded(folder, secure=False) as (url, pid):
        channel = _core.Channel(url.removeprefix("grpc://"), token="a-wrong-token-all-the-time")
        before = cpu_seconds(pid)
        for _ in range(REFUSED_CALLS):
            try:
                channel.call("ListTopics", b"", 10)
            except _core.CallError:
                continue
            raise SystemExit("a call with a wrong token was answered")
        spent = cpu_seconds(pid) - before
        channel.close()
    yield Result(
        name="a refused call: CPU of the broker",
        value=spent / REFUSED_CALLS * 1000,
        unit="ms",
        client=f"{REFUSED_CALLS:,} calls with a wrong token, one after the other",
        target=1,
        lower_is_better=True,
    )


def measure_scrapes(workload: Workload) -> Iterator[Result]:
    """Produce while nobody looks, and while /metrics is asked for each second; they take turns."""
    http = free_port()
    seconds: dict[bool, list[float]] = {False: [], True: []}
    with workload.scratch() as folder, started_broker(folder, "--port", http) as (url, _), tb.connect(url) as client:
        client.create_topic("idle", partitions=PARTITIONS, durability="os")
        for turn in range(8 * workload.rounds):
            looking = turn % 4 in (1, 2)  # neither comes always behind the other
            client.create_topic("many", partitions=4, durability="os")
            with scraping(http) if looking else nullcontext():
                seconds[looking].append(workload.timed(lambda: produce_many(client, workload)))
            client.delete_topic("many")
    name = f"produce, with {PARTITIONS:,} partitions"
    yield cost("a scrape each second", name, seconds[False], seconds[True])


def cost(of: str, name: str, without: Sequence[float], with_it: Sequence[float]) -> Result:
    """How much less is done in a time."""
    return Result(
        name=f"cost of {of}: {name}",
        value=(1 - statistics.median(without) / statistics.median(with_it)) * 100,
        unit="%",
        client="the medians of both, which took turns",
        payload_bytes=PAYLOAD_BYTES,
        durability="os",
        target=MOST_PERCENT[of],
        lower_is_better=True,
    )


@contextmanager
def connected(folder: Path, *, secure: bool) -> Iterator[tb.Broker]:
    if not secure:
        with started_broker(folder) as (url, _), tb.connect(url) as client:
            yield client
        return
    with ExitStack() as stack:
        url, _ = stack.enter_context(guarded(folder, secure=True))
        yield stack.enter_context(tb.connect(url, token=TOKEN, ca_file=folder / "ca.pem"))


@contextmanager
def guarded(folder: Path, *, secure: bool) -> Iterator[tuple[str, int]]:
    """A broker that asks for a token, and speaks TLS if told so: its URL and its process id."""
    tokens = folder / "tokens"
    tokens.write_text(TOKEN)
    arguments: list[str | Path] = ["--service-token-file", tokens]
    if secure:
        authority = trustme.CA()
        authority.cert_pem.write_to_path(folder / "ca.pem")
        issued = authority.issue_cert("127.0.0.1")
        chain, key = folder / "server.pem", folder / "server.key"
        chain.write_bytes(b"".join(part.bytes() for part in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(key)
        arguments += ["--tls-cert-file", chain, "--tls-key-file", key]
    with started_broker(folder, *arguments) as (url, pid):
        yield url.replace("grpc:", "grpcs:") if secure else url, pid


@contextmanager
def scraping(port: int) -> Iterator[None]:
    """Asks for the metrics, again and again."""
    ended = threading.Event()

    def scrape() -> None:
        while True:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
                answer.read()
            if ended.wait(SCRAPE_SECONDS):
                return

    scraper = threading.Thread(target=scrape)
    scraper.start()
    try:
        yield
    finally:
        ended.set()
        scraper.join()
