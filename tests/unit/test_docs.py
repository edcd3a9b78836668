"""What the pages say is held against what the code does."""

import re
from pathlib import Path

import pytest

from telemetry_broker import _core
from telemetry_broker.v1 import broker_pb2 as pb
from telemetry_services.codes import CODES
from telemetry_services.observability import metrics

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_the_protocol_page_lists_every_error_code_with_its_grpc_status() -> None:
    page = (ROOT / "docs/protocol.md").read_text(encoding="utf-8")
    listed = dict(re.findall(r"^\| `([a-z_.]+)` \| ([A-Z_]+) \|", page, re.MULTILINE))
    assert listed == {code: info.status.name for code, info in CODES.items()}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_of_a_page_leads_to_a_file(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_compatibility_page_has_a_row_for_each_promise_in_order() -> None:
    page = (ROOT / "docs/compatibility.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| S(\d+) \|[^|]+\|[^|]+\| (\w+) \|(.*)\|$", page, re.MULTILINE)
    assert [int(number) for number, _, _ in rows] == list(range(1, 151))
    assert {state for _, state, _ in rows} <= {"works", "partly", "later"}
    unshown = [number for number, state, shown in rows if state != "later" and not shown.strip()]
    assert unshown == [], "a promise that is kept names what shows it"


def test_every_test_that_the_compatibility_page_names_exists() -> None:
    page = (ROOT / "docs/compatibility.md").read_text(encoding="utf-8")
    for file, test in re.findall(r"`((?:tests|broker_core)/[\w/.-]+?\.(?:py|rs))(?:::(\w+))?`", page):
        assert (ROOT / file).is_file(), file
        assert test in (ROOT / file).read_text(encoding="utf-8"), f"{file}::{test}"


def test_the_operations_page_lists_every_metric_and_none_that_is_not_there() -> None:
    page = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`\w+`.*?) \|", page, re.MULTILINE)
    listed = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    core = _core.Broker(None)
    core.call("CreateTopic", pb.CreateTopicRequest(name="t").SerializeToString())
    shown = set(re.findall(r"^# TYPE (\w+)", metrics.render(core.render_metrics("broker")).decode(), re.MULTILINE))
    core.close()
    disk = {"broker_disk_used_bytes", "broker_disk_free_bytes", "broker_disk_min_free_bytes"}  # of a folder only
    ours = {name for name in shown if not name.startswith(("process_", "python_"))} | disk
    assert {name for name in listed if not name.startswith("process_")} == ours
