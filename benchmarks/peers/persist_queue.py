"""persist-queue: its queue with acks, `SQLiteAckQueue`, a record a call, a commit each."""

from collections.abc import Iterator

from benchmarks.peers.measure import Peer, measure_peer
from benchmarks.results import Result
from benchmarks.workload import Workload

RECORDS = 2000


def measure_persist_queue(workload: Workload) -> Iterator[Result]:
    import persistqueue  # of the group "bench", which need not be installed

    def open_queue(folder: str) -> Peer:
        queue = persistqueue.SQLiteAckQueue(folder)

        def produce(values: list[bytes]) -> None:
            for value in values:
                queue.put(value)

        def consume(records: int) -> Iterator[bytes]:
            for _ in range(records):
                item = queue.get(block=False, raw=True)
                queue.ack(id=item["pqid"])
                yield item["data"]

        return Peer(produce, consume, queue.close)

    yield from measure_peer(
        workload, "persist-queue", open_queue, RECORDS, "SQLiteAckQueue, put, get and ack, one record a call", "WAL"
    )
