"""Ctrl-C at a known moment, for tests of what it interrupts."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def ctrl_c_after(begun: threading.Event, patience: float) -> Iterator[None]:
    """Sends this thread SIGINT once the event is set, after `patience` seconds at the latest."""
    me = threading.get_ident()

    def interrupt() -> None:
        begun.wait(patience)
        signal.pthread_kill(me, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    yield
    thread.join(patience)
