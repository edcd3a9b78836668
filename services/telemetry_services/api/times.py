"""RFC 3339 times with nanoseconds, which Python's datetime does not have."""

import re
from datetime import UTC, datetime, timedelta
from typing import Final

_TIME: Final = re.compile(
    r"(\d{4}-\d{2}-\d{2})[Tt ](\d{2}:\d{2}:\d{2})(?:\.(\d{1,9})\d*)?([Zz]|[+-]\d{2}:\d{2})", flags=re.ASCII
)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND_NS: Final = 1_000_000_000
_MIN_NS: Final = -(1 << 63)
_MAX_NS: Final = (1 << 63) - 1


def parse_time(text: str) -> int:
    """Nanoseconds since the epoch of an RFC 3339 time such as ``2025-07-18T20:42:34.5Z``.

    Raises:
        ValueError: anything else, a time without an offset included, or one outside of 1677 to 2262.
    """
    match = _TIME.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a time: expected RFC 3339 such as 2025-07-18T20:42:34Z")
    day, clock, fraction, offset = match.groups()
    try:
        moment = datetime.fromisoformat(f"{day}T{clock}{'+00:00' if offset in 'zZ' else offset}")
    except ValueError as err:
        raise ValueError(f"{text!r} is not a time: {err}; expected RFC 3339 such as 2025-07-18T20:42:34Z") from err
    since = moment - _EPOCH
    nanoseconds = (since.days * 86_400 + since.seconds) * _SECOND_NS + int((fraction or "0").ljust(9, "0"))
    if not _MIN_NS <= nanoseconds <= _MAX_NS:
        raise ValueError(f"{text!r} is outside of what nanoseconds can say: expected a time between 1677 and 2262")
    return nanoseconds


def format_time(time_ns: int) -> str:
    """RFC 3339 in UTC, with as many digits of the second as there are."""
    seconds, fraction = divmod(time_ns, _SECOND_NS)
    text = (_EPOCH + timedelta(seconds=seconds)).isoformat(timespec="seconds").removesuffix("+00:00")
    digits = f"{fraction:09d}".rstrip("0")
    return f"{text}.{digits}Z" if digits else f"{text}Z"
