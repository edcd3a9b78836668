"""Commits under way: stored side by side where the store takes that, acked in the order in which they were taken.

Invariants (tests: `tests/integration/test_services_collector.py`, `tests/integration/test_collector_influx.py`)
- I1 A record is acked only once it, and every record taken before it, is stored or dead-lettered.
- I2 A store that fails is asked by the oldest commit alone, after growing pauses, until it answers: the others wait for
  it (a circuit breaker whose probe is the work itself). There are never more commits than the store takes at a time,
  and nobody takes records while there are so many, so memory stays bounded for as long as the store is away.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from types import TracebackType
from typing import Final, Self, TypeVar

from telemetry_broker import tracing
from telemetry_services.collector.pending import Pending
from telemetry_services.collector.sinks import Patience, Stored
from telemetry_services.observability import metrics
from telemetry_services.serving.retries import retrying
from telemetry_services.store import (
    StoreClosedError,
    StoreCorruptError,
    StoreError,
    StoreForeignError,
    StorePositionError,
    StoreSchemaError,
    StoreUnavailableError,
    StoreUrlError,
)

log = logging.getLogger(__name__)

STORE_LASTING: Final = (
    StoreClosedError,
    StoreCorruptError,
    StoreForeignError,
    StorePositionError,
    StoreSchemaError,
    StoreUrlError,
)
"""Errors of a store that waiting does not mend."""


T = TypeVar("T")


class Breaker:
    """Calls the store for commits, and holds most of them back while it fails.

    Args:
        stop: ends the waiting for a store that is away.
        on_health: told '' when the store took something, else why it did not.
    """

    def __init__(self, stop: threading.Event, on_health: Callable[[str], None], service: str) -> None:
        self._stop = stop
        self._on_health = on_health
        self._service = service
        self._open = False

    def patience(self, before: Future[None] | None) -> Patience:
        """What calls the store for the commit that comes after `before`; None: for the oldest."""

        def patiently(call: Callable[[], T], /) -> T:
            for attempt in retrying(self._stop, "storing", on=(StoreError,), but=STORE_LASTING):
                with attempt:
                    if self._open and before is not None:
                        self._wait_for(before)
                    return self._call(call)
            raise AssertionError("attempts end with a result or an error")

        return patiently

    def _wait_for(self, before: Future[None]) -> None:
        wait([before])
        if self._open and self._stop.is_set():
            raise StoreUnavailableError("the store is away; what is not stored comes again")

    def _call(self, call: Callable[[], T]) -> T:
        started = time.monotonic()
        outcome = "error"
        try:
            result = call()
            outcome = "success"
        except StoreError as error:
            if not isinstance(error, STORE_LASTING):
                self._open = True
                self._on_health(str(error))
            raise
        finally:
            metrics.DATABASE_OPERATIONS.labels(self._service, "write", outcome).inc()
            metrics.DATABASE_SECONDS.labels(self._service, "write").observe(time.monotonic() - started)
        self._open = False
        self._on_health("")
        return result


class Commits:
    """The commits of one run of a collector.

    Args:
        most: so many are under way at a time.
        store: stores one, with the patience that it is given.
        ack: acks one that is stored; called in the order of the commits, one at a time.
    """

    def __init__(
        self,
        most: int,
        breaker: Breaker,
        store: Callable[[Pending, Patience], Stored],
        ack: Callable[[Pending, Stored], None],
    ) -> None:
        self._most = most
        self._breaker = breaker
        self._store = store
        self._ack = ack
        self._under_way: deque[Future[None]] = deque()
        self._threads = ThreadPoolExecutor(most, thread_name_prefix="commit")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Waits for what is under way. Its errors are told by `settle` alone."""
        self._threads.shutdown()

    def submit(self, pending: Pending) -> None:
        """Begins one. Call `settle` before: there must be room."""
        before = self._under_way[-1] if self._under_way else None
        self._under_way.append(self._threads.submit(self._run, pending, before))

    def settle(self, *, leave: int | None = None) -> None:
        """Takes in what is done, and waits until at most `leave` are under way; None: until there is room for one.

        Raises:
            BrokerError: that of the oldest commit that failed; those after it are not acked either. None is left.
        """
        leave = self._most - 1 if leave is None else leave
        while self._under_way and (len(self._under_way) > leave or self._under_way[0].done()):
            try:
                self._under_way.popleft().result()
            except BaseException:
                wait(self._under_way)
                self._under_way.clear()
                raise

    def _run(self, pending: Pending, before: Future[None] | None) -> None:
        with tracing.process(*pending.batches):
            stored = self._store(pending, self._breaker.patience(before))
            if before is not None:
                before.result()  # its error is ours: what follows what is not stored is not acked
            self._ack(pending, stored)
