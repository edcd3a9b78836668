"""`python -m telemetry_broker log`, and `telemetry log`, on folders of a real broker."""

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

import telemetry_broker as tb
from telemetry_broker import _core

FRAMES = 6
LIBRARY = ["-m", "telemetry_broker"]
SERVICES = ["-c", "from telemetry_services.cli import main; main()"]


def run(*arguments: str | Path, program: list[str] = LIBRARY) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, *program, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def value(number: int) -> bytes:
    return b"gpu,uuid=GPU-1 temp=%d" % number


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six frames of one record in partition 0, of which a group has acked two; partition 1 is empty."""
    data = tmp_path / "data"
    with tb.connect(f"file://{data}") as broker:
        broker.create_topic("telemetry", partitions=2)
        with broker.producer("telemetry", name="p") as producer:
            for number in range(FRAMES):
                producer.send(value(number), key=b"GPU-1", partition=0, timestamp_ns=1_752_871_354_000_000_007)
                producer.flush()
        with broker.consumer("telemetry", "g", max_records=2) as consumer:
            consumer.receive(wait=0).ack()
    return data


def segment(folder: Path) -> Path:
    (path,) = (folder / "telemetry/partition-0").glob("*.log")
    return path


def damage(folder: Path, frame: int) -> None:
    path = segment(folder)
    raw = bytearray(path.read_bytes())
    at = raw.index(value(frame))
    raw[at] ^= 0x10
    path.write_bytes(raw)


def stored(folder: Path) -> list[tuple[int, bytes]]:
    with tb.connect(f"file://{folder}") as broker:
        page = broker.read("telemetry", 0)
        return list(zip(page.offsets, page.values, strict=True))


def left_for(folder: Path, group: str) -> list[bytes]:
    with (
        tb.connect(f"file://{folder}") as broker,
        broker.consumer("telemetry", group, idle_timeout=0.05) as consumer,
    ):
        got = []
        for batch in consumer:
            got += batch.values
            batch.ack()
        return got


@pytest.mark.parametrize("program", [LIBRARY, SERVICES], ids=["library", "services"])
def test_a_sound_folder_is_clean(folder: Path, program: list[str]) -> None:
    done = run("log", "verify", folder, program=program)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{folder}: nothing is wrong\n", "")
    done = run("log", "verify", folder, "--json", program=program)
    assert (done.returncode, done.stdout) == (0, "")


def test_damage_is_listed_mended_and_read_past(folder: Path) -> None:
    damage(folder, 3)
    before = segment(folder).read_bytes()
    with pytest.raises(tb.CorruptError, match=r"log verify"):
        stored(folder)

    done = run("log", "verify", folder)
    assert done.returncode == 1
    assert "damaged_frames" in done.stdout
    assert "lost: offsets 3 to 3" in done.stdout
    done = run("log", "verify", folder, "--json")
    (finding,) = map(json.loads, done.stdout.splitlines())
    assert (finding["kind"], finding["topic"], finding["partition"]) == ("damaged_frames", "telemetry", 0)
    assert (finding["path"], finding["lost"], finding["mended"]) == (str(segment(folder)), [3, 4], False)

    done = run("log", "repair", folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert "1 found, 1 mended, 0 left to do" in done.stdout
    assert Path(f"{segment(folder)}.damaged").read_bytes() == before

    assert run("log", "verify", folder).returncode == 0
    assert stored(folder) == [(number, value(number)) for number in range(FRAMES) if number != 3]
    assert left_for(folder, "g") == [value(2), value(4), value(5)]
    assert left_for(folder, "another") == [value(number) for number in range(FRAMES) if number != 3]


def test_a_missing_part_in_the_middle_of_a_log_is_passed_by_consumers_once_it_was_repaired(folder: Path) -> None:
    state = json.loads((folder / "telemetry/partition-0/state.json").read_text())
    damage(folder, FRAMES - 1)
    assert run("log", "repair", folder).returncode == 0
    with tb.connect(f"file://{folder}") as broker, broker.producer("telemetry") as producer:
        producer.send(b"later", partition=0)
    records = stored(folder)
    assert records[:-1] == [(number, value(number)) for number in range(FRAMES - 1)]
    offset, last = records[-1]
    assert last == b"later"
    assert offset >= state["end"], "no offset that was lost is given again"
    assert left_for(folder, "g") == [*(value(number) for number in range(2, FRAMES - 1)), b"later"]


def test_what_repair_cannot_mend_is_left_to_a_person(folder: Path) -> None:
    (folder / "telemetry/topic.json").write_text("{")
    done = run("log", "repair", folder)
    assert done.returncode == 1
    assert "unreadable_topic" in done.stdout
    assert "to do: restore it from a backup" in done.stdout


def test_dump_prints_frames_and_records(folder: Path) -> None:
    done = run("log", "dump", folder)
    assert done.returncode == 0, done.stderr
    assert f"telemetry/0 {segment(folder).name} byte 40: offsets 0 to 0, producer " in done.stdout
    line = "  0  2025-07-18T20:42:34.000000007Z  key GPU-1  21 bytes"
    assert line in done.stdout.splitlines()
    done = run("log", "dump", folder, "--values", "--from", "2", "--to", "4")
    assert [line.rsplit("  ", 1)[1] for line in done.stdout.splitlines() if line.startswith("  ")] == [
        value(2).decode(),
        value(3).decode(),
    ]
    done = run("log", "dump", folder, "--frames", "--topic", "telemetry", "--partition", "0")
    assert len(done.stdout.splitlines()) == FRAMES


def test_dump_as_json_names_every_field_and_shows_damage(folder: Path) -> None:
    damage(folder, 1)
    done = run("log", "dump", folder, "--json", "--values")
    assert done.returncode == 1
    shown = [json.loads(line) for line in done.stdout.splitlines()]
    frames = [line for line in shown if "records" in line]
    assert [frame["base_offset"] for frame in frames] == [0, 2, 3, 4, 5]
    assert frames[0]["sequence"] == 1
    assert frames[0]["records"] == [
        {
            "offset": 0,
            "timestamp_ns": 1_752_871_354_000_000_007,
            "key": "GPU-1",
            "value_bytes": len(value(0)),
            "value": value(0).decode(),
        }
    ]
    (finding,) = (line for line in shown if "kind" in line)
    assert (finding["kind"], finding["lost"]) == ("damaged_frames", [1, 2])


def test_a_reader_that_has_seen_enough_ends_a_dump_without_a_word(folder: Path) -> None:
    command = [sys.executable, *LIBRARY, "log", "dump", str(folder), "--values"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as dump:
        assert dump.stdout is not None
        assert dump.stderr is not None
        dump.stdout.close()
        assert (dump.stderr.read(), dump.wait(30)) == (b"", 0)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["log"], "ACTION"),
        (["log", "verfy", "."], "verfy"),
        (["log", "verify"], "DIR"),
        (["log", "verify", "/nonexistent"], "/nonexistent"),
        (["log", "verify", "{folder}", "--topic", "x"], "no partition that was asked for"),
        (["log", "verify", "{folder}", "--partition", "-1"], "-1"),
        (["log", "dump", "{folder}", "--topic", "x", "--partition", "0"], 'no topic "x"'),
        (["log", "dump", "{folder}", "--topic", "x"], "no partition that was asked for"),
        (["log", "dump", "{folder}", "--from", "99999999999999999999"], "99999999999999999999"),
        (["log", "verify", "{empty}"], "no broker's folder"),
    ],
)
def test_a_misuse_is_named_and_status_2(folder: Path, tmp_path: Path, arguments: list[str], word: str) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    done = run(*(argument.format(folder=folder, empty=empty) for argument in arguments))
    assert done.returncode == 2, done
    assert word in done.stderr
    assert "Traceback" not in done.stderr
    assert list(empty.iterdir()) == []


def test_a_folder_that_a_broker_has_open_is_refused(folder: Path) -> None:
    with tb.connect(f"file://{folder}"):
        for action in ("verify", "repair", "dump"):
            done = run("log", action, folder)
            assert done.returncode == 2
            assert "in use by process" in done.stderr


def test_the_services_command_has_the_same_status_and_words(folder: Path) -> None:
    damage(folder, 1)
    for arguments, status in ((["verify", folder], 1), (["verify", folder, "--bogus"], 2), (["verify", "/gone"], 2)):
        done = run("log", *arguments, program=SERVICES)
        assert done.returncode == status
        assert done.stdout == run("log", *arguments).stdout
        assert "Traceback" not in done.stderr


def test_the_help_teaches_all_of_it() -> None:
    for program in (LIBRARY, SERVICES):
        done = run("log", "--help", program=program)
        assert done.returncode == 0
        for word in ("verify", "repair", "dump"):
            assert word in done.stdout
    done = run("--help", program=SERVICES)
    assert "log" in done.stdout


@pytest.mark.parametrize("action", ["verify", "dump"])
def test_a_big_log_shows_on_a_terminal_how_far_the_reading_is(tmp_path: Path, action: str) -> None:
    data = tmp_path / "data"
    with tb.connect(f"file://{data}") as broker:
        broker.create_topic("t", partitions=1)
        with broker.producer("t") as producer:
            for _ in range(20):
                producer.send(bytes(1 << 19))
            producer.flush()
            for _ in range(20):
                producer.send(bytes(1 << 19))
    terminal, screen = pty.openpty()
    try:
        command = [sys.executable, *LIBRARY, "log", action, str(data)]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=screen, text=True, timeout=30, check=True)
        shown = os.read(terminal, 4096).decode()
    finally:
        os.close(screen)
        os.close(terminal)
    assert re.search(rf"{action}: \d+ % of 20 MiB", shown), shown
    lines = done.stdout.splitlines()
    assert lines == [f"{data}: nothing is wrong"] if action == "verify" else len(lines) > 40


def test_progress_is_told_and_an_exception_in_it_ends_the_work(folder: Path) -> None:
    told: list[tuple[int, int]] = []
    assert _core.log_verify(folder, progress=lambda done, total: told.append((done, total))) == []
    assert told
    assert told[-1][0] == told[-1][1] >= segment(folder).stat().st_size

    def stop(done: int, total: int) -> None:
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        _core.log_verify(folder, progress=stop)
    with tb.connect(f"file://{folder}"):
        pass


def test_the_values_of_the_bindings_have_the_types_of_the_stub(folder: Path) -> None:
    damage(folder, 2)
    (finding,) = _core.log_verify(folder, topic="telemetry", partition=0)
    assert isinstance(finding, _core.LogFinding)
    texts = (finding.path, finding.topic, finding.kind, finding.what, finding.remedy)
    assert all(isinstance(text, str) for text in texts)
    assert (finding.lost, finding.partition, finding.mended) == ((2, 3), 0, False)
    assert finding.position > 0
    assert finding.damaged_bytes > len(value(2))
    dump = _core.LogDump(folder, "telemetry", 0)
    with pytest.raises(tb.InUseError):
        _core.log_verify(folder)
    (batch,) = list(dump)
    assert [type(shown) for shown in batch[:3]] == [_core.LogFrame, _core.LogFrame, _core.LogFinding]
    frame = batch[0]
    assert isinstance(frame, _core.LogFrame)
    assert frame.records() == [(0, 1_752_871_354_000_000_007, b"GPU-1", None, 21)]
    assert frame.records(values=True)[0][3] == value(0)
    assert list(dump) == []
    with tb.connect(f"file://{folder}"):
        pass
