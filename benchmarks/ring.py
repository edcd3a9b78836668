"""Ring lookups: 10 nodes of 150 virtual nodes, keys as they come, GPU UUIDs."""

import array
import statistics
from collections.abc import Callable, Iterator

from benchmarks.results import Result
from benchmarks.workload import timed
from telemetry_broker import HashRing

NODES = [f"broker-{i}" for i in range(10)]
KEYS = 100_000
ROUNDS = 9


def measure_ring() -> Iterator[Result]:
    """One lookup at a time beside the cheapest that Python can do instead: `nodes[hash(key) % n]`."""
    ring = HashRing(NODES)
    texts = [f"GPU-{i:08x}-86f3-7a43-b711-4771313afc50" for i in range(KEYS)]
    keys = [text.encode() for text in texts]
    data = b"".join(keys)
    offsets = array.array("i", range(0, len(data) + 1, len(keys[0])))

    limit = rate(lambda: modulo_lookups(keys))
    yield Result("limit: hash % n", limit, "lookups/s", "Python, nodes[hash(key) % n], one at a time")
    for name, client, work, target in (
        ("ring lookups", "node_for(bytes), one at a time", lambda: single_lookups(ring, keys), 3_000_000),
        ("ring lookups", "node_for(str), one at a time", lambda: single_lookups(ring, texts), 3_000_000),
        ("ring lookups", "node_for_each(list of bytes)", lambda: ring.node_for_each(keys), None),
        ("ring lookups", "indexes_for(buffer, offsets)", lambda: ring.indexes_for(data, offsets), None),
    ):
        value = rate(work)
        is_single = target is not None
        yield Result(
            f"{name}, 10 x 150",
            value,
            "lookups/s",
            client,
            target=target,
            limit="hash % n" if is_single else None,
            limit_ratio=value / limit if is_single else None,
        )


def rate(work: Callable[[], object]) -> float:
    return KEYS / statistics.median(timed(work) for _ in range(ROUNDS))


def single_lookups(ring: HashRing, keys: list[bytes] | list[str]) -> None:
    node_for = ring.node_for
    for key in keys:
        node_for(key)


def modulo_lookups(keys: list[bytes]) -> None:
    nodes, n = NODES, len(NODES)
    for key in keys:
        nodes[hash(key) % n]  # as bare as the ring's own loop
