"""Ours over theirs, from the same run: libraries beside `file://`, servers beside `grpc://`."""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.util import find_spec

from benchmarks.peers.kafka_broker import KAFKA
from benchmarks.peers.litequeue_queue import measure_litequeue
from benchmarks.peers.measure import measure_peer, take_all
from benchmarks.peers.nats_jetstream import NATS, NATS_PUSH
from benchmarks.peers.persist_queue import measure_persist_queue
from benchmarks.peers.server import Running, Server
from benchmarks.peers.sqlite_queue import measure_sqlite
from benchmarks.results import Result
from benchmarks.workload import PAYLOAD_BYTES, Workload

Measure = Callable[[Workload], Iterator[Result]]

# The peer's name, its package, how it is measured, how many times its rate ours must be, and which of our ways to
# produce does the same work: a record a call, or a batch.
PEERS: tuple[tuple[str, str, Measure, float, str], ...] = (
    ("persist-queue", "persistqueue", measure_persist_queue, 500, "produce one by one"),
    ("litequeue", "litequeue", measure_litequeue, 100, "produce one by one"),
    ("SQLite", "sqlite3", measure_sqlite, 10, "produce"),
)

SERVERS: tuple[Server, ...] = (KAFKA, NATS, NATS_PUSH)


def measure_peers(workload: Workload, ours: Iterable[Result]) -> Iterator[Result]:
    """Each peer's rates, then ours divided by them; a peer whose package is missing is named and left out."""
    rates = {result.name: result.value for result in ours}
    for name, package, measure, target, produce in PEERS:
        if find_spec(package) is None:
            print(f"{name} is left out: `pip install --group bench` brings it", file=sys.stderr, flush=True)
            continue
        theirs = list(measure(workload))
        yield from theirs
        yield from as_times("file://", name, rates, theirs, target, produce)


def measure_servers(workload: Workload, ours: Iterable[Result]) -> Iterator[Result]:
    """The same for servers, each of which is started once."""
    rates = {result.name: result.value for result in ours}
    for server, running in running_servers(workload, SERVERS):
        theirs = list(
            measure_peer(
                workload, server.name, running.open_queue, server.most_records, server.client, server.durability
            )
        )
        yield from theirs
        yield from as_times("grpc://", server.name, rates, theirs, server.times, "produce")


def running_servers(workload: Workload, servers: Iterable[Server]) -> Iterator[tuple[Server, Running]]:
    """Each server while it runs, warm from a round that does not count; one that lacks something is left out."""
    for server in servers:
        if lacking := server.missing():
            print(f"{server.name} is left out: {lacking}", file=sys.stderr, flush=True)
            continue
        with workload.scratch() as folder, server.started(folder) as running:
            warm_up(workload, server, running)
            yield server, running


def warm_up(workload: Workload, server: Server, running: Running) -> None:
    with workload.scratch() as folder:
        peer = running.open_queue(str(folder))
        try:
            values = workload.batch * (min(server.most_records, workload.records) // len(workload.batch))
            peer.produce(values)
            take_all(server.name, peer, values)
        finally:
            peer.close()


def as_times(
    scheme: str, name: str, ours: Mapping[str, float], theirs: Iterable[Result], target: float | None, produce: str
) -> Iterator[Result]:
    """Our rates divided by a peer's; `produce` names which of our ways to produce does the same work."""
    rates = {result.name.removeprefix(f"{name}: "): result.value for result in theirs}
    for measurement, our_name in (("produce", produce), ("consume + ack", "consume + ack")):
        yield Result(
            name=f"{measurement}, {scheme} / {name}",
            value=ours[our_name] / rates[measurement],
            unit="times",
            client=f"{our_name}, and {name} as above",
            payload_bytes=PAYLOAD_BYTES,
            durability="os",
            target=target,
        )
