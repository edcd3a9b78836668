"""litequeue: `put`, `pop` and `done`, one record a call, with the settings it makes itself."""

from collections.abc import Iterator
from pathlib import Path

from benchmarks.peers.measure import Peer, measure_peer
from benchmarks.results import Result
from benchmarks.workload import Workload

RECORDS = 2000


def measure_litequeue(workload: Workload) -> Iterator[Result]:
    import litequeue  # of the group "bench", which need not be installed

    def open_queue(folder: str) -> Peer:
        queue = litequeue.LiteQueue(Path(folder) / "queue.db")

        def produce(values: list[bytes]) -> None:
            for value in values:
                queue.put(value)

        def consume(records: int) -> Iterator[bytes]:
            for _ in range(records):
                message = queue.pop()
                queue.done(message.message_id)
                yield message.data

        return Peer(produce, consume, queue.close)

    yield from measure_peer(
        workload,
        "litequeue",
        open_queue,
        RECORDS,
        "LiteQueue, put, pop and done, one record a call",
        "WAL, synchronous=NORMAL",
    )
