"""Which brokers there are: as the settings list them, or as a file does, now."""

import asyncio
import logging
import socket
from collections.abc import Sequence
from typing import Final

from telemetry_services.config import ProxySettings
from telemetry_services.config.values import parse_brokers
from telemetry_services.errors import ConfigError
from telemetry_services.security.files import read_bounded

log = logging.getLogger(__name__)

Members = Sequence[tuple[str, str]]
"""Name and `host:port` of each broker."""

_EXPECTED: Final = "expected lines such as msg-queue-0=host:9090, each broker once"
_MAX_FILE_BYTES: Final = 1 << 20
_LOOKUP_SECONDS: Final = 10.0


def listed_brokers(settings: ProxySettings) -> Members:
    """The brokers, from BROKERS_FILE as it is now, from BROKERS, or as pods of BROKER_SERVICE.

    Raises:
        ConfigError: the file cannot be read, or lists none, or one twice.
    """
    path = settings.brokers_file
    if path is None:
        return settings.brokers or settings.pods(settings.broker_grpc_port)
    try:
        found = parse_brokers(read_bounded(path, _MAX_FILE_BYTES, "BROKERS_FILE").decode())
    except UnicodeDecodeError as err:
        raise ConfigError(f"BROKERS_FILE={path}: it is not text in UTF-8; {_EXPECTED}") from err
    except ValueError as err:
        raise ConfigError(f"BROKERS_FILE={path}: {err}; {_EXPECTED}") from err
    if not found:
        raise ConfigError(f"BROKERS_FILE={path}: it lists no broker; {_EXPECTED}")
    return found


async def warn_of_unknown_names(members: Members) -> None:
    """Says which brokers have an address whose name is not known; they may come to be later."""
    unknown = await asyncio.gather(*(_why_unknown(address) for _, address in members))
    for (name, address), reason in zip(members, unknown, strict=True):
        if reason:
            log.warning(
                "the address of a broker is not known (%s): correct BROKERS or BROKER_SERVICE, or start the broker; "
                "until then its partitions go to others",
                reason,
                extra={"broker": name, "address": address},
            )


async def _why_unknown(address: str) -> str:
    host, _, port = address.rpartition(":")
    lookup = asyncio.get_running_loop().getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    try:
        await asyncio.wait_for(lookup, _LOOKUP_SECONDS)
    except TimeoutError:
        return f"no answer within {_LOOKUP_SECONDS:g} s"
    except OSError as err:
        return err.strerror or str(err)
    return ""
