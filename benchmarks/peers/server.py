"""What a peer that is a server is to the harness: a process on this machine, driven from this one."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.load import Arrivals, Load
from benchmarks.peers.measure import Peer


@dataclass(frozen=True, slots=True)
class Running:
    """A server that runs and takes connections."""

    open_queue: Callable[[str], Peer]
    """Connects, and makes a topic of the name of the folder's last part."""
    latencies: Callable[[Load], Arrivals]
    """Sends a load through a new topic, each record by itself, and takes it at the other end."""


@dataclass(frozen=True, slots=True)
class Server:
    """A peer: how it is started, and what has to stand beside its figures."""

    name: str
    missing: Callable[[], str]
    """What to install for it; empty when all is there."""
    started: Callable[[Path], AbstractContextManager[Running]]
    """Starts it on a folder of its own and ends it."""
    client: str
    latency_client: str
    durability: str
    most_records: int
    """What a round has time for."""
    times: float | None = None
    """How many times its rates ours must be."""
