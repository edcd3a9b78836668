"""What the pages say is held against what the code does."""

import re
from pathlib import Path

import pytest

from telemetry_services.codes import CODES

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
