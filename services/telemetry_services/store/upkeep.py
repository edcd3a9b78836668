"""Looking after a store in the background: `Store.maintain`, again and again, in a thread of its own."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from telemetry_services.store.base import Retention, Store
from telemetry_services.store.errors import StoreClosedError, StoreConflictError, StoreError

_log = logging.getLogger(__name__)


@contextmanager
def maintained(store: Store, retention: Retention, *, interval: float = 10.0) -> Iterator[None]:
    """Look after a store in a thread of its own, for as long as the block runs.

    A round that fails is logged and comes again, after pauses that grow up to 5 minutes. The end of the block does not
    wait for a round under way; closing the store does.

    Args:
        interval: seconds between two rounds.
    """
    stop = threading.Event()
    thread = threading.Thread(
        target=_rounds, args=(store.maintain, retention, interval, stop), name="maintenance", daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        stop.set()


def _rounds(
    maintain: Callable[[Retention], bool], retention: Retention, interval: float, stop: threading.Event
) -> None:
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)  # on Linux of this thread alone: writers come first
    failures = 0
    while not stop.wait(min(interval * 2**failures, 300.0) if failures else interval):
        try:
            while maintain(retention) and not stop.is_set():
                pass
            failures = 0
        except StoreClosedError:
            return
        except StoreConflictError as conflict:
            _log.info("another process looks after the store: %s", conflict)
        except StoreError as error:
            failures += 1
            _log.warning("the store could not be looked after, trying again: %s", error)
