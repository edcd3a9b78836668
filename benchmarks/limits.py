"""What the machine can do at best with the same bytes: the yardstick beside our own figures."""

import os

from benchmarks.results import Result
from benchmarks.workload import PAYLOAD_BYTES, Workload

CHUNK = 1 << 20


def measure_limits(workload: Workload) -> dict[str, Result]:
    """The bytes of all records through write(2), and through memcpy, in pieces of 1 MiB; by name."""
    payload = b"".join(workload.batch)
    chunk = (payload * (CHUNK // len(payload) + 1))[:CHUNK]
    pieces = workload.records * PAYLOAD_BYTES // CHUNK
    target = memoryview(bytearray(CHUNK * 8))

    def write() -> None:
        with workload.scratch() as folder:
            file = os.open(folder / "written", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            try:
                seconds.append(workload.timed(lambda: [os.write(file, chunk) for _ in range(pieces)]))
            finally:
                os.close(file)

    def copy() -> None:
        for i in range(pieces):
            start = i % 8 * CHUNK
            target[start : start + CHUNK] = chunk

    limits = {}
    for name, durability in (("write(2)", "os"), ("memcpy", None)):
        seconds: list[float] = []
        for _ in range(workload.rounds):
            if name == "write(2)":
                write()
            else:
                seconds.append(workload.timed(copy))
        limits[name] = Result(
            name=f"limit: {name}",
            value=workload.rate(pieces * CHUNK // PAYLOAD_BYTES, seconds),
            unit="records/s",
            client="Python, 1 MiB a call, the same bytes",
            payload_bytes=PAYLOAD_BYTES,
            durability=durability,
        )
    return limits
