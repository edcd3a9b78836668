"""One timer for many deadlines, nearly all of which are met."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable


class Alarm:
    """Calls ``ring`` when the soonest deadline has come. Used on one event loop.

    A timer of the event loop for each deadline would cost more than the work that it guards. A deadline that was met is
    not taken back: it rings for nobody, seldom, and who is rung for says what comes next.
    """

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._at = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def by(self, deadline: float) -> None:
        """Rings by then (``time.monotonic``), or sooner."""
        if self._timer is None or deadline < self._at:
            self.cancel()
            self._at = deadline
            left = max(0.0, deadline - time.monotonic())
            self._timer = asyncio.get_running_loop().call_later(left, self._over)

    def cancel(self) -> None:
        """Does not ring any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _over(self) -> None:
        self._timer = None
        self._ring()
