"""``connect``: from a URL to a broker."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit

from telemetry_broker import _core
from telemetry_broker.admin import Durability
from telemetry_broker.broker import Broker
from telemetry_broker.credentials import Credentials, FilePath
from telemetry_broker.embedded import EmbeddedTransport
from telemetry_broker.errors import InvalidArgumentError, UnavailableError, UnsupportedError
from telemetry_broker.positions import milliseconds
from telemetry_broker.remote import RemoteTransport
from telemetry_broker.v1 import broker_pb2 as pb

DEFAULT_PORT: Final = 9090

_ACCEPTED: Final = (
    "mem://, mem://name, file:///path, grpc://host:port, grpc://host:port,host:port (several brokers), "
    "grpc+dns://name:port, grpcs://host:port (TLS) or grpc+unix:///path"
)
_ASKING_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class Options:
    """What a broker in this process can be told; a remote one has its own settings."""

    queue_size: int = 2000
    visibility_timeout: float = 30.0
    partitions: int = 4
    durability: Durability = "os"
    clock: _core.ManualClock | None = None

    def open(self, data_dir: str | None) -> _core.Broker:
        """Opens the folder, or a broker in memory."""
        visibility_timeout_ms = milliseconds("visibility_timeout", self.visibility_timeout, least=0.001)
        try:
            return _core.Broker(
                data_dir,
                queue_size=self.queue_size,
                visibility_timeout_ms=visibility_timeout_ms,
                partitions=self.partitions,
                durability=self.durability,
                clock=self.clock,
            )
        except OverflowError as error:
            raise InvalidArgumentError(f"{self}: a number is negative or too large") from error


class Found(NamedTuple):
    """A broker that was opened in this process."""

    core: _core.Broker
    release: Callable[[bool], None]
    """Lets go of it and is told whether to flush."""


@dataclass(slots=True)
class _Shared:
    """A ``mem://name`` broker and how many connections it has."""

    core: _core.Broker
    options: Options
    connections: int = 0


_shared: Final[dict[str, _Shared]] = {}
_shared_lock: Final = threading.Lock()


def connect(
    url: str,
    *,
    queue_size: int = 2000,
    visibility_timeout: float = 30.0,
    partitions: int = 4,
    durability: Durability = "os",
    clock: _core.ManualClock | None = None,
    token: str | None = None,
    token_file: FilePath | None = None,
    ca_file: FilePath | None = None,
    cert_file: FilePath | None = None,
    key_file: FilePath | None = None,
) -> Broker:
    """Connects to a broker, or opens one in this process.

    Args:
        url: which one.

            - ``mem://``: a new broker in memory, gone when closed. ``mem://name``: the one of that name in this
              process, gone when all who connected have closed it.
            - ``file:///path``: a broker in a folder, which is made if there is none. For one process at a time; others
              share it through ``telemetry broker``.
            - ``grpc://host:port`` (default port 9090), ``grpcs://host:port`` (the same over TLS) or
              ``grpc+unix:///path``: a broker or a proxy elsewhere. The first call connects, and so does the first one
              after a break.
            - ``grpc://host:port,host:port`` (also ``grpcs://``): several brokers as one. Records go straight to the
              broker that the ring places their partition at, and to another one while that is away; consumers get
              what any of them holds. ``name=host:port`` says what the ring is to know a broker by; without it that is
              its address.
            - ``grpc+dns://name:port`` (also ``grpcs+dns://``): several brokers as one, which are found by asking one of
              those at the addresses that ``name`` has for all; they are followed when there are more or fewer.
        queue_size: records kept in memory per partition, the bound of the buffer that ``memory`` topics live in.
        visibility_timeout: seconds of a lease where neither consumer nor topic name any, up to 12 h.
        partitions: of a topic that is made without a number.
        durability: of a topic that is made without one: ``memory``, ``os`` or ``fsync``.
        clock: a clock that only the test moves; see ``telemetry_broker.testing``.
        token: what a broker elsewhere knows this client by.
        token_file: a file that begins with the token, up to a line end or comma. When it changes, the next call sends
            the new one; while it cannot be read, the last one.
        ca_file: certificates (PEM) of the authorities that a broker's certificate may be of; default: those that this
            machine trusts. It and the next two are for ``grpcs://``.
        cert_file: this client's certificate (PEM, with its chain), for a broker that asks for one; with ``key_file``.
        key_file: its private key (PEM).

    ``queue_size`` to ``clock`` are for a broker in this process, a remote one has its own settings; ``token`` to
    ``key_file`` are for a remote one.

    Raises:
        InvalidArgumentError: not such a URL (``invalid.url``), or an option that it does not take.
        InUseError: another process has the folder open.
        FormatError: the folder is of a newer version, or not a broker's.
        StorageError, CorruptError: the folder cannot be read.
        UnsupportedError: a kind of broker that this version does not know.
    """
    options = Options(queue_size, visibility_timeout, partitions, durability, clock)
    found = find(url, options, Credentials(token, token_file, ca_file, cert_file, key_file))
    if isinstance(found, _core.Channel):
        return Broker(RemoteTransport(url, found))
    return Broker(EmbeddedTransport(url, found.core, found.release))


