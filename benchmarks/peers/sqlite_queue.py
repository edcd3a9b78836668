"""SQLite as well as it can be tuned for a queue: WAL, synchronous=NORMAL, a thousand records a transaction."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

from benchmarks.peers.measure import Peer, measure_peer
from benchmarks.results import Result
from benchmarks.workload import Workload

RECORDS = 200_000
BATCH = 1000


def measure_sqlite(workload: Workload) -> Iterator[Result]:
    yield from measure_peer(
        workload,
        "SQLite",
        open_queue,
        RECORDS,
        f"sqlite3, executemany, {BATCH:,} records a transaction; select, then delete by range",
        "WAL, synchronous=NORMAL",
    )


def open_queue(folder: str) -> Peer:
    connection = sqlite3.connect(Path(folder) / "queue.db", isolation_level=None, cached_statements=16)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA cache_size = -65536")
    connection.execute("CREATE TABLE queue (id INTEGER PRIMARY KEY, value BLOB NOT NULL)")

    def produce(values: list[bytes]) -> None:
        for start in range(0, len(values), BATCH):
            connection.execute("BEGIN IMMEDIATE")
            rows = ((value,) for value in values[start : start + BATCH])
            connection.executemany("INSERT INTO queue (value) VALUES (?)", rows)
            connection.execute("COMMIT")

    def consume(records: int) -> Iterator[bytes]:
        # One consumer, so that what is read needs no mark: the delete is the ack.
        for _ in range(0, records, BATCH):
            rows = connection.execute("SELECT id, value FROM queue ORDER BY id LIMIT ?", (BATCH,)).fetchall()
            yield from [value for _, value in rows]
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("DELETE FROM queue WHERE id <= ?", (rows[-1][0],))
            connection.execute("COMMIT")

    return Peer(produce, consume, connection.close)
