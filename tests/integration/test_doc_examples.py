"""The examples of README and docs/library.md: they run as they are written, print what they say, and are well typed."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "docs" / "library.md"]
FOLDER = "/tmp/telemetry"


def examples(page: Path) -> str:
    """The examples of a page as one program: each goes on from those before."""
    blocks: list[str] = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    assert blocks
    return "\n".join(blocks)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_examples_run_as_written_and_print_what_they_say(page: Path, tmp_path: Path) -> None:
    program = examples(page)
    expected = re.findall(r"# -> (.*)", program)
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", program.replace(FOLDER, f"{tmp_path}/telemetry")],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr == ""
    assert ran.stdout.splitlines() == expected


@pytest.mark.timeout(300)
def test_the_examples_are_well_typed(tmp_path: Path) -> None:
    assert (ROOT / "python" / "telemetry_broker" / "py.typed").exists()
    for page in PAGES:
        (tmp_path / f"{page.stem.lower()}_examples.py").write_text(examples(page), encoding="utf-8")
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--config-file=", "."],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "MYPYPATH": str(ROOT / "python")},
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")
