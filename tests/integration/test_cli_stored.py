"""`telemetry query` and `telemetry export`, as a shell sees them."""

import csv
import io
import json
import signal
import subprocess
import sys
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from telemetry_services.store.delta import DeltaStore

T0 = 1_752_871_354_000_000_000
SECOND = 1_000_000_000
ROWS = 1200
MAIN = "from telemetry_services.cli import main; main()"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("stored") / "store"
    times = pa.array([T0 + at * SECOND for at in range(ROWS)], pa.timestamp("ns", tz="UTC"))
    rows = {"time": times, "uuid": ["GPU-1", "GPU-2"] * (ROWS // 2), "hostname": ["h"] * ROWS}
    DeltaStore(folder).write([pa.table({**rows, "m": [float(at) for at in range(ROWS)]})], {})
    return f"delta://{folder}"


def telemetry(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", MAIN, *words], capture_output=True, text=True, timeout=60, cwd=cwd, check=False
    )


def test_a_query_is_answered_as_a_table_json_and_csv(store: str) -> None:
    sql = "SELECT time, uuid, m FROM gpu ORDER BY time LIMIT 2"
    table = telemetry("query", "--store", store, sql)
    assert table.returncode == 0, table.stderr
    assert table.stdout.splitlines()[1].split() == ["2025-07-18T20:42:34.000000000Z", "GPU-1", "0.0"]
    rows = [json.loads(line) for line in telemetry("query", "--store", store, "--json", sql).stdout.splitlines()]
    assert rows[1] == {"time": "2025-07-18T20:42:35.000000000Z", "uuid": "GPU-2", "m": 1.0}
    read = list(csv.reader(io.StringIO(telemetry("query", "--store", store, "--csv", sql).stdout)))
    assert read[0] == ["time", "uuid", "m"]
    assert len(read) == 3


def test_a_long_table_is_cut_and_says_so(store: str) -> None:
    table = telemetry("query", "--store", store, "SELECT m FROM gpu")
    assert len(table.stdout.splitlines()) == 1001
    assert "--json or --csv" in table.stderr
    assert len(telemetry("query", "--store", store, "--json", "SELECT m FROM gpu").stdout.splitlines()) == ROWS


def test_a_query_only_reads(store: str) -> None:
    refused = telemetry("query", "--store", store, "DROP TABLE gpu")
    assert refused.returncode == 1
    assert "not a query that can be answered" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


def test_an_export_is_a_file_that_others_read(store: str, tmp_path: Path) -> None:
    done = telemetry("export", "--store", store, "all.parquet", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "all.parquet: 1,200 rows\n"
    assert pq.read_table(tmp_path / "all.parquet")["m"].to_pylist() == [float(at) for at in range(ROWS)]
    sql = f"SELECT count(*), sum(m) FROM '{tmp_path}/all.parquet'"
    counted = duckdb.connect().execute(sql).fetchone()
    assert counted == (ROWS, sum(range(ROWS)))
    assert [path.name for path in tmp_path.iterdir()] == ["all.parquet"]


def test_an_export_has_the_range_the_gpus_and_the_windows_asked_for(store: str) -> None:
    words = ("--from", "2025-07-18T20:43:00Z", "--to", "2025-07-18T20:44:00Z", "--gpu", "GPU-1", "--metric", "m")
    done = telemetry("export", "--store", store, *words, "--window", "30s", "--agg", "max", "--format", "csv", "-")
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [(row["time"], row["uuid"], row["m"]) for row in rows] == [
        ("2025-07-18T20:43:00.000000000Z", "GPU-1", "54"),
        ("2025-07-18T20:43:30.000000000Z", "GPU-1", "84"),
    ]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["x.txt"], "Give --format parquet or --format csv"),
        (["--metric", "nope", "x.csv"], "no metric 'nope' is stored"),
        (["--window", "1x", "x.csv"], "is no duration"),
        (["--from", "yesterday", "x.csv"], "is no time in RFC 3339"),
        (["/nowhere/x.csv"], "cannot be written"),
    ],
)
def test_a_wrong_export_says_what_is_wrong_and_leaves_no_file(
    store: str, tmp_path: Path, words: list[str], told: str
) -> None:
    done = telemetry("export", "--store", store, *words, cwd=tmp_path)
    assert done.returncode == 2
    assert told in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_export_that_is_interrupted_leaves_the_file_that_was_there(store: str, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("before")
    slow = MAIN.replace(
        "main()",
        "import os, signal; from telemetry_services.cli import stored; "
        "stored._write = lambda *_: os.kill(os.getpid(), signal.SIGINT); main()",
    )
    words = [sys.executable, "-c", slow, "export", "--store", store, "x.csv"]
    done = subprocess.run(words, capture_output=True, timeout=60, cwd=tmp_path, check=False)
    assert done.returncode in (130, -signal.SIGINT)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("x.csv", "before")]
