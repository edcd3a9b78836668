"""What is asked wrongly, or cannot be done: one sentence with the remedy, status 2, and never a traceback."""

import os
import subprocess
from pathlib import Path

import pytest

import telemetry_broker as tb
from tests.integration.cli_runs import LIBRARY, PATIENCE, SERVICES, Cli


@pytest.fixture
def url(tmp_path: Path) -> str:
    url = f"file://{tmp_path}/data"
    with tb.connect(url) as broker:
        broker.create_topic("telemetry", partitions=1)
        broker.create_group("telemetry", "collector")
    return url


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["tpic"], "did you mean topic?"),
        (["topic"], "ACTION"),
        (["topic", "creat", "t"], "did you mean create?"),
        (["topic", "describe"], "TOPIC"),
        (["topic", "list", "--brokr", "x"], "it takes no '--brokr'; did you mean --broker?"),
        (["topic", "list", "extra"], "it takes no 'extra'"),
        (["topic", "describe", "telemtry"], "did you mean telemetry?"),
        (["topic", "describe", "x"], "known topics: telemetry"),
        (["topic", "create", "a/b"], "invalid.name"),
        (["topic", "create", "telemetry", "--partitions", "3"], "topic.exists"),
        (["topic", "create", "t", "--retention", "30"], "'30' is no duration: give a number with ms, s, m, h or d"),
        (["topic", "create", "t", "--segment-bytes", "1MB"], "'1MB' is no size"),
        (["topic", "create", "t", "--segment-bytes", "7"], "segment_bytes"),
        (["topic", "create", "t", "--durability", "fsnc"], "did you mean fsync?"),
        (["topic", "configure", "telemetry"], "give one of --partitions"),
        (["topic", "purge", "telemetry", "--partition", "7", "--yes"], "partition.not_found"),
        (["group", "describe", "telemetry", "collecter"], "did you mean collector?"),
        (["group", "seek", "telemetry", "collector"], "--to"),
        (["group", "create", "telemetry", "collector", "--mode", "ordered"], "group.exists"),
        (["dlq", "list", "x"], "known topics: telemetry"),
        (["topic", "list", "--broker", "gprc://h"], "invalid.url"),
        (["topic", "list", "--broker", "grpc://127.0.0.1:1"], "broker.unavailable"),
        (["topic", "list", "--broker", "file://relative"], "three slashes"),
        (["topic", "list", "--broker", "file:///nonexistent"], "topic create NAME"),
        (["topic", "describe", "\udcff"], "is no text in UTF-8"),
    ],
    ids=lambda each: "-".join(each).encode("ascii", "replace").decode() if isinstance(each, list) else "",
)
def test_a_misuse_is_one_sentence_with_its_remedy_and_status_2(url: str, arguments: list[str], word: str) -> None:
    done = Cli(url)(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert word in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("python -m telemetry_broker")


def test_no_broker_at_all_is_answered_with_how_to_name_one() -> None:
    done = Cli(None)("topic", "list")
    assert done.returncode == 2
    assert "--broker URL" in done.stderr
    assert "TELEMETRY_BROKER" in done.stderr


def test_a_mistyped_folder_is_not_made(tmp_path: Path) -> None:
    cli = Cli(f"file://{tmp_path}/typo")
    assert cli("topic", "list").returncode == 2
    assert cli("produce", "t", stdin="a\n").returncode == 2
    assert list(tmp_path.iterdir()) == []
    cli.ok("topic", "create", "t")
    assert cli.ok("produce", "t", stdin="a\n") == "stored 1 record in t\n"


def test_a_folder_that_is_in_use_is_refused_with_how_to_share_it(url: str) -> None:
    with tb.connect(url):
        done = Cli(url)("topic", "list")
    assert done.returncode == 2
    assert "in use by process" in done.stderr
    assert "--listen unix:" in done.stderr


@pytest.mark.parametrize("program", [LIBRARY, SERVICES], ids=["library", "services"])
def test_without_a_command_the_help_is_shown_and_the_status_is_2(program: list[str]) -> None:
    done = Cli(None, program)()
    assert done.returncode == 2
    for word in ("topic", "group", "dlq", "produce", "consume", "log", "completion"):
        assert word in done.stdout + done.stderr


@pytest.mark.parametrize("closed", ["<&-", ">&-"])
def test_closed_streams_are_a_sentence(url: str, closed: str) -> None:
    cli = Cli(url)
    command = ["bash", "-c", f'exec "$@" {closed}', "bash", *cli.program, "topic", "list"]
    done = subprocess.run(
        command, env=cli.environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, timeout=PATIENCE, check=False
    )
    assert done.returncode == 2
    assert b"have to be open" in done.stderr
    assert done.stderr.count(b"\n") == 1


def test_a_locale_that_lacks_a_letter_is_no_error(url: str) -> None:
    cli = Cli(url)
    cli.ok("produce", "telemetry", stdin="é\n")
    cli.environment = {**os.environ, **cli.environment, "PYTHONIOENCODING": "ascii"}
    with tb.connect(url) as broker, broker.consumer("telemetry", "collector") as consumer:
        consumer.receive(wait=PATIENCE).nack(dead_letter=True, reason="é")
    assert "\\xe9" in cli("dlq", "list", "telemetry").stdout
