"""Pauses between attempts: they grow, none is next to nothing, and none is the same for all."""

import threading

from tenacity import RetryCallState

from telemetry_services.serving.retries import retrying


def pause(attempt: int) -> float:
    patience = retrying(threading.Event(), "working")
    state = RetryCallState(patience, None, (), {})
    state.attempt_number = attempt
    return patience.wait(state)


def test_pauses_grow_from_a_tenth_of_a_second_to_ten_seconds() -> None:
    for attempt, least, most in (
        (1, 0.1, 0.2),
        (2, 0.2, 0.4),
        (3, 0.4, 0.8),
        (6, 3.2, 6.4),
        (7, 5.0, 10.0),
        (50, 5.0, 10.0),
    ):
        pauses = [pause(attempt) for _ in range(50)]
        assert least <= min(pauses) <= max(pauses) <= most
        assert len(set(pauses)) > 1
