"""Values that settings are made of, beyond numbers and texts: durations, topic lists, URLs."""

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator
from pydantic_settings import NoDecode

MASK: Final = "********"
"""Stands for a secret wherever settings are shown; it tells neither its value nor its length."""

_UNIT_NS: Final = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_DURATION_PART: Final = re.compile(r"(\d{1,18}(?:\.\d{1,18})?)(ns|us|µs|ms|s|m|h)", flags=re.ASCII)
_DURATION: Final = re.compile(rf"(?:{_DURATION_PART.pattern}){{1,16}}", flags=re.ASCII)
_TOPIC_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
_MAX_PARTITIONS: Final = 4096
_SOCKET_PATH_BYTES: Final = 107  # of Linux's sockaddr_un, less the NUL at its end

MAX_BROKERS: Final = 1_000
_BROKER_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:\[\]-]{0,199}")
_HOST: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?|\[[0-9A-Fa-f:.]{2,45}\]")
_SERVICE_NAME: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,198}[A-Za-z0-9])?")

BROKER_SCHEMES: Final = ("grpc", "grpcs", "grpc+dns", "grpc+unix", "file", "mem")
"""Schemes that BROKER_URL takes today."""


def parse_duration(value: object) -> float:
    """Seconds of a duration as Go writes it: ``30s``, ``1m30s``, ``500ms``, ``1.5h``; ``0`` needs no unit.

    Exact to the nanosecond.

    Raises:
        ValueError: anything else, a number without a unit included.
    """
    if isinstance(value, float):  # a default, already in seconds
        return value
    text = str(value).strip()
    if text == "0":
        return 0.0
    if not _DURATION.fullmatch(text):
        raise ValueError("not a duration")
    return round(sum(float(number) * _UNIT_NS[unit] for number, unit in _DURATION_PART.findall(text))) / 1e9


def format_duration(seconds: float) -> str:
    """The shortest of ``0.25ms``, ``500ms``, ``30s``, ``2m`` and ``1h`` that says it to the nanosecond.

    The inverse of `parse_duration`.
    """
    milliseconds = round(seconds * 1000, 6)
    if not milliseconds.is_integer():
        return f"{milliseconds:.6f}".rstrip("0") + "ms"
    for unit, length in (("h", 3_600_000), ("m", 60_000), ("s", 1000)):
        if milliseconds and milliseconds % length == 0:
            return f"{milliseconds / length:.0f}{unit}"
    return f"{milliseconds:.0f}ms" if milliseconds else "0"


def parse_topics(value: object) -> dict[str, int | None]:
    """Topic names with partition counts from ``events:8,orders:4``; a name alone has the default count (None).

    Raises:
        ValueError: a name that cannot be a topic's or comes twice, or a count that is none.
    """
    topics: dict[str, int | None] = {}
    for name, count in value.items() if isinstance(value, dict) else _split_topics(str(value)):
        if not _TOPIC_NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not a topic name")
        if name in topics:
            raise ValueError(f"{name!r} is listed twice")
        topics[name] = None if count is None else _partition_count(count)
    return topics


def format_topics(topics: dict[str, int | None]) -> str:
    """The inverse of `parse_topics`: ``events:8,orders:4``."""
    return ",".join(name if count is None else f"{name}:{count}" for name, count in topics.items())


def parse_brokers(value: object) -> tuple[tuple[str, str], ...]:
    """Names and addresses of brokers from ``a=host:9090,host:9091``; the name of one without is its address.

    Commas and line ends part them; what follows a ``#`` on its line is a comment.

    Raises:
        ValueError: an entry that is none, or names or addresses that come twice, or over 1,000 brokers.
    """
    if isinstance(value, tuple):  # the default
        return value
    given = value if isinstance(value, list) else re.sub(r"#[^\n]*", "", str(value)).replace("\n", ",").split(",")
    brokers: dict[str, str] = {}
    for item in filter(None, (str(item).strip() for item in given)):
        name, separator, address = item.rpartition("=")
        name = name.strip() if separator else address
        address = _broker_address(item, address.strip())
        if not _BROKER_NAME.fullmatch(name):
            raise ValueError(f"{item[:200]!r} has no good name: 1 to 200 of A-Z a-z 0-9 . _ - :")
        if name in brokers:
            raise ValueError(f"{name!r} is listed twice")
        if address in brokers.values():
            raise ValueError(f"{address!r} is the address of two brokers")
        brokers[name] = address
    if len(brokers) > MAX_BROKERS:
        raise ValueError(f"{len(brokers):,} brokers are listed, and {MAX_BROKERS:,} are the most")
    return tuple(brokers.items())


