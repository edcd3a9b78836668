"""`telemetry config check` as a shell sees it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.usefixtures("clean_environment")

SECRET = "sesam1234"


def check(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", "from telemetry_services.cli import main; main()", "config", "check", *arguments]
    return subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=30, check=False
    )


def test_each_setting_is_shown_with_its_value_and_origin(tmp_path: Path) -> None:
    file, key = tmp_path / "telemetry.toml", tmp_path / "key"
    file.write_text('msg_queue_topic = "t"\n[api]\nbroker_url = "grpc://u:sesam1234@b:1"\n')
    key.write_text(SECRET)
    key.chmod(0o400)
    done = check("api", "--config", str(file), PORT="81", API_KEY_FILE=str(key))
    assert (done.returncode, done.stderr) == (0, "no problems\n")
    title, *lines = done.stdout.splitlines()
    assert title.split() == ["api", "VALUE", "FROM"]
    rows = {line.split()[0]: line.split(maxsplit=2)[1:] for line in lines if line}
    assert rows["PORT"] == ["81", "variable PORT"]
    assert rows["MSG_QUEUE_TOPIC"] == ["t", f"msg_queue_topic in {file}"]
    assert rows["BROKER_URL"] == ["grpc://********@b:1", f"broker_url of [api] in {file}"]
    assert rows["API_KEY"] == ["********", f"API_KEY_FILE={key}"]
    assert rows["TELEMETRY_CONFIG"] == [str(file), "flag --config"]
    assert rows["INSECURE"] == ["false", "default"]
    assert rows["STORE"] == ["-", "default"]
    assert SECRET not in done.stdout


def test_every_problem_is_told_once_with_the_services_that_have_it(tmp_path: Path) -> None:
    file = tmp_path / "telemetry.toml"
    file.write_text(f"queue_sizes = 1\napi_key = {SECRET.removeprefix('sesam')}\n")
    done = check(TELEMETRY_CONFIG=str(file), PORT="x", VISIBILITY_TIMEOUT="1", VISIBILTY_TIMEOUT="1s")
    assert done.returncode == 2
    told = sorted(line.split(":")[0] for line in done.stderr.splitlines())
    everyone = "problem (broker, proxy, streamer, collector, api)"
    assert told == ["problem (api)", "problem (broker)", everyone, everyone, "warning"]
    parts = ("PORT is 'x'", "VISIBILITY_TIMEOUT is '1'", "did you mean queue_size?", "api_key in", "did you mean VISIB")
    assert [done.stderr.count(part) for part in parts] == [1] * len(parts)
    assert "1234" not in done.stdout + done.stderr
    titles = [line.split()[0] for line in done.stdout.splitlines() if line.endswith("FROM")]
    assert titles == ["broker", "proxy", "streamer", "collector", "api"]


def test_json_has_the_same_for_programs(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text(SECRET)
    key.chmod(0o644)
    done = check("up", "--json", API_KEY_FILE=str(key), VISIBILITY_TIMEOUT="90s", BROKER_COUNT="3", QUEUE_SIZES="1")
    assert (done.returncode, done.stderr) == (2, "")
    document = json.loads(done.stdout)
    (up,) = document["services"].values()
    assert up["settings"]["api_key"] == {
        "value": "********",
        "source": "file_variable",
        "place": f"API_KEY_FILE={key}",
        "secret": True,
    }
    assert up["settings"]["visibility_timeout"] == {
        "value": "90s",
        "source": "variable",
        "place": "VISIBILITY_TIMEOUT",
        "secret": False,
    }
    default = {"source": "default", "place": None, "secret": False}
    assert up["settings"]["queue_size"] == {"value": 2000, **default}
    assert up["settings"]["once"] == {"value": False, **default}
    assert up["settings"]["csv_path"] == {"value": None, **default}
    assert [problem["code"] for problem in up["problems"]] == ["config.unsupported"]
    assert "mode 0644" in up["warnings"][0]
    assert "QUEUE_SIZES" in document["warnings"][0]
    assert SECRET not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "word"), [(["brokre"], "brokre"), (["broker", "--port", "1"], "--port"), (["api", "up"], "(up)")]
)
def test_what_it_does_not_take_is_refused(arguments: list[str], word: str) -> None:
    done = check(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert word in done.stderr


def test_a_service_logs_what_somebody_should_look_at(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text(SECRET)
    key.chmod(0o644)
    script = (
        "import telemetry_services.api.process as process\n"
        "async def serve(settings, stopping): return 0\n"
        "process.serve = serve\n"
        "from telemetry_services.cli import main\n"
        "import sys; sys.argv = ['telemetry', 'api']\n"
        "main()"
    )
    environment = {**os.environ, "API_KEY_FILE": str(key)}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    assert f"WARNING api: API_KEY_FILE={key}: every user of this machine can read" in done.stderr
    assert SECRET not in done.stderr
