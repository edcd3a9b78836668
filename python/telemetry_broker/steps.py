"""Work as a dialogue with a broker: what to ask and what to make of the answer, without saying how the call is made.

Both faces of the library run the same steps: ``run`` makes the calls here, ``telemetry_broker.aio`` awaits them.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TypeVar, cast

from google.protobuf.message import Message

T = TypeVar("T")

Steps = Generator[tuple[str, Message], bytes, T]
"""Yields a method of BrokerService and its request, gets the encoded answer, and returns what it all came to."""


def run(steps: Steps[T], call: Callable[[str, bytes], bytes]) -> T:
    """Carries out the steps with ``call``; what that raises ends them."""
    try:
        method, request = next(steps)
        while True:
            method, request = steps.send(call(method, request.SerializeToString()))
    except StopIteration as end:
        return cast("T", end.value)
    finally:
        steps.close()
