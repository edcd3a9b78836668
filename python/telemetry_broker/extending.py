"""Leases that last as long as their batches are worked on: extended by the consumer, a few calls for all of them."""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from telemetry_broker.batch import Batch, Leased
from telemetry_broker.errors import BrokerError, InvalidArgumentError, StaleLeaseError
from telemetry_broker.leases import Lease, Leases
from telemetry_broker.positions import MAX_TIMEOUT

DEFAULT_EXTENSION: Final = 600.0
"""Seconds for which a batch from an iteration is kept, where nothing else is said."""

_DUE: Final = 1 / 2  # of a timeout is over: the lease is extended
_TOO: Final = 1 / 4  # is over: it is extended along with one that is due
_PAUSE: Final = 1 / 10  # of a timeout between attempts, while the broker is away
_SHORTEST_PAUSE: Final = 0.01

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Keep:
    """Why and for how long a lease is extended."""

    batch: weakref.ref[Leased]
    """Once nobody has the batch any more, nobody can ack it."""
    until: float
    """By ``time.monotonic``."""
    thread: threading.Thread | None = None
    """Who got the batch; when the thread has ended, nobody works on it. None: not known."""
    not_before: float = 0.0
    """A failed attempt is not repeated before."""

    def holds(self, now: float) -> bool:
        """Whether somebody may still be working on the batch."""
        return now < self.until and self.batch() is not None and (self.thread is None or self.thread.is_alive())


def check_extension(seconds: float | None) -> tuple[float, float]:
    """Seconds for which batches of an iteration, and such of a receive, are kept."""
    if seconds is None:
        return DEFAULT_EXTENSION, 0.0
    if not 0 <= seconds <= MAX_TIMEOUT:
        raise InvalidArgumentError(
            f"max_lease_extension={seconds}: give 0 (no extension) to {MAX_TIMEOUT:.12g} s, or None for the default"
        )
    return seconds, seconds


def keep(lease: Lease, batch: Leased, seconds: float, thread: threading.Thread | None = None) -> float:
    """Has a lease extended for so long; returns when it is due for the first time."""
    lease.keep = Keep(weakref.ref(batch), time.monotonic() + seconds, thread)
    return _due(lease, lease.keep)


def plan(leases: Iterable[Lease], now: float) -> tuple[dict[int, list[Lease]], float | None]:
    """What is to be extended now, by timeout in milliseconds, and if nothing is, when something will be.

    Leases of which nobody has the batch any more are dropped. When one lease is due, those follow that would be soon:
    a consumer makes one call for all of its batches, not one for each.
    """
    kept: list[tuple[Lease, Keep]] = []
    for lease in leases:
        if lease.keep is not None and lease.keep.holds(now):
            kept.append((lease, lease.keep))
        else:
            lease.keep = None
    first = min((_due(lease, keep) for lease, keep in kept), default=None)
    if first is None or first > now:
        return {}, first
    due: dict[int, list[Lease]] = {}
    for lease, keep in kept:
        if lease.received + lease.timeout * _TOO <= now and keep.not_before <= now:
            due.setdefault(max(1, round(lease.timeout * 1000)), []).append(lease)
    return due, first


def failed(leases: Iterable[Lease], error: BrokerError) -> None:
    """Says what becomes of leases that could not be extended: tried again where waiting may help."""
    if isinstance(error, StaleLeaseError):
        return  # those that ended are out of the book, the others are extended; who acks them hears of it
    now = time.monotonic()
    for lease in leases:
        if lease.keep is not None:
            lease.keep.not_before = now + max(_SHORTEST_PAUSE, lease.timeout * _PAUSE)
    if error.retry_after is None:
        for lease in leases:
            lease.keep = None
    _log.debug("leases could not be extended: %s", error)


def _due(lease: Lease, keep: Keep) -> float:
    return max(lease.received + max(lease.timeout * _DUE, _SHORTEST_PAUSE), keep.not_before)


class Extender:
    """Extends the leases of one synchronous consumer.

    A thread does it, which is there only while there is something to extend. It sleeps until the first lease is due,
    and once awake it looks again at all: a batch that is handled fast costs no wake-up.
    """

    def __init__(self, leases: Leases, name: str) -> None:
        self._leases = leases
        self._name = name
        self._changed = threading.Condition()
        self._wake_at: float | None = None  # None: there is no thread
        self._closed = False

    def keep(self, batch: Batch, seconds: float) -> None:
        """Extends the batch's lease for so many seconds, while it is open and this thread lives."""
        if seconds <= 0 or not batch:
            return
        lease, _ = batch.part()
        due = keep(lease, batch, seconds, threading.current_thread())
        with self._changed:
            if self._closed:
                return
            if self._wake_at is None:
                threading.Thread(target=self._run, name=f"leases of {self._name}", daemon=True).start()
                self._wake_at = due
            elif due < self._wake_at:
                self._wake_at = due
                self._changed.notify()

    def close(self) -> None:
        """Extends nothing more."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _run(self) -> None:
        while (due := self._sleep()) is not None:
            for timeout_ms, leases in due.items():
                try:
                    self._leases.extend(leases, timeout_ms)
                except BrokerError as error:
                    failed(leases, error)

    def _sleep(self) -> dict[int, list[Lease]] | None:
        """What is due, once something is; None when there is nothing to extend any more."""
        with self._changed:
            while not self._closed:
                now = time.monotonic()
                due, self._wake_at = plan(self._leases.kept(), now)
                if due or self._wake_at is None:
                    return due or None
                self._changed.wait(max(0.0, self._wake_at - now))
            return None
