"""The examples of the README and two pages: they run as they are written, print what they say, and are well typed."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "docs" / "library.md"]
FOLDER = "/tmp/telemetry"


COMMANDS = ROOT / "docs" / "cli.md"
VARYING = [
    (re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z"), "TIME"),
    (re.compile(r" in [\d.]+ s \([\d,]+ samples/s\)"), " RATE"),
    (re.compile(r" (now|\d+ (s|min) ago)$", re.MULTILINE), " AGE"),
    (re.compile(r'(?<="broker_id": ")[0-9a-f]{16}|(?<="free_bytes": )\d+'), "VARIES"),
    (re.compile(" +"), " "),
]


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


def settled(text: str) -> list[str]:
    """The lines of an output without what differs from run to run."""
    for pattern, name in VARYING:
        text = pattern.sub(name, text)
    return [line.strip() for line in text.splitlines()]


@pytest.mark.timeout(300)
def test_the_commands_run_as_written_and_print_what_they_say(tmp_path: Path) -> None:
    blocks: list[str] = re.findall(r"```console\n(.*?)```", COMMANDS.read_text(encoding="utf-8"), re.DOTALL)
    steps = [step.partition("\n") for step in re.split(r"^\$ ", "".join(blocks), flags=re.MULTILINE)[1:]]
    mark = "-- the next command --"
    python = shlex.quote(sys.executable)
    script = ["shopt -s expand_aliases", f'python() {{ {python} -W error "$@"; }}']
    for command, _, _ in steps:
        script += [command, f"echo {shlex.quote(mark)}"]
    ran = subprocess.run(
        ["bash", "-c", "\n".join(script).replace(FOLDER, f"{tmp_path}/telemetry")],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=True,
        timeout=300,
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if not name.startswith("TELEMETRY_")},
    )
    printed = ran.stdout.replace(f"{tmp_path}/telemetry", FOLDER).split(f"{mark}\n")
    assert [(command, settled(text)) for (command, _, _), text in zip(steps, printed, strict=False)] == [
        (command, settled(text)) for command, _, text in steps
    ]
