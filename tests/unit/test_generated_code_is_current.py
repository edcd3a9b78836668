"""The committed code of the protos is what `make proto` writes today."""

from pathlib import Path

import pytest

from scripts.generate_protos import PACKAGE, ROOT, RUST_MESSAGES, generate_python, generate_rust
from tests.conftest import require_tool

REMEDY = "run `make proto` and commit the result"


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir() if path.is_file()}


def test_committed_python_equals_freshly_generated_python(tmp_path: Path) -> None:
    fresh = contents(generate_python(tmp_path))
    committed = contents(ROOT / "python" / PACKAGE)

    assert fresh.keys() == committed.keys(), REMEDY
    stale = [name for name, text in fresh.items() if committed[name] != text]
    assert not stale, f"out of date: {', '.join(stale)}; {REMEDY}"


@pytest.mark.timeout(600)  # compiles the generator the first time
def test_committed_rust_equals_freshly_generated_rust(tmp_path: Path) -> None:
    require_tool("cargo", "https://rustup.rs, or on Debian 12: apt-get install -y rustc-web cargo-web")
    generate_rust(tmp_path / "v1.rs")

    assert (tmp_path / "v1.rs").read_text() == RUST_MESSAGES.read_text(), f"{RUST_MESSAGES} is out of date; {REMEDY}"
