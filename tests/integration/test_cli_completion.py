"""Completion as the shells run it: the printed script, asked what a command line can become."""

import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import telemetry_broker as tb
from tests.conftest import require_tool
from tests.integration.cli_runs import PATIENCE, Cli, environment

Complete = Callable[[str], list[str]]

MODULE = "python -m telemetry_broker"
PROGRAMS = [MODULE, "telemetry"]
COMMANDS = ["completion", "consume", "describe", "dlq", "drain", "group", "log", "produce", "simulate", "topic"]
SERVICES = ["api", "broker", "collector", "proxy", "streamer", "up"]


@pytest.fixture(params=PROGRAMS, ids=["library", "services"])
def program(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """What is typed in front of a command, with `python` and `telemetry` on the PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    interpreter = shlex.quote(sys.executable)
    services = f'{interpreter} -c "from telemetry_services.cli import main; main()"'
    for name, command in (("python", interpreter), ("telemetry", services)):
        script = folder / name
        script.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        script.chmod(0o755)
    for name, value in environment(PATH=f"{folder}{os.pathsep}{os.environ['PATH']}").items():
        monkeypatch.setenv(name, value)
    for name in ("BROKER", "TOKEN"):
        monkeypatch.delenv(f"TELEMETRY_{name}", raising=False)
    return str(request.param)


def shell(*command: str, **variables: str) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=PATIENCE, check=False, env={**os.environ, **variables}
    )
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


def in_bash(program: str) -> Complete:
    """Asks the function that the script registers, with the words as bash breaks them."""
    script = (
        f'eval "$({program} completion bash)"\n'
        'spec=$(complete -p "$1") && function=${spec##*-F } && function=${function%% *}\n'
        'COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))\n'
        '$function; printf "%s\\n" "${COMPREPLY[@]}"'
    )

    def complete(line: str) -> list[str]:
        words = f"{program} {line}".replace(":", " : ").replace("=", " = ").split(" ")
        return sorted(filter(None, shell("bash", "-c", script, "bash", *words).splitlines()))

    return complete


def in_zsh(program: str) -> Complete:
    """Asks the function with the words that zsh's completion gives it; what it would describe is printed."""
    zsh = require_tool("zsh", "apt-get install -y zsh")
    script = (
        "compdef() { function=$1 }\n"
        '_describe() { print -l -- "${(@P)4}" }\n'
        "_files() { print files }\n"
        "_python() { print python }\n"
        f'eval "$({program} completion zsh)"\n'
        'words=("$@"); CURRENT=$#; $function'
    )

    def complete(line: str) -> list[str]:
        told = shell(zsh, "-f", "-c", script, "zsh", *f"{program} {line}".split(" ")).splitlines()
        return sorted(each.partition(":")[0] for each in told)

    return complete


def in_fish(program: str) -> Complete:
    """Asks fish itself."""
    fish = require_tool("fish", "apt-get install -y fish")
    script = f"{program} completion fish | source; complete -C {{}}"

    def complete(line: str) -> list[str]:
        told = shell(fish, "--no-config", "-c", script.format(shlex.quote(f"{program} {line}"))).splitlines()
        return sorted(each.partition("\t")[0] for each in told)

    return complete


@pytest.fixture(params=[in_bash, in_zsh, in_fish], ids=["bash", "zsh", "fish"])
def complete(request: pytest.FixtureRequest, program: str) -> Complete:
    asked: Complete = request.param(program)
    return asked


def test_commands_options_and_values_are_completed(program: str, complete: Complete) -> None:
    ours = [*SERVICES, "config", "export", "query", "top"] if program == "telemetry" else []
    assert complete("") == sorted(COMMANDS + ours)
    assert complete("topi") == ["topic"]
    assert complete("topic c") == ["configure", "create"]
    assert complete("topic create t --partitions 4 --dur") == ["--durability"]
    assert complete("topic create t --durability ") == ["fsync", "memory", "os"]
    assert complete("topic create t --broker grpc://127.0.0.1:1 --full-policy d") == ["drop_oldest"]
    assert "--follow" in complete("consume t --")
    assert "--follow" not in complete("consume t --follow --f")


def test_topics_and_groups_are_completed_where_the_broker_is_known(
    tmp_path: Path, complete: Complete, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"file://{tmp_path}/data"
    with tb.connect(url) as broker:
        for name in ("telemetry", "logs"):
            broker.create_topic(name)
        broker.create_group("logs", "collector")
    assert complete(f"consume --broker {url} te") == ["telemetry"]
    monkeypatch.setenv("TELEMETRY_BROKER", url)
    assert complete("group describe logs ") == ["collector"]
    assert complete("consume logs --group c") == ["collector"]


def test_what_cannot_be_completed_is_left_alone(program: str) -> None:
    complete = in_bash(program)
    assert complete("topic describe ") == []  # no broker is given
    assert complete("topic describe --broker grpc://127.0.0.1:1 ") == []
    assert complete("nonsense ") == []
    assert complete("log verify ") == []  # the shell completes files


@pytest.mark.parametrize("program", [MODULE], indirect=True)
def test_python_is_left_to_itself_where_it_runs_something_else(program: str) -> None:
    script = f'eval "$({MODULE} completion bash)"\nCOMP_WORDS=("$@") COMP_CWORD=$(($# - 1))\n'
    script += '_telemetry_broker_completion; echo "${#COMPREPLY[@]}"'
    for line in ("python script.py to", "python -m http.server to", "python -m telemetry_broke"):
        assert shell("bash", "-c", script, "bash", *line.split(" ")) == "0\n"


@pytest.mark.parametrize("program", ["telemetry"], indirect=True)
def test_a_service_is_completed_with_its_options(program: str) -> None:
    assert in_bash(program)("broker --grpc-p") == ["--grpc-port"]


def test_a_shell_that_is_not_known_is_refused_with_those_that_are() -> None:
    done = Cli(None)("completion", "bsh")
    assert done.returncode == 2
    assert "'bsh' is none of bash, zsh, fish; did you mean bash?" in done.stderr
