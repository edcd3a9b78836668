#!/bin/sh
# Resolve the dependencies of both distributions and of development anew, in an empty environment, and pin the result in
# constraints.txt. Names and versions only: no URL, no hash, so that any index or mirror serves them.
set -eu

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
.venv/bin/python -m venv "$scratch/venv"
python=$scratch/venv/bin/python

# The services require the library, which comes from this tree, not from an index: its requirements stand in for it.
"$python" - >"$scratch/requirements.txt" <<'PYTHON'
import tomllib
from pathlib import Path

for file in ("pyproject.toml", "services/pyproject.toml"):
    project = tomllib.loads(Path(file).read_text())["project"]
    for requirements in (project["dependencies"], *project.get("optional-dependencies", {}).values()):
        for requirement in requirements:
            if not requirement.startswith("telemetry-broker"):
                print(requirement)
PYTHON
"$python" -m pip install --quiet --disable-pip-version-check --upgrade pip
"$python" -m pip install --quiet --disable-pip-version-check --group dev --group bench --requirement "$scratch/requirements.txt"
{
    printf '# The exact version of every package .venv holds, runtime and development. Written by: make constraints\n'
    "$python" -m pip list --format=freeze | LC_ALL=C sort --ignore-case
} >"$scratch/constraints.txt"
cp "$scratch/constraints.txt" constraints.txt
