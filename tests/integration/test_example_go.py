"""examples/go: code generated from protos/ for another language, built and run against the broker."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import require_tool
from tests.integration.service_processes import BrokerProcess

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(600)  # the first build of gRPC for Go takes a minute
def test_the_example_in_go_produces_consumes_and_reads_errors(tmp_path: Path) -> None:
    go = require_tool("go", "apt-get install -y golang-go")
    require_tool("sh", "apt-get install -y dash")
    folder = tmp_path / "go"
    shutil.copytree(ROOT / "examples" / "go", folder, ignore=shutil.ignore_patterns("bin", "gen"))
    environment = {
        **os.environ,
        "PROTOS": str(ROOT / "protos"),
        "PROTOC": f"{sys.executable} -m grpc_tools.protoc",
        "GOFLAGS": "-mod=readonly",
    }
    fetched = subprocess.run([go, "mod", "download"], cwd=folder, env=environment, check=False)
    if fetched.returncode != 0 and os.environ.get("STRICT") != "1":
        pytest.skip("the modules of examples/go cannot be downloaded")
    subprocess.run(["sh", "generate.sh"], cwd=folder, env=environment, check=True)
    subprocess.run([go, "vet", "."], cwd=folder, env=environment, check=True)
    subprocess.run([go, "build", "-o", "example", "."], cwd=folder, env=environment, check=True)
    with BrokerProcess(tmp_path / "data") as broker:
        run = subprocess.run([folder / "example", broker.grpc], capture_output=True, text=True, check=False, timeout=60)
        assert (run.returncode, run.stdout.splitlines()) == (
            0,
            [
                "produced 2, duplicate false",
                "produced 0, duplicate true",
                "consumed one",
                "consumed two",
                "acked 2",
                'refused topic.not_found: there is no topic "nowhere"; create it first',
            ],
        ), run.stderr
        assert broker.stop() == 0
