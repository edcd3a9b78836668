"""How much to take ahead of a handler."""

from __future__ import annotations

import time
from typing import Final

MOST_DELIVERIES: Final = 8
"""Deliveries of one Receive: at the default of 1 MiB each, half of gRPC's bound on a message."""

MAX_BYTES_AHEAD: Final = 1024 * 1024
"""Deliveries of more than this do not fit into one message in numbers."""

_SECONDS: Final = 1.0


class Pace:
    """How fast deliveries are handled: what is taken ahead is worked off within a second or a tenth of its lease."""

    def __init__(self) -> None:
        self._handed_at: float | None = None

    def depth(self, called_at: float, lease_timeout: float | None = None) -> int:
        """Deliveries to ask for at once, 1 for a slow handler.

        Args:
            called_at: when the handler came back, by ``time.monotonic``.
            lease_timeout: seconds of its leases, if known.
        """
        if self._handed_at is None:
            return 1
        pace = max(called_at - self._handed_at, 1e-6)
        budget = _SECONDS if lease_timeout is None else min(_SECONDS, lease_timeout / 10)
        return max(1, min(MOST_DELIVERIES, int(budget / pace)))

    def handed_out(self) -> None:
        """The handler begins."""
        self._handed_at = time.monotonic()