def find(url: str, options: Options, credentials: Credentials) -> Found | _core.Channel:
    """The broker of a URL, opened in this process, or a channel to a remote one; see ``connect``."""
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise _invalid(url, str(error)) from error
    if parts.query or parts.fragment:
        raise _invalid(url, "it takes no ? or #; options are arguments of connect(), and a path says %3F and %23")
    if parts.scheme in ("mem", "file") and credentials != Credentials():
        raise InvalidArgumentError(f"{url} is in this process: token and certificates are for a broker elsewhere")
    match parts.scheme:
        case "mem":
            return _open_memory(url, parts, options)
        case "file":
            core = options.open(_path(url, parts))
            return Found(core, core.close)
        case "grpc" | "grpcs" | "grpc+unix" | "grpc+dns" | "grpcs+dns":
            if options != Options():
                raise InvalidArgumentError(
                    f"{url} has its own settings: queue_size, visibility_timeout, partitions, durability and clock are "
                    "for a broker in this process"
                )
            tls = parts.scheme.startswith("grpcs")
            if not tls and credentials.certificates:
                raise InvalidArgumentError(
                    f"{url} is without TLS, and {', '.join(credentials.certificates)} are for it: give grpcs://host:port"
                )
            if parts.scheme.endswith("+dns"):
                return _found_by_name(url, parts, credentials, tls=tls)
            if "," in parts.netloc:
                return credentials.open_channel(_targets(url, parts), tls=tls)
            return credentials.open_channel(_target(url, parts), tls=tls)
        case "nats":
            raise UnsupportedError(f"{url}: NATS JetStream is not supported by this version; give {_ACCEPTED}")
    raise _invalid(url, f"it begins with {parts.scheme}:" if parts.scheme else "it has no scheme")


def _invalid(url: str, why: str) -> InvalidArgumentError:
    return InvalidArgumentError(f"{url!r} names no broker: {why}. Give {_ACCEPTED}", code="invalid.url")


def _open_memory(url: str, parts: SplitResult, options: Options) -> Found:
    if parts.path:
        raise _invalid(url, "mem:// takes a name, not a path")
    if not parts.netloc:
        core = options.open(None)
        return Found(core, core.close)
    name = parts.netloc
    with _shared_lock:
        shared = _shared.get(name)
        if shared is None:
            shared = _shared[name] = _Shared(options.open(None), options)
        elif options not in (shared.options, Options()):
            raise InvalidArgumentError(
                f"{url} is open in this process with other options ({shared.options}): leave them out to share it"
            )
        shared.connections += 1
    return Found(shared.core, partial(_leave, name))


def _leave(name: str, flush: bool = True) -> None:
    with _shared_lock:
        shared = _shared[name]
        shared.connections -= 1
        if shared.connections == 0:
            del _shared[name]
            shared.core.close(flush)


def _path(url: str, parts: SplitResult) -> str:
    path = unquote(parts.path)
    if parts.netloc not in ("", "localhost") or not path.startswith("/"):
        meant = os.path.abspath(unquote(parts.netloc + parts.path) or ".")  # noqa: PTH100 - a text, no file is touched
        raise _invalid(url, f"a folder needs three slashes and its whole path, such as file://{meant}")
    if "\0" in path:
        raise _invalid(url, "a path holds no NUL")
    return path


def _target(url: str, parts: SplitResult) -> str:
    """What gRPC calls the address."""
    if parts.scheme == "grpc+unix":
        if parts.netloc or not parts.path.startswith("/"):
            raise _invalid(url, "a socket needs three slashes and its whole path, such as grpc+unix:///run/broker.sock")
        return f"unix:{unquote(parts.path)}"
    if parts.path not in ("", "/") or "@" in parts.netloc:
        raise _invalid(url, f"{parts.scheme}:// takes a host and a port, nothing else")
    try:
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise _invalid(url, str(error)) from error
    if not host:
        raise _invalid(url, "the host is missing")
    return f"{f'[{host}]' if ':' in host else host}:{DEFAULT_PORT if port is None else port}"


def _targets(url: str, parts: SplitResult) -> list[tuple[str, str]]:
    """Names and addresses of several brokers."""
    if parts.path not in ("", "/"):
        raise _invalid(url, "it takes hosts and ports, nothing else")
    members = []
    for entry in parts.netloc.split(","):
        name, named, address = entry.rpartition("=")
        if named and not name:
            raise _invalid(url, f"{entry!r} has no name in front of the =")
        target = _target(url, urlsplit(f"{parts.scheme}://{address}"))
        members.append((name or target, target))
    return members


def _found_by_name(url: str, parts: SplitResult, credentials: Credentials, *, tls: bool) -> _core.Channel:
    """A channel to the brokers that one of those at the addresses of a name knows of."""
    host, _, port = _target(url, parts).rpartition(":")
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    except OSError as error:
        raise UnavailableError(
            f"{url}: {host} does not resolve ({error.strerror or error}): is the name right?"
        ) from error
    addresses = list(dict.fromkeys(entry[4][0] for entry in found))
    failures = []
    for address in addresses:
        target = f"[{address}]:{port}" if ":" in str(address) else f"{address}:{port}"
        channel = credentials.open_channel(target, tls=tls)
        try:
            answer = channel.call("DescribeBroker", b"", _ASKING_SECONDS)
        except _core.CallError as error:
            failures.append(f"{target}: {error}")
            continue
        finally:
            channel.close()
        members = [(each.name, each.address) for each in pb.DescribeBrokerResponse.FromString(answer).members]
        return credentials.open_channel(members or [(target, target)], tls=tls, follow=True)
    raise UnavailableError(f"{url}: none of the brokers that {host} names can be asked: {'; '.join(failures)}")
