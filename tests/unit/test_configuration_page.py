"""docs/configuration.md says what the services do."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.generate_configuration import PAGE, generate
from telemetry_services.config import SERVICES, ServiceSettings, describe, resolve

pytestmark = pytest.mark.usefixtures("clean_environment")

TEXT = PAGE.read_text(encoding="utf-8")
EXAMPLE = "".join(re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL))


def test_the_tables_are_those_of_the_models() -> None:
    assert generate(TEXT) == TEXT, f"{PAGE.name} is out of date; run `make docs` and commit the result"


def test_every_setting_of_every_service_is_in_a_table() -> None:
    listed = set(re.findall(r"^\| `([A-Z0-9_]+)` \| `(--[a-z0-9-]+)` \|", TEXT, re.MULTILINE))
    assert listed == {(setting.variable, setting.flag) for service in SERVICES for setting in describe(service)}


def test_a_page_without_the_marker_is_refused() -> None:
    with pytest.raises(ValueError, match="make docs"):
        generate("# Configuration\n")


@pytest.mark.parametrize("service", SERVICES)
def test_the_example_file_serves_every_service(tmp_path: Path, service: type[ServiceSettings]) -> None:
    file = tmp_path / "telemetry.toml"
    file.write_text(EXAMPLE)
    resolution = resolve(service, {"telemetry_config": str(file)})
    assert (resolution.problems, resolution.warnings) == ((), ())
    assert "file" in {effective.source for effective in resolution.effective()}


def test_the_example_of_config_check_prints_what_it_says(tmp_path: Path) -> None:
    (tmp_path / "telemetry.toml").write_text(EXAMPLE)
    (block,) = re.findall(r"```console\n\$ telemetry (.*?)\n(.*?)```", TEXT, re.DOTALL)
    command, lines = shlex.split(block[0]), block[1].splitlines()
    done = subprocess.run(
        [sys.executable, "-c", "from telemetry_services.cli import main; main()", *command],
        cwd=tmp_path,
        env=os.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0
    start, end = lines[: lines.index("  ...")], lines[lines.index("  ...") + 1 :]
    printed = done.stdout.splitlines()
    assert printed[: len(start)] == start
    assert printed[-len(end) :] == end
