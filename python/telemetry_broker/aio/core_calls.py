"""Calls of a core from an event loop: what is quick on the loop, what may wait for the disk in threads of its own.

Not in the loop's default threads: of those there are few, and each waiting producer needs one. A sync is shared by all
who wait for it, so that many of them are hardly slower than one.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from telemetry_broker import _core

THREADS: Final = 64
"""So many calls of a connection or a server can wait for the disk at once; more wait for those."""

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

_QUICK_WITHOUT_SYNC: Final = frozenset({"Produce", "Ack", "Nack"})
"""Those that wait for the disk where the topic's durability is ``fsync``."""


class CoreCalls:
    """Makes unary calls of a core. Used on one event loop."""

    def __init__(self, core: _core.Broker) -> None:
        self._core = core
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="waits for the disk")

    async def call(self, method: str, request: bytes | memoryview, topic: str) -> bytes:
        """Runs one call; ``topic`` is the request's, where it has one."""
        if method in _QUICK or (method in _QUICK_WITHOUT_SYNC and not self._core.produce_waits(topic)):
            return self._core.call(method, request)
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._core.call, method, request)

    def close(self) -> None:
        """Takes no more calls; those that wait go on, and their threads end with them."""
        self._threads.shutdown(wait=False)
