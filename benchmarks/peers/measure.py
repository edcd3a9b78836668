"""What a peer is to the harness, and how one is measured."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from benchmarks.results import Result
from benchmarks.workload import PAYLOAD_BYTES, Workload


@dataclass(frozen=True, slots=True)
class Peer:
    """An open queue on a folder of its own."""

    produce: Callable[[list[bytes]], None]
    """Returns when the records are stored."""
    consume: Callable[[int], Iterator[bytes]]
    """Yields so many records, each batch of them taken off the queue for good."""
    close: Callable[[], None]


def measure_peer(
    workload: Workload, name: str, open_queue: Callable[[str], Peer], most_records: int, client: str, durability: str
) -> Iterator[Result]:
    """The rates of a peer; slow ones are given fewer records, for a rate needs no more."""
    records = min(most_records, workload.records)
    values = [workload.batch[i % len(workload.batch)] for i in range(records)]
    produced: list[float] = []
    consumed: list[float] = []
    for _ in range(workload.rounds):
        with workload.scratch() as folder:
            peer = open_queue(str(folder))
            try:
                produced.append(workload.timed(partial(peer.produce, values)))
                consumed.append(workload.timed(partial(take_all, name, peer, values)))
            finally:
                peer.close()
    for measurement, seconds in (("produce", produced), ("consume + ack", consumed)):
        yield Result(
            name=f"{name}: {measurement}",
            value=workload.rate(records, seconds),
            unit="records/s",
            client=f"{client}; {records:,} records",
            payload_bytes=PAYLOAD_BYTES,
            durability=durability,
        )


def take_all(name: str, peer: Peer, values: list[bytes]) -> None:
    seen = seen_bytes = 0
    for value in peer.consume(len(values)):
        seen += 1
        seen_bytes += len(value)
    if (seen, seen_bytes) != (len(values), sum(map(len, values))):
        raise SystemExit(f"{name}: {len(values):,} records went in, {seen:,} of {seen_bytes:,} B came out")
