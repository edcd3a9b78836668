"""Log lines against names, records and messages that try to forge one, hide one, or steer a terminal."""

import ast
import json
import logging
import re
import sys
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from telemetry_services.observability.logs import JsonFormatter, TextFormatter, configure_logging
from telemetry_services.text import printable, shown_url

HOSTILE = [
    "telemetry\n2026-01-02T03:04:05.678Z INFO broker: the disk is fine",
    "\r\x1b[2K\x1b[1A",  # over the line before
    "\x9b31m",  # a terminal escape in one character
    "\x1b]52;c;cm0gLXJmIC8=\x07",  # into the clipboard
    "a\u2028b\u2029c\x85d\x0be\x0cf",  # ends of lines elsewhere
    "user\u202etxt.exe",  # turned around
    "x level=ERROR api_key=K",
    'x" topic="y',
    "back\\slash\\",
    "\ud800",  # half of a character, as from a file name
    "\U000e0041\u200b\u00ad",  # seen by nobody
    "",
    " ",
]
TEXT_LINE = re.compile(r'(\S+Z) (\w+) ([\w-]+): (.*?)((?: \w+=(?:[^\s="\\]+|"(?:[^"\\]|\\.)*"))*)')


def record(message: str, fields: dict[str, Any] | None = None, *arguments: object) -> logging.LogRecord:
    made = logging.getLogger("test").makeRecord("test", logging.INFO, "", 0, message, arguments, None)
    vars(made).update(fields or {})
    return made


def fields_of(line: str) -> dict[str, str]:
    matched = TEXT_LINE.fullmatch(line)
    assert matched is not None, line
    pairs = re.findall(r' (\w+)=([^\s="\\]+|"(?:[^"\\]|\\.)*")', matched[5])
    return {name: ast.literal_eval(value) if value.startswith('"') else value for name, value in pairs}


texts = st.one_of(st.sampled_from(HOSTILE), st.text(st.characters(), max_size=40))


@given(message=texts, value=texts, other=texts)
@example(message="plain", value="plain", other="7")
def test_a_text_line_is_one_line_and_its_values_come_back_as_they_were(message: str, value: str, other: str) -> None:
    line = TextFormatter("broker").format(record("%s", {"value": value, "other": other}, message))
    assert line.isprintable()
    assert line.splitlines() == [line]
    told = fields_of(line)
    assert (told["value"], told["other"]) == (value, other)
    assert printable(message) in line


@given(message=texts, value=texts)
def test_a_json_line_is_one_line_and_its_values_come_back_as_they_were(message: str, value: str) -> None:
    line = JsonFormatter("broker").format(record("%s", {"value": value}, message))
    assert line.isprintable()
    assert line.splitlines() == [line]
    told = json.loads(line)
    assert (told["message"], told["value"], told["service"], told["level"]) == (message, value, "broker", "INFO")


def test_only_values_that_need_it_are_quoted() -> None:
    fields = {"rows": 100, "rate": 0.5, "at": "127.0.0.1:9090,unix:/a", "ü": "ü", "no": None}
    line = TextFormatter("streamer").format(record("Published message", fields))
    assert line.endswith("streamer: Published message rows=100 rate=0.5 at=127.0.0.1:9090,unix:/a ü=ü no=None")
    fields = {"why": "no value", "tag": "a=b", "title": 'the "x"', "none": ""}
    line = TextFormatter("streamer").format(record("m", fields))
    assert line.endswith(r'm why="no value" tag="a=b" title="the \"x\"" none=""')


@pytest.mark.parametrize("form", [TextFormatter, JsonFormatter])
def test_a_traceback_cannot_begin_a_line_of_its_own(form: type[TextFormatter | JsonFormatter]) -> None:
    try:
        raise ValueError(f"{HOSTILE[0]}\x1b[31m")
    except ValueError:
        told = record("it failed")
        told.exc_info = sys.exc_info()
    first, *rest = form("broker").format(told).split("\n")
    assert "it failed" in first
    if form is JsonFormatter:
        assert rest == []
        assert json.loads(first)["exception"].endswith("\x1b[31m")
    else:
        assert all(line.startswith("  ") and line.isprintable() for line in rest)
        assert any("the disk is fine" in line for line in rest)


@pytest.mark.parametrize("form", ["text", "json"])
def test_no_line_holds_a_secret(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = logging.getLogger().handlers[:], logging.getLogger().level
    try:
        configure_logging("api", "INFO", form, ["open sesame", "open", "x"])
        log = logging.getLogger("test")
        log.info("the key is open sesame", extra={"given": "open sesame", "nested": {"key": "open sesame"}})
        log.info(
            "nats://user:pa:ss@host:4222/x and http://t0ken@host, mail to me@host", extra={"url": "http://u:p@h/?q=1"}
        )
        try:
            raise ValueError("open sesame")
        except ValueError:
            log.exception("it failed")
    finally:
        logging.basicConfig(handlers=before[0], level=before[1], force=True)
    shown = capsys.readouterr().err
    for secret in ("sesame", "open", "pa:ss", "user", "t0ken", "u:p"):
        assert secret not in shown
    assert "nats://***@host:4222/x and http://***@host, mail to me@host" in shown
    assert "http://***@h/?q=1" in shown


def test_a_line_is_bounded() -> None:
    line = TextFormatter("broker").format(record("x" * 1_000_000, {"value": "y" * 1_000_000}))
    assert len(line) < 20_000
    assert "(1,000,000 characters)" in line


def test_a_number_that_json_has_not_is_a_text() -> None:
    line = JsonFormatter("broker").format(record("m", {"rate": float("nan"), "most": float("inf"), "on": True}))
    told = json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert (told["rate"], told["most"], told["on"]) == ("nan", "inf", True)


def test_a_url_is_shown_without_what_signs_in() -> None:
    assert shown_url("influxdb://user:secret@host:8181/db?token=secret") == "influxdb://host:8181/db"
    assert shown_url("grpc://127.0.0.1:9090") == "grpc://127.0.0.1:9090"
