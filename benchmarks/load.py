"""A steady load of stamped records, and how long they took from `send` to the handler."""

import asyncio
import math
import selectors
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field

from benchmarks.workload import PAYLOAD_BYTES

STAMP_BYTES = 20
WARM_SECONDS = 1.0


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest of the values that `percent` of them do not exceed (nearest rank)."""
    if not values:
        raise ValueError("no values, so no percentile")
    return sorted(values)[max(0, math.ceil(percent / 100 * len(values)) - 1)]


@dataclass(slots=True)
class Arrivals:
    """Latencies of stamped records, from the moment they were handed to the client's send."""

    expected: int
    seconds: list[float] = field(default_factory=list)
    _stamps: list[int] = field(default_factory=list)

    def take(self, value: bytes) -> None:
        """Counts a record as it arrives."""
        now = time.perf_counter_ns()
        stamp = int(value[:STAMP_BYTES])
        self._stamps.append(stamp)
        self.seconds.append((now - stamp) / 1e9)

    @property
    def complete(self) -> bool:
        return len(self.seconds) >= self.expected

    @property
    def rate(self) -> float:
        """Records a second as they were sent; below the load's where the client or the machine did not keep up."""
        return (len(self._stamps) - 1) / ((max(self._stamps) - min(self._stamps)) / 1e9)

    def warmed(self) -> list[float]:
        """Without the records of the first second."""
        first = min(self._stamps) + WARM_SECONDS * 1e9
        timed = zip(self._stamps, self.seconds, strict=True)
        return [seconds for stamp, seconds in timed if stamp >= first] or self.seconds


@dataclass(frozen=True, slots=True)
class Load:
    """Stamped records at an even pace."""

    rate: int
    """Records a second."""
    seconds: float

    @property
    def count(self) -> int:
        return max(2, round(self.rate * self.seconds))

    def arrivals(self) -> Arrivals:
        return Arrivals(self.count)

    def paced(self) -> Iterator[bytes]:
        """Each record when it is due, one that is late at once."""
        started = time.perf_counter()
        for i in range(self.count):
            early = started + i / self.rate - time.perf_counter()
            if early > 0:
                time.sleep(early)
            yield stamped()

    async def paced_async(self) -> AsyncIterator[bytes]:
        """The same on an event loop; see `precise_loop`."""
        started = time.perf_counter()
        for i in range(self.count):
            early = started + i / self.rate - time.perf_counter()
            await asyncio.sleep(max(0.0, early))
            yield stamped()


def stamped() -> bytes:
    """A payload that begins with the time."""
    return f"{time.perf_counter_ns():0{STAMP_BYTES}}".encode().ljust(PAYLOAD_BYTES, b".")


def precise_loop() -> asyncio.AbstractEventLoop:
    """An event loop that sleeps for as long as it is told: asyncio's own selector rounds up to whole milliseconds."""
    return asyncio.SelectorEventLoop(selectors.SelectSelector())
