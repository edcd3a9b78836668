"""The gRPC side of a process: the core serves BrokerService, a grpc.aio server behind it the rest."""

import asyncio
import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import grpc

from telemetry_broker import _core
from telemetry_broker.v1 import broker_pb2 as pb
from telemetry_services.security import Guard
from telemetry_services.serving.grpc_server import GrpcServer
from telemetry_services.serving.sockets import claim_socket, port_in_use, socket_unusable

SERVICE: Final = pb.DESCRIPTOR.services_by_name["BrokerService"].full_name
_LONGEST_SOCKET: Final = 107  # bytes of the path, by unix(7)
_VARIABLE: Final = {"variable": "GRPC_PORT", "flag": "--grpc-port"}


class GrpcFront:
    """Listens for gRPC.

    The core answers BrokerService without the interpreter; calls of all other services, health and reflection among
    them, go on to a server that listens on a private Unix socket.

    Args:
        core: what answers BrokerService; None: it serves `services` alone.
        folder: the core's, where the socket is; it is this process's alone. None: a folder is made for it.
        services: full names of those that are added to `server`.
    """

    def __init__(
        self,
        guard: Guard,
        core: _core.Broker | _core.Cluster | None,
        folder: Path | None,
        services: Sequence[str] = (),
    ) -> None:
        self._ending = contextlib.ExitStack()
        self._others = GrpcServer([SERVICE, *services] if core else services)
        path = None if folder is None else folder.absolute() / ".grpc.sock"
        if path is None or len(os.fsencode(path)) > _LONGEST_SOCKET:
            path = Path(self._ending.enter_context(tempfile.TemporaryDirectory(prefix="telemetry-"))) / "grpc.sock"
        path.unlink(missing_ok=True)  # of a process that was killed
        self._ending.callback(path.unlink, missing_ok=True)
        with _private_files():
            self._others.listen_unix(path)
        self._guard = guard
        self._core = guard.grpc_server(core, str(path))

    @property
    def server(self) -> grpc.aio.Server:
        """The server of all other services, for generated `add_..._to_server` functions."""
        return self._others.server

    @property
    def active(self) -> int:
        """Calls of BrokerService under way."""
        return self._core.active

    @property
    def connections(self) -> int:
        """Connections of clients that are open."""
        return self._core.connections[0]

    @property
    def refused(self) -> dict[str, int]:
        """What was refused since the start, by reason."""
        return self._guard.refused

    def listen(self, host: str, port: int) -> str:
        """Binds the port, 0 for a free one, and returns `host:port`.

        Raises:
            PortInUseError: another process has it, or the address is not one of this machine.
        """
        try:
            bound = self._core.listen(host, port)
        except OSError as err:
            raise port_in_use(host, port, **_VARIABLE) from err
        return f"[{host}]:{bound}" if ":" in host else f"{host}:{bound}"

    def listen_unix(self, address: str) -> str:
        """Binds a socket, ``unix:/path``, which only this user may open, and returns the address.

        A socket that a killed process left behind is replaced.

        Raises:
            PortInUseError: a process listens on it.
            AddressError: there is something else of that name, or the folder is missing.
        """
        path = Path(address.removeprefix("unix:"))
        claim_socket(path)
        try:
            with _private_files():
                self._core.listen_unix(str(path))
        except OSError as err:
            raise socket_unusable(address, err.strerror or str(err)) from err
        return address

    async def start(self) -> None:
        """Takes calls from here on, and says so to health checks."""
        await self._others.start()
        self._core.start()

    async def stop(self, grace: float) -> None:
        """Takes no new call, lets those under way finish for `grace` seconds, and ends."""
        await asyncio.gather(asyncio.to_thread(self._core.stop, grace), self._others.stop(grace))
        self._ending.close()


@contextlib.contextmanager
def _private_files() -> Iterator[None]:
    before = os.umask(0o177)
    try:
        yield
    finally:
        os.umask(before)