def format_brokers(brokers: Iterable[tuple[str, str]]) -> str:
    """The inverse of `parse_brokers`."""
    return ",".join(address if name == address else f"{name}={address}" for name, address in brokers)


def _broker_address(item: str, address: str) -> str:
    host, _, port = address.rpartition(":")
    is_port = port.isascii() and port.isdigit() and len(port) <= 5 and 1 <= int(port) <= 65_535
    if not (is_port and _HOST.fullmatch(host)):
        raise ValueError(f"{item[:200]!r} has no address such as host:9090")
    return f"{host}:{int(port)}"


def check_service_name(value: str) -> str:
    """The name itself, when it can be a service's in DNS."""
    if not _SERVICE_NAME.fullmatch(value):
        raise ValueError("not a DNS name")
    return value


def _split_topics(text: str) -> Iterator[tuple[str, str | None]]:
    for item in filter(None, (part.strip() for part in text.split(","))):
        name, colon, count = item.partition(":")
        yield name, count if colon else None


def _partition_count(count: object) -> int:
    number = int(count) if isinstance(count, str) and count.isascii() and count.isdigit() else count
    if not isinstance(number, int) or isinstance(number, bool) or not 1 <= number <= _MAX_PARTITIONS:
        raise ValueError(f"{count!r} is not a partition count")
    return number


def without_credentials(text: str) -> str:
    """The text itself; in a URL, user, password and query are masked, for they may hold a secret."""
    scheme, separator, rest = text.partition("://")
    if not separator:
        return text
    place, question, _ = rest.partition("?")
    authority, slash, path = place.partition("/")
    _, at, host = authority.rpartition("@")
    return f"{scheme}://{MASK if at else ''}{at}{host}{slash}{path}{question}{MASK if question else ''}"


def check_topic_name(value: str) -> str:
    """The name itself, when it can be a topic's or group's."""
    if not _TOPIC_NAME.fullmatch(value):
        raise ValueError("not a topic or group name")
    return value


def check_broker_url(value: str) -> str:
    """The URL itself, when its scheme is one of `BROKER_SCHEMES`."""
    scheme = urlsplit(value).scheme
    if scheme == "nats":
        raise ValueError("nats:// is not supported by this version")
    if scheme not in BROKER_SCHEMES:
        raise ValueError(f"the scheme {scheme!r} is not known" if scheme else "there is no scheme")
    return value


def check_http_address(value: str) -> str:
    """The address itself, when it is ``http://host`` or ``https://host``, with or without a port."""
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("not an http address")
    return value


def check_rate_limit(value: str) -> str:
    """The limits themselves, when they are such as ``1000/second`` or ``50/second;1000/hour``."""
    from limits import parse_many  # not for the services that have none

    parse_many(value)
    return value


def check_origins(value: str) -> str:
    """The origins themselves, without spaces between them, when each is ``https://host`` or the one is ``*``."""
    origins = [origin for part in value.split(",") if (origin := part.strip().rstrip("/"))]
    for origin in origins:
        parts = urlsplit(origin)
        if origin != "*" and (parts.scheme not in ("http", "https") or origin != f"{parts.scheme}://{parts.netloc}"):
            raise ValueError(f"{origin!r} is not an origin")
    if "*" in origins and len(origins) > 1:
        raise ValueError("* stands for all, and so alone")
    return ",".join(origins)


def check_unix_address(value: str) -> str:
    """The address itself, when it is ``unix:`` and a path that a socket can have."""
    path = value.removeprefix("unix:").removeprefix("//")
    if not value.startswith("unix:") or not path:
        raise ValueError("not a unix: address")
    absolute = os.fsencode(Path(path).absolute())
    if len(absolute) > _SOCKET_PATH_BYTES:
        raise ValueError(f"the path has {len(absolute)} bytes, a socket's has at most {_SOCKET_PATH_BYTES}")
    return f"unix:{Path(path).absolute()}"


Duration = Annotated[float, BeforeValidator(parse_duration)]
TopicCounts = Annotated[dict[str, int | None], NoDecode, BeforeValidator(parse_topics)]
TopicName = Annotated[str, AfterValidator(check_topic_name)]
BrokerUrl = Annotated[str, AfterValidator(check_broker_url)]
HttpAddress = Annotated[str, AfterValidator(check_http_address)]
RateLimit = Annotated[str, AfterValidator(check_rate_limit)]
Origins = Annotated[str, AfterValidator(check_origins)]
BrokerList = Annotated[tuple[tuple[str, str], ...], NoDecode, BeforeValidator(parse_brokers)]
ServiceName = Annotated[str, AfterValidator(check_service_name)]
UnixAddress = Annotated[str, AfterValidator(check_unix_address)]
