"""Where an object of this package lives: one event loop of one process."""

from __future__ import annotations

import asyncio
import os

from telemetry_broker.errors import InvalidArgumentError
from telemetry_broker.transport import forked_error

_forks = 0


def _after_fork() -> None:
    global _forks
    _forks += 1


os.register_at_fork(after_in_child=_after_fork)


class Home:
    """The running event loop, where an object was made; it is used nowhere else.

    Attributes:
        loop: the loop.
    """

    def __init__(self, what: str) -> None:
        """``what`` names the object in the refusal."""
        self.loop = asyncio.get_running_loop()
        self._what = what
        self._forks = _forks

    @property
    def forked(self) -> bool:
        """Whether this is a child of the process in which it was made."""
        return self._forks != _forks

    def check(self) -> None:
        """Refuses another loop, and the child of a fork."""
        try:
            if asyncio.get_running_loop() is self.loop and self._forks == _forks:
                return
        except RuntimeError:
            pass  # no loop runs here
        if self.forked:
            raise forked_error(self._what)
        raise InvalidArgumentError(
            f"{self._what} belongs to the event loop in which it was made: use it there "
            "(asyncio.run_coroutine_threadsafe reaches it from other threads), or connect in this one"
        )
