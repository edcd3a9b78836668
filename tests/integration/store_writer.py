"""A collector in miniature, to be killed: stores known rows from where the store stands, and tells each commit.

    python store_writer.py FOLDER LOG_ID END [CRASH_AT]

Writes until offset END, then ends. With CRASH_AT it kills itself in place of that sync (1 is the first).
"""

import os
import signal
import sys
from pathlib import Path

import pyarrow as pa

from telemetry_services.store import OffsetRange
from telemetry_services.store.delta import DeltaStore

BATCH = 7
HOUR_NS = 3_600_000_000_000


def known_time_ns(offset: int) -> int:
    """Two days, and nanoseconds."""
    return offset * HOUR_NS % (48 * HOUR_NS) + offset


def known_rows(first: int, end: int) -> pa.Table:
    """The rows of these offsets, with a new metric every 16 offsets or so."""
    offsets = range(first, end)
    return pa.table(
        {
            "time": pa.array([known_time_ns(offset) for offset in offsets], pa.timestamp("ns", tz="UTC")),
            "uuid": [f"GPU-{offset % 5}" for offset in offsets],
            "offset": [str(offset) for offset in offsets],
            f"metric_{first // 16}": [float(offset) for offset in offsets],
        }
    )


def main(folder: str, log_id: str, end: str, crash_at: str = "0") -> None:
    syncs = 0

    def fsync(descriptor: int) -> None:
        nonlocal syncs
        syncs += 1
        if syncs == int(crash_at):
            os.kill(os.getpid(), signal.SIGKILL)
        os.fsync(descriptor)

    store = DeltaStore(Path(folder), fsync=fsync)
    position = store.positions([log_id]).get(log_id, 0)
    while position < int(end):
        after = min(position + BATCH, int(end))
        store.write([known_rows(position, after)], {log_id: OffsetRange(position, after)})
        position = after
        sys.stdout.write(f"{position}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
