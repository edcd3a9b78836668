"""The `telemetry` command as a shell sees it: help, exit status, and errors of one sentence."""

import os
import subprocess
import sys

import pytest

COMMANDS = ["broker", "proxy", "streamer", "collector", "api", "up"]


def telemetry(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", "from telemetry_services.cli import main; main()", *arguments]
    return subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=30, check=False
    )


def test_help_names_every_service_and_how_to_try_it() -> None:
    done = telemetry("--help")
    assert done.returncode == 0
    for word in (*COMMANDS, "telemetry up --once", "--config"):
        assert word in done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_service_shows_variables_and_defaults(command: str) -> None:
    done = telemetry(command, "--help")
    assert done.returncode == 0
    assert "--port N" in done.stdout
    assert "DATA_DIR" in done.stdout
    assert "[PORT;" in done.stdout


def test_without_a_command_the_help_is_shown_and_the_status_is_2() -> None:
    done = telemetry()
    assert done.returncode == 2
    assert "Usage: telemetry" in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["brokre"], "brokre"),
        (["broker", "--bogus"], "--bogus"),
        (["broker", "--queue-size", "0"], "--queue-size is '0'"),
        (["streamer"], "CSV_PATH is not set"),
        (["broker", "--host", "0.0.0.0"], "--insecure"),
        (["broker", "--config", "/nonexistent.toml"], "/nonexistent.toml"),
    ],
)
def test_a_misuse_is_one_sentence_and_status_2(arguments: list[str], word: str) -> None:
    done = telemetry(*arguments)
    assert done.returncode == 2
    assert word in done.stderr
    assert "Traceback" not in done.stderr


def test_options_are_those_that_do_something() -> None:
    for command, has_grpc in (
        ("broker", True),
        ("proxy", True),
        ("collector", True),
        ("up", True),
        ("streamer", False),
        ("api", True),
    ):
        assert ("--grpc-port" in telemetry(command, "--help").stdout) == has_grpc, command
    assert "from 0 to 1,000,000,000 (rows/s)" in telemetry("streamer", "--rate", "-1", "--csv", "x").stderr
    refused = telemetry("collector", "--port", "0", STORE="foo", BROKER_URL="mem://").stderr
    assert "store 'foo': no scheme" in refused


def test_an_error_that_was_not_foreseen_is_a_sentence_with_its_traceback_on_demand() -> None:
    script = (
        "import telemetry_services.streamer.process as process\n"
        "async def serve(settings, stopping): raise ValueError('two\\nlines')\n"
        "process.serve = serve\n"
        "from telemetry_services.cli import main\n"
        "import sys; sys.argv = ['telemetry', 'streamer']\n"
        "main()"
    )
    for debug, shown in (("", False), ("1", True)):
        environment = {**os.environ, "TELEMETRY_DEBUG": debug}
        done = subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=30, check=False
        )
        assert done.returncode == 1
        assert ("Traceback" in done.stderr) == shown
        if not shown:
            assert done.stderr.startswith("telemetry: internal: ValueError: two lines. ")
            assert "TELEMETRY_DEBUG=1" in done.stderr
            assert done.stderr.count("\n") == 1


def test_the_version_is_that_of_the_distribution() -> None:
    done = telemetry("--version")
    assert (done.returncode, done.stdout) == (0, "telemetry, version 2.0.0\n")


def test_help_does_not_load_the_stores_libraries() -> None:
    script = (
        "import sys; from telemetry_services.cli.main import telemetry\n"
        "telemetry.main(['up', '--help'], standalone_mode=False)\n"
        "heavy = {'deltalake', 'datafusion', 'pyarrow', 'fastapi', 'uvicorn', 'rich'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
