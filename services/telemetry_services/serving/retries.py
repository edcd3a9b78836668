"""Patience with a broker or store that is away: growing, jittered pauses, ended at once by a stop."""

import logging
import threading
from typing import Final

import tenacity

from telemetry_broker.errors import (
    BrokerError,
    FullError,
    ProduceUnknownError,
    TimedOutError,
    UnavailableError,
)

log = logging.getLogger(__name__)

TRANSIENT: Final = (UnavailableError, FullError, TimedOutError, ProduceUnknownError)
"""Errors of the broker that go by themselves."""

_FIRST_SECONDS: Final = 0.1
_LONGEST_SECONDS: Final = 10.0


Errors = tuple[type[BrokerError], ...]


def retrying(stop: threading.Event, what: str, on: Errors = TRANSIENT, but: Errors = ()) -> tenacity.Retrying:
    """Repeats a call while it raises one of these errors, after pauses that grow from 0.1 to 10 s, half by chance.

    Once `stop` is set, the last error is raised.

    Args:
        but: kinds of these errors that are raised at once.
    """

    def tell(state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        pause = state.next_action.sleep if state.next_action else 0.0
        log.warning(
            "%s failed, trying again: %s",
            what,
            error,
            extra={"attempt": state.attempt_number, "pause": round(pause, 2)},
        )

    return tenacity.Retrying(
        retry=tenacity.retry_if_exception(lambda error: isinstance(error, on) and not isinstance(error, but)),
        # Half is sure, so that no burst of attempts begins it; half is not, so that many do not come at once.
        wait=tenacity.wait_exponential(multiplier=_FIRST_SECONDS, max=_LONGEST_SECONDS / 2)
        + tenacity.wait_random_exponential(multiplier=_FIRST_SECONDS, max=_LONGEST_SECONDS / 2),
        stop=tenacity.stop_when_event_set(stop),
        sleep=tenacity.sleep_using_event(stop),
        before_sleep=tell,
        reraise=True,
    )
