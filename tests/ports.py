"""Ports for servers that come back where they were: of those that the system gives to nobody who asks for any."""

import itertools
import os
import socket
from pathlib import Path
from typing import Final

_LOWEST: Final = 10_240
_EPHEMERAL: Final = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
# Workers start far apart, so that none takes what another is about to bind.
_WORKER: Final = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_STARTS: Final = itertools.count(_WORKER * 4096 + os.getpid() % 4096)


def lasting_port() -> int:
    """A port of the loopback that nobody has, and that stays free while its server is down.

    One that was free because the system chose it can be somebody else's by then: a client's of another test, or that of
    a server which asked for any.
    """
    for start in itertools.islice(_STARTS, _EPHEMERAL - _LOWEST):
        port = _LOWEST + start % (_EPHEMERAL - _LOWEST)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise RuntimeError(f"no port from {_LOWEST} to {_EPHEMERAL - 1} is free")
