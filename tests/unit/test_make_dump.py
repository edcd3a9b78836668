"""The generator of big dumps: what the benchmarks and the crash tests rely on."""

import csv
from pathlib import Path

import pytest

from benchmarks.make_dump import SAMPLE, write_dump


def read(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


@pytest.fixture(scope="module")
def dump(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("dump") / "dump.csv"
    assert write_dump(30_000, target) == target.stat().st_size
    return target


def test_a_dump_has_the_header_and_as_many_rows_as_asked_for(dump: Path) -> None:
    rows = read(dump)
    assert rows[0] == read(SAMPLE)[0]
    assert len(rows) == 30_001
    assert {len(row) for row in rows} == {12}


def test_a_dump_begins_with_the_sample_itself(dump: Path, tmp_path: Path) -> None:
    assert dump.read_bytes().startswith(SAMPLE.read_bytes())
    write_dump(2470, tmp_path / "one.csv")
    assert (tmp_path / "one.csv").read_bytes() == SAMPLE.read_bytes()


def test_no_two_rows_have_the_same_time_gpu_and_metric(dump: Path) -> None:
    rows = read(dump)[1:]
    assert len({(time, metric, uuid) for time, metric, _, _, uuid, *_ in rows}) == len(rows)


def test_new_gpus_have_new_hosts_and_labels_of_their_own(dump: Path) -> None:
    rows = read(dump)[1:]
    assert len({row[4] for row in rows}) == 2470
    assert len({row[6] for row in rows}) == 310
    assert len({(row[6], row[2]) for row in rows}) == 2470, "a host has one GPU of each index"
    assert all(row[4] in row[11] and row[6] in row[11] for row in rows)


def test_a_dump_depends_on_nothing_but_the_sample_and_the_row_count(dump: Path, tmp_path: Path) -> None:
    write_dump(40_000, tmp_path / "longer.csv")
    assert (tmp_path / "longer.csv").read_bytes().startswith(dump.read_bytes())


def test_a_source_without_rows_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.csv").write_bytes(SAMPLE.read_bytes().splitlines(keepends=True)[0])
    with pytest.raises(SystemExit, match="no rows to repeat"):
        write_dump(10, tmp_path / "dump.csv", tmp_path / "empty.csv")
    assert not (tmp_path / "dump.csv").exists()
