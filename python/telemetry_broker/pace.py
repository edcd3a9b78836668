"""How much to take ahead of a handler."""

from __future__ import annotations

import time
from typing import Final

MOST_DELIVERIES: Final = 8
"""Large deliveries ahead: at the default of 1 MiB each, enough to keep a connection busy."""

FEW_DELIVERIES: Final = 2
"""Small ones ahead: more would wait in a row here, where the broker would have made one of them."""

_BYTES: Final = 8 * 1024 * 1024
_SECONDS: Final = 1.0


class Pace:
    """How fast deliveries are handled: what is taken ahead is worked off within a second or a tenth of its lease.

    Args:
        max_bytes: of a delivery.
    """

    def __init__(self, max_bytes: int) -> None:
        self._most = max(FEW_DELIVERIES, min(MOST_DELIVERIES, _BYTES // max_bytes))
        self._handed_at: float | None = None

    def handed_out(self, called_at: float, lease_timeout: float) -> int:
        """The handler begins; returns how many deliveries it may have ahead, 0 for a slow one.

        Args:
            called_at: when it came back from the one before, by ``time.monotonic``.
            lease_timeout: seconds.
        """
        ahead = 0
        if self._handed_at is not None:
            pace = max(called_at - self._handed_at, 1e-6)
            ahead = min(self._most, int(min(_SECONDS, lease_timeout / 10) / pace))
        self._handed_at = time.monotonic()
        return ahead
