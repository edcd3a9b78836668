"""``aio.connect``: from a URL to an asynchronous broker."""

from __future__ import annotations

import asyncio
from functools import partial

from telemetry_broker import _core
from telemetry_broker.admin import Durability
from telemetry_broker.aio.broker import Broker
from telemetry_broker.aio.embedded import EmbeddedTransport
from telemetry_broker.aio.opening import Opening
from telemetry_broker.aio.remote import RemoteTransport
from telemetry_broker.connection import Found, Options, find
from telemetry_broker.credentials import Credentials, FilePath


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
) -> Opening[Broker]:
    """Connects to a broker, or opens one in this process, for the running event loop.

        async with aio.connect("grpc://localhost:9090") as broker: ...
        broker = await aio.connect("mem://")

    Args:
        url: which one, as for ``telemetry_broker.connect``: ``mem://``, ``mem://name``, ``file:///path``,
            ``grpc://host:port``, ``grpcs://host:port`` or ``grpc+unix:///path``. Both faces of one process share a ``mem://name``.
        queue_size: records kept in memory per partition, the bound of the buffer that ``memory`` topics live in.
        visibility_timeout: seconds of a lease where neither consumer nor topic name any, up to 12 h.
        partitions: of a topic that is made without a number.
        durability: of a topic that is made without one: ``memory``, ``os`` or ``fsync``.
        clock: a clock that only the test moves; see ``telemetry_broker.testing``.
        token: what a broker elsewhere knows this client by.
        token_file: a file that begins with the token; read again when it has changed.
        ca_file: certificates (PEM) of the authorities to trust, for ``grpcs://``; default: this machine's.
        cert_file: this client's certificate (PEM), with ``key_file``.
        key_file: its private key (PEM).

    ``queue_size`` to ``clock`` are for a broker in this process, a remote one has its own settings; ``token`` to
    ``key_file`` are for a remote one.

    Raises:
        BrokerError: as ``telemetry_broker.connect``, once it is awaited or entered.
    """
    options = Options(queue_size, visibility_timeout, partitions, durability, clock)
    return Opening(partial(_open, url, options, Credentials(token, token_file, ca_file, cert_file, key_file)))


async def _open(url: str, options: Options, credentials: Credentials) -> Broker:
    # Recovering a folder takes its time; the others are there at once.
    is_folder = url.startswith("file:")
    found = await _find_in_thread(url, options, credentials) if is_folder else find(url, options, credentials)
    if isinstance(found, _core.Channel):
        return Broker(RemoteTransport(url, found))
    return Broker(EmbeddedTransport(url, found.core, found.release))


async def _find_in_thread(url: str, options: Options, credentials: Credentials) -> Found | _core.Channel:
    """Does not leave a folder open behind when it is cancelled."""
    loop = asyncio.get_running_loop()
    finding = loop.run_in_executor(None, find, url, options, credentials)
    try:
        return await asyncio.shield(finding)
    except asyncio.CancelledError:
        finding.add_done_callback(_let_go)
        raise


def _let_go(finding: asyncio.Future[Found | _core.Channel]) -> None:
    if not finding.cancelled() and finding.exception() is None:
        found = finding.result()
        if isinstance(found, Found):
            found.release(False)
