"""Ours over theirs, from the same run: how many times the rate of each peer `file://` reaches."""

import sys
from collections.abc import Callable, Iterable, Iterator
from importlib.util import find_spec

from benchmarks.peers.litequeue_queue import measure_litequeue
from benchmarks.peers.persist_queue import measure_persist_queue
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


def measure_peers(workload: Workload, ours: Iterable[Result]) -> Iterator[Result]:
    """Each peer's rates, then ours divided by them; a peer whose package is missing is named and left out."""
    rates = {result.name: result.value for result in ours}
    for name, package, measure, target, produce in PEERS:
        if find_spec(package) is None:
            print(f"{name} is left out: `pip install --group bench` brings it", file=sys.stderr, flush=True)
            continue
        theirs = list(measure(workload))
        yield from theirs
        for measurement, our_name in (("produce", produce), ("consume + ack", "consume + ack")):
            rate = next(result.value for result in theirs if result.name.endswith(measurement))
            yield Result(
                name=f"{measurement}, file:// / {name}",
                value=rates[our_name] / rate,
                unit="times",
                client=f"{our_name}, and {name} as above",
                payload_bytes=PAYLOAD_BYTES,
                durability="os",
                target=target,
            )
