"""Calls of a core from an event loop: what is quick on the loop, what may wait for the disk in threads of its own.

Produces and acks share their waits, see `settling`. The others are rare, but they do not wait in the loop's default
threads: of those there are few, and they are the program's.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from telemetry_broker import _core
from telemetry_broker.aio.settling import METHODS, Settling
from telemetry_broker.transport import Request

THREADS: Final = 64
"""So many partitions and rare calls of a connection or a server can wait for the disk at once; more wait for those."""

_QUICK: Final = frozenset(
    {
        "OpenProducer",
        "Receive",
        "Extend",
        "Read",
        "ListTopics",
        "DescribeTopic",
        "ListGroups",
        "DescribeGroup",
        "DescribeBroker",
    }
)
"""Calls of microseconds: a thread would take longer. The others may wait for the disk."""

_QUICK_WITHOUT_SYNC: Final = frozenset({"Nack"})
"""Those that may wait for the disk where the topic's durability is ``fsync``."""


class CoreCalls:
    """Makes unary calls of a core. Used on one event loop."""

    def __init__(self, core: _core.Broker) -> None:
        self._core = core
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="waits for the disk")
        self._settling = Settling(core, self._threads)

    async def call(self, method: str, request: Request | memoryview, topic: str) -> bytes:
        """Runs one call; ``topic`` is the request's, where it has one."""
        if method in METHODS:
            return await self._settling.call(method, request)
        if method in _QUICK or (method in _QUICK_WITHOUT_SYNC and not self._core.produce_waits(topic)):
            return self._core.call(method, request)
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._core.call, method, request)

    def close(self) -> None:
        """Takes no more calls; those that wait go on, and their threads end with them."""
        self._threads.shutdown(wait=False)
