r"""Log lines: for people, or one JSON object a line. What an event counts goes into `extra` and so into both.

Names, records and messages of others may hold anything, and must not be able to forge a line, hide one, or steer the
terminal that shows it:

- A line begins with a time; nothing that was logged can begin one. Whatever is not printable is escaped; the lines of a
  traceback, the only ones that follow a line, are indented.
- In text a value that holds a space, `=`, a quote or something escaped is quoted, so that it cannot pass for a field.
- The secrets of the settings, and who signs in to a URL with which password, are replaced by `***` wherever they stand.
"""

import json
import logging
import math
import re
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final

from telemetry_services.text import printable

_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}
_MAX_CHARS: Final = 8_192  # of a message, a value or a traceback
_BARE: Final = re.compile(r'[^\s="\\]+')
_SIGN_IN: Final = re.compile(r"(?<=\w://)[^\s/?#]+(?=@)")
_SHORTEST_SECRET: Final = 4
HIDDEN: Final = "***"


class _Formatter(logging.Formatter):
    """What both forms share.

    Args:
        secrets: texts that no line may hold. Those under 4 characters are left alone: they are in every line.
    """

    def __init__(self, service: str, secrets: Iterable[str] = ()) -> None:
        super().__init__()
        self._service = service
        # The longest first: one may be part of another.
        self._secrets = sorted((secret for secret in secrets if len(secret) >= _SHORTEST_SECRET), key=len, reverse=True)

    def _hide(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, HIDDEN)
        return _SIGN_IN.sub(HIDDEN, text)

    def _clean(self, text: str) -> str:
        """The text without secrets, and not longer than it may be."""
        text = self._hide(text)
        return text if len(text) <= _MAX_CHARS else f"{text[:_MAX_CHARS]}... ({len(text):,} characters)"

    def _message(self, record: logging.LogRecord) -> str:
        return self._clean(record.getMessage())

    def _fields(self, record: logging.LogRecord) -> dict[str, Any]:
        fields = {name: value for name, value in vars(record).items() if name not in _STANDARD}
        return {name: value if _is_plain(value) else self._clean(str(value)) for name, value in fields.items()}

    def _traceback(self, record: logging.LogRecord) -> str:
        """The traceback of the event; of a long one the end, which says what happened."""
        text = self._hide(self.formatException(record.exc_info)) if record.exc_info else ""
        return text if len(text) <= _MAX_CHARS else f"({len(text):,} characters) ...{text[-_MAX_CHARS:]}"


def _is_plain(value: Any) -> bool:
    """Whether JSON has it as it is."""
    return value is None or isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _as_text(value: Any) -> str:
    """As it is, or in quotes with backslashes and quotes escaped, where it could be taken for more than a value."""
    text = str(value)
    if _BARE.fullmatch(text) and text.isprintable():
        return text
    quoted = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{printable(quoted)}"'


class TextFormatter(_Formatter):
    """`2026-01-02T03:04:05.678Z INFO streamer: Published message rows=100 topic=telemetry reason="no value"`."""

    def format(self, record: logging.LogRecord) -> str:
        fields = "".join(f" {name}={_as_text(value)}" for name, value in self._fields(record).items())
        line = f"{_time(record)} {record.levelname} {self._service}: {printable(self._message(record))}{fields}"
        traceback = self._traceback(record).split("\n") if record.exc_info else []
        return "\n  ".join((line, *map(printable, traceback)))


class JsonFormatter(_Formatter):
    """One JSON object a line: time, level, service, logger, message, and the event's own fields."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": _time(record),
            "level": record.levelname,
            "service": self._service,
            "logger": record.name,
            "message": self._message(record),
            **self._fields(record),
        }
        if record.exc_info:
            line["exception"] = self._traceback(record)
        text = json.dumps(line, ensure_ascii=False)
        if text.isprintable():
            return text
        # JSON lets characters stand that end a line elsewhere (U+0085, U+2028) or steer a terminal.
        return "".join(char if char.isprintable() else json.dumps(char)[1:-1] for char in text)


class _StandardError(logging.Handler):
    """Looks standard error up at each line: while a progress bar is shown, lines must go around it."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            print(self.format(record), file=sys.stderr, flush=True)  # noqa: T201 (this is where lines go)
        except OSError:
            self.handleError(record)


def configure_logging(service: str, level: str, form: str, secrets: Iterable[str] = ()) -> None:
    """Sends every log line of the process to standard error, in the form `text` or `json`.

    Args:
        secrets: texts that no line may hold.
    """
    handler = _StandardError()
    handler.setFormatter((JsonFormatter if form == "json" else TextFormatter)(service, secrets))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # Below WARNING these report every request and every connection.
    for name in ("uvicorn", "uvicorn.access", "uvicorn.error", "asyncio", "grpc"):
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLevelName(level)))
