"""What every client is given to do, ours and a peer's, and what a figure is: the median of several rounds."""

import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

PAYLOAD_BYTES = 450


def _payloads(count: int) -> list[bytes]:
    """Distinct line-protocol points of 450 bytes, as one GPU's scrape makes them."""
    payloads = []
    for i in range(count):
        point = f"gpu,gpu={i % 8},hostname=mtv5-dgx1-hgpu-{i // 8:03},uuid=GPU-{i:08x}-86f3-7a43-b711-4771313afc50 "
        fields = ",".join(f"DCGM_FI_DEV_METRIC_{n}={(i * 31 + n * 7) % 1000}" for n in range(20))
        stamp = f" {1_752_871_354_000_000_000 + i}"
        payloads.append((point + fields)[: PAYLOAD_BYTES - len(stamp)].encode() + stamp.encode())
    return payloads


@dataclass(frozen=True)
class Workload:
    """Records to move, how often, and where there is room for it."""

    records: int
    rounds: int
    folder: Path
    batch: list[bytes] = field(default_factory=lambda: _payloads(1000))
    """A thousand payloads; sent over and over."""

    @property
    def batches(self) -> int:
        return self.records // len(self.batch)

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A folder for one round."""
        with TemporaryDirectory(dir=self.folder, prefix="bench-") as name:
            yield Path(name)

    def timed(self, work: Callable[[], object]) -> float:
        """As the function, with memory for the files of the work at hand.

        A virtual machine gets its memory from its host page by page, at the first touch, and gives back what was free
        for a while. What a file is written to then costs several times as much as on a machine that runs for long,
        which is what a rate is about; so the pages are touched before.
        """
        chunk = bytes(1 << 20)
        with self.scratch() as folder, (folder / "touched").open("wb", buffering=0) as file:
            for _ in range(2 * self.records * PAYLOAD_BYTES // len(chunk)):
                file.write(chunk)
        return timed(work)

    def rate(self, count: int, seconds: list[float]) -> float:
        """Of the median round, per second."""
        return count / statistics.median(seconds)


def timed(work: Callable[[], object]) -> float:
    """Seconds that the work took.

    What was written before is on the disk by then: no step pays for what another one left to be written back.
    """
    os.sync()
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
