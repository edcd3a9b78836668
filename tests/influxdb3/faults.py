"""What a write can be told to end with."""

import threading
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Status:
    """Answered with a status and a body; nothing is stored."""

    status: int
    body: str = '{"error":"a fault that a test asked for"}'
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Dropped:
    """The connection ends without an answer; all is stored, or nothing."""

    stored: bool = True


@dataclass(frozen=True)
class Half:
    """Stored, and the connection ends in the middle of the answer."""


@dataclass(frozen=True)
class Slow:
    """Stored and answered once it is released."""

    released: threading.Event = field(default_factory=threading.Event)


Fault = Status | Dropped | Half | Slow
