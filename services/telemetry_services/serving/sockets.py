"""Listening sockets, bound before anything else starts, so that a busy port is one clear sentence."""

import errno
import socket
from pathlib import Path
from typing import Final

from telemetry_services.errors import AddressError, PortInUseError

_NEARBY: Final = 100


def listen(host: str, port: int, *, variable: str, flag: str) -> socket.socket:
    """A TCP socket that listens on `host` and `port`; port 0 takes a free one.

    Args:
        variable: the setting the port came from, for the message.
        flag: its flag.

    Raises:
        PortInUseError: another process has the port.
        AddressError: the address cannot be listened on.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        listener = socket.create_server((host, port), family=family, backlog=1024)
    except OSError as err:
        if err.errno == errno.EADDRINUSE:
            raise port_in_use(host, port, variable=variable, flag=flag) from err
        raise AddressError(
            f"cannot listen on {host}:{port} ({err.strerror or err}): give an address of this machine in HOST and a "
            f"port you may use in {variable}"
        ) from err
    listener.setblocking(False)
    # Its connections inherit this; asyncio sets it on its own sockets only. Without it an answer of two writes,
    # head and body, waits 40 ms for the client's delayed acknowledgement.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def port_in_use(host: str, port: int, *, variable: str, flag: str) -> PortInUseError:
    """The error for a port that another process has."""
    return PortInUseError(
        f"port {port} on {host} is in use by another process: stop it, or choose another port with {flag} or "
        f"{variable} (0 takes a free one)"
    )


def claim_socket(path: Path) -> None:
    """Makes way for a Unix socket: one that nobody listens on any more is removed.

    Raises:
        PortInUseError: a process listens on it.
        AddressError: there is something else of that name, or no such folder.
    """
    if not path.parent.is_dir():
        raise socket_unusable(f"unix:{path}", f"there is no folder {path.parent}")
    if not path.exists():
        return
    if not path.is_socket():
        raise socket_unusable(f"unix:{path}", "there is a file of that name")
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except OSError as err:
            raise socket_unusable(f"unix:{path}", err.strerror or str(err)) from err
    raise PortInUseError(f"{path} is in use by another process: stop it, or choose another socket with --listen")


def socket_unusable(address: str, why: str) -> AddressError:
    """The error for a Unix socket that cannot be listened on."""
    return AddressError(f"cannot listen on {address}: {why}; choose another path with --listen")


def address(listener: socket.socket) -> str:
    """`host:port` of a listening socket, an IPv6 host in brackets."""
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def listen_nearby(host: str, port: int, *, variable: str, flag: str) -> socket.socket:
    """As `listen`, but when the port is busy, the next free one of the 100 above it is taken."""
    for candidate in range(port, min(port + _NEARBY, 65_535)):
        try:
            return listen(host, candidate, variable=variable, flag=flag)
        except PortInUseError:
            continue
    return listen(host, port, variable=variable, flag=flag)
