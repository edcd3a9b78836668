"""Upkeep of a Delta table changes no answer: against a plain model, beside writers, rivals and through power loss."""

import os
import random
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import polars
import pyarrow as pa
import pytest
from deltalake import DeltaTable
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from telemetry_services.store import (
    Filters,
    OffsetRange,
    Retention,
    SeriesQuery,
    StoreConflictError,
    maintenance,
    merging,
    series,
)
from telemetry_services.store.delta import DeltaStore
from tests.integration.store_writer import BATCH, known_rows
from tests.integration.test_delta_store import known, stored

LOG = "0190f0a0000070008000000000000001"
NS = pa.timestamp("ns", tz="UTC")
SECOND, MINUTE, HOUR = 10**9, 60 * 10**9, 3600 * 10**9
HOUR_MS = 3_600_000
FOREVER = Retention()


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merging, "MAX_CELLS", 400)
    monkeypatch.setattr(maintenance, "_ROLLED_AT_ONCE", 3)
    monkeypatch.setattr(series, "_FEW_GPUS", 0.9)  # two of three are few


def hour_begin_ns() -> int:
    return time.time_ns() // HOUR * HOUR


def later_ms(hours: float = 0.0) -> int:
    return time.time_ns() // 1_000_000 + int(hours * HOUR_MS)


def maintain(store: DeltaStore, retention: Retention = FOREVER, *, hours: float = 3.0) -> None:
    """Do all that is due so many hours from now."""
    while store.maintain(retention, now_ms=later_ms(hours)):
        pass


def values(store: DeltaStore, **query: Any) -> dict[tuple[int, str], float]:
    """Return a series of the metric m, by time and uuid."""
    table = store.series(SeriesQuery(metrics=["m"], **query)).read_all()
    if "m" not in table.column_names:
        return {}
    times = table["time"].cast(pa.int64()).to_pylist()
    return dict(zip(zip(times, table["uuid"].to_pylist(), strict=True), table["m"].to_pylist(), strict=True))


@dataclass(frozen=True)
class Sample:
    time_ns: int
    uuid: str
    value: float


def windows(samples: list[Sample], window_ns: int, combine: Callable[[list[float]], float]) -> dict[Any, Any]:
    groups: defaultdict[tuple[int, str], list[float]] = defaultdict(list)
    for sample in samples:
        groups[sample.time_ns // window_ns * window_ns, sample.uuid].append(sample.value)
    return {key: pytest.approx(combine(found)) for key, found in groups.items()}


class MaintenanceMachine(RuleBasedStateMachine):
    """Rows of any age, upkeep at any time, against a list of samples."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory()
        self.store = DeltaStore(Path(self.folder.name) / "store")
        self.now_ns = hour_begin_ns()
        self.hours = 0.0
        self.samples: list[Sample] = []
        self.raw_from_ns = 0
        """Samples that are older may be gone, though not their rollups."""

    @rule(
        rows=st.lists(
            st.tuples(st.integers(-4 * 3600, 0), st.sampled_from(["GPU-1", "GPU-2", "GPU-3"]), st.integers(-9, 9)),
            min_size=1,
            max_size=12,
        ),
        commits=st.integers(1, 4),
    )
    def write(self, rows: list[tuple[int, str, int]], commits: int) -> None:
        for commit in range(commits):
            new = [
                Sample(self.now_ns + int(self.hours * HOUR) + at * SECOND, uuid, value + commit)
                for at, uuid, value in rows
            ]
            table = {"time": pa.array([s.time_ns for s in new], NS), "uuid": [s.uuid for s in new]}
            self.store.write([pa.table({**table, "m": [float(s.value) for s in new]})], {})
            self.samples += new

    @rule(hours=st.sampled_from([0.0, 0.3, 1.5]))
    def maintain(self, hours: float) -> None:
        self.hours += hours
        maintain(self.store, hours=self.hours)

    @precondition(lambda self: self.samples)
    @rule(hours=st.sampled_from([0.5, 2.0]))
    def expire(self, hours: float) -> None:
        self.raw_from_ns = max(self.raw_from_ns, (later_ms(self.hours) * 1_000_000) - int(hours * HOUR))
        maintain(self.store, Retention(samples=hours * 3600), hours=self.hours)

    @rule()
    def open_again(self) -> None:
        self.store.close()
        self.store = DeltaStore(Path(self.folder.name) / "store")

    @invariant()
    def answers_from_rollups_are_those_of_all_samples(self) -> None:
        assert values(self.store, window_ns=HOUR) == windows(self.samples, HOUR, fmean)
        assert values(self.store, window_ns=2 * MINUTE, aggregate="min") == windows(self.samples, 2 * MINUTE, min)
        assert values(self.store, window_ns=HOUR, aggregate="max") == windows(self.samples, HOUR, max)

    @invariant()
    def answers_from_samples_are_those_of_the_samples_that_are_kept(self) -> None:
        kept = [sample for sample in self.samples if sample.time_ns >= self.raw_from_ns]
        found = values(self.store, window_ns=7 * SECOND, aggregate="max", start_ns=self.raw_from_ns)
        first_window = self.raw_from_ns // (7 * SECOND) * 7 * SECOND
        assert found == windows(kept, 7 * SECOND, max), f"windows from {first_window} on"
        if not self.raw_from_ns:
            assert self.store.summary().samples == len(self.samples)

    @invariant()
    def answers_of_few_gpus_are_those_of_theirs(self) -> None:
        theirs = [sample for sample in self.samples if sample.uuid in ("GPU-1", "GPU-2")]
        if {sample.uuid for sample in theirs} == {"GPU-1", "GPU-2"}:
            two = Filters(gpus=["GPU-2", "GPU-1"])
            assert values(self.store, window_ns=HOUR, filters=two) == windows(theirs, HOUR, fmean)

    @invariant()
    def bounds_between_windows_hold(self) -> None:
        first, end = self.now_ns - 2 * HOUR + 17 * SECOND, self.now_ns - 31 * SECOND
        if first >= self.raw_from_ns:
            inside = [sample for sample in self.samples if first <= sample.time_ns < end]
            assert values(self.store, window_ns=HOUR, start_ns=first, end_ns=end) == windows(inside, HOUR, fmean)

    @invariant()
    def latest_is_the_newest(self) -> None:
        newest: dict[str, int] = {}
        for sample in self.samples:
            newest[sample.uuid] = max(newest.get(sample.uuid, 0), sample.time_ns)
        assert {gpu.uuid: gpu.last_seen_ns for gpu in self.store.gpus()} == newest
        assert {gpu.uuid: gpu.last_seen_ns for gpu in DeltaStore(self.store._table.files).gpus()} == newest

    def teardown(self) -> None:
        self.store.close()
        self.folder.cleanup()


TestMaintenanceAgainstModel = MaintenanceMachine.TestCase
TestMaintenanceAgainstModel.settings = settings(max_examples=12, stateful_step_count=10, deadline=None)


@pytest.mark.timeout(180)
def test_writers_readers_and_two_rounds_at_once_lose_and_double_nothing(tmp_path: Path) -> None:
    folder, end = tmp_path / "store", 30 * BATCH
    writer, reader, *keepers = (DeltaStore(folder) for _ in range(4))
    writer.positions([])
    done = threading.Event()
    failures: list[BaseException] = []
    seen: list[int] = []

    def told(work: Callable[[], object]) -> Callable[[], None]:
        def repeat() -> None:
            while not done.is_set():
                try:
                    work()
                except StoreConflictError:
                    continue
                except BaseException as failure:
                    failures.append(failure)
                    raise

        return repeat

    threads = [
        threading.Thread(target=told(lambda: seen.append(reader.summary().samples))),
        *(threading.Thread(target=told(lambda keeper=keeper: maintain(keeper))) for keeper in keepers),  # type: ignore[misc]
    ]
    for thread in threads:
        thread.start()
    for position in range(0, end, BATCH):
        writer.write([known_rows(position, position + BATCH)], {LOG: OffsetRange(position, position + BATCH)})
    done.set()
    for thread in threads:
        thread.join()
    assert failures == []
    assert seen == sorted(seen)
    assert all(samples % BATCH == 0 for samples in seen), "a commit is seen whole"
    assert stored(folder) == known(end)
    maintain(writer)
    assert stored(folder) == known(end)
    table = writer.series(SeriesQuery(window_ns=HOUR, group_by="none", aggregate="max"))
    assert table.read_all().num_rows > 0
    counted = writer.sql('SELECT sum("metric_0_count") FROM gpu_1h').read_all().column(0).to_pylist()
    assert counted == [21]


def test_a_round_that_was_overtaken_changes_nothing_and_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, quick = DeltaStore(tmp_path / "store"), DeltaStore(tmp_path / "store")
    for position in range(0, 20 * BATCH, BATCH):
        slow.write([known_rows(position, position + BATCH)], {LOG: OffsetRange(position, position + BATCH)})
    read = merging.read
    overtaken: list[bool] = []

    def beaten(dataset: Any) -> pa.Table:
        rows = read(dataset)
        if not overtaken:
            overtaken.append(True)
            monkeypatch.setattr(quick._table.files, "locked", lambda _: _always())
            maintain(quick)
        return rows

    monkeypatch.setattr(merging, "read", beaten)
    with pytest.raises(StoreConflictError, match="replaced by someone else"):
        maintain(slow)
    assert overtaken
    assert stored(tmp_path / "store") == known(20 * BATCH)
    live = {Path(uri).name for uri in DeltaTable(str(tmp_path / "store")).file_uris()}
    left = {path.name for path in (tmp_path / "store").glob("date=*/*.parquet")} - live
    assert not any("sealed" in name or "tier" in name for name in left)


class _always:  # noqa: N801 (a context manager)
    def __enter__(self) -> bool:
        return True

    def __exit__(self, *_: object) -> None:
        return None


def test_a_foreign_program_that_removes_what_is_being_merged_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = DeltaStore(tmp_path / "store")
    for position in range(0, 20 * BATCH, BATCH):
        store.write([known_rows(position, position + BATCH)], {LOG: OffsetRange(position, position + BATCH)})
    read = merging.read
    compacted: list[object] = []

    def beaten(dataset: Any) -> pa.Table:
        rows = read(dataset)
        if not compacted:
            compacted.append(DeltaTable(str(tmp_path / "store")).optimize.compact())
        return rows

    monkeypatch.setattr(merging, "read", beaten)
    with pytest.raises(StoreConflictError):
        maintain(store)
    assert stored(tmp_path / "store") == known(20 * BATCH)
    maintain(store)
    assert stored(tmp_path / "store") == known(20 * BATCH)


def test_many_small_files_become_few_and_the_old_ones_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merging, "MAX_CELLS", 1 << 20)
    monkeypatch.setattr(maintenance, "_VACUUM_SECONDS", 0.0)
    store, begin = DeltaStore(tmp_path / "store"), hour_begin_ns()
    for at in range(40):
        times = pa.array([begin + at * SECOND] * 2, NS)
        store.write([pa.table({"time": times, "uuid": ["GPU-2", "GPU-1"], "m": [float(at), -float(at)]})], {})
    before = values(store)

    store.maintain(FOREVER, now_ms=begin // 1_000_000 + 60_000)
    parts = store._snapshot().parts
    assert [(part.tier, part.sealed, part.rows) for part in parts] == [(1, None, 80)]

    maintain(store)
    (part,) = store._snapshot().parts
    assert (part.rows, part.min_uuid, part.max_uuid) == (80, "GPU-1", "GPU-2")
    assert part.sealed is not None
    rows = DeltaTable(str(tmp_path / "store")).to_pyarrow_table()
    assert rows["uuid"].to_pylist() == ["GPU-1"] * 40 + ["GPU-2"] * 40
    assert values(store) == before
    assert len(list((tmp_path / "store").glob("date=*/*.parquet"))) == 42, "readers of older snapshots may go on"

    monkeypatch.setattr("telemetry_services.store.delta_table.DELETED_FILES_HOURS", 0)
    maintain(store)
    assert len(list((tmp_path / "store").glob("date=*/*.parquet"))) == 1
    assert values(store) == before


def test_an_hour_that_is_not_over_and_rows_just_stored_are_not_sealed(tmp_path: Path) -> None:
    store, begin = DeltaStore(tmp_path / "store"), hour_begin_ns()
    times = pa.array([begin + 2 * HOUR, begin - 30 * HOUR], NS)
    store.write([pa.table({"time": times, "uuid": ["GPU-1"] * 2, "m": [1.0, 2.0]})], {})
    store.maintain(FOREVER, now_ms=later_ms())
    assert [part.sealed for part in store._snapshot().parts] == [None, None]
    maintain(store, hours=1.0)
    assert [part.rows for part in store._snapshot().parts if part.sealed is not None] == [1], "the old one"
    maintain(store, hours=3.5)
    assert all(part.sealed is not None for part in store._snapshot().parts)


def test_samples_and_rollups_go_when_their_own_retention_says_so(tmp_path: Path) -> None:
    store, begin = DeltaStore(tmp_path / "store"), hour_begin_ns()
    for day in range(5):
        times = pa.array([begin - day * 24 * HOUR, begin - day * 24 * HOUR + SECOND], NS)
        store.write([pa.table({"time": times, "uuid": ["GPU-1"] * 2, "m": [float(day), day + 1.0]})], {})
    maintain(store, hours=2)
    days = {name: 24 * 3600.0 * age for name, age in {"samples": 1.5, "minutes": 2.5, "hours": 3.5}.items()}
    maintain(store, Retention(**days), hours=2)
    assert [len(values(store, **query)) for query in (
        {}, {"window_ns": MINUTE}, {"window_ns": HOUR}, {"window_ns": HOUR, "aggregate": "last"}
    )] == [4, 3, 4, 2]  # fmt: skip
    assert values(store, window_ns=HOUR)[begin - 72 * HOUR, "GPU-1"] == 3.5
    assert store.summary().samples == 4
    assert [gpu.uuid for gpu in store.gpus()] == ["GPU-1"]


def test_a_restart_answers_latest_from_few_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("telemetry_services.store.delta.WRITE_LATEST_EVERY", 1)
    store, begin = DeltaStore(tmp_path / "store"), hour_begin_ns()
    for at in range(60):
        row = {"time": pa.array([begin + at * SECOND], NS), "uuid": [f"GPU-{at % 3}"], "m": [float(at)]}
        store.write([pa.table(row)], {})
    maintain(store)
    store.write([pa.table({"time": pa.array([begin + HOUR], NS), "uuid": ["GPU-0"], "m": [99.0]})], {})
    opened: list[int] = []
    again = DeltaStore(tmp_path / "store")
    snapshot = again._snapshot()
    monkeypatch.setattr(again, "_snapshot", lambda **_: _counting(snapshot, opened))
    assert again.latest()["m"].combine_chunks().field("value").to_pylist() == [99.0, 58.0, 59.0]
    assert opened == [1], "only the file that came after the newest values were written down"
    assert again.latest(["m"], Filters(gpus=["GPU-1"])).num_rows == 1

    (tmp_path / "store/_latest.parquet").write_bytes(b"torn")
    assert DeltaStore(tmp_path / "store").latest().equals(again.latest())


def _counting(snapshot: Any, opened: list[int]) -> Any:
    def dataset(parts: Any) -> Any:
        opened.append(len(parts))
        return snapshot.dataset(parts)

    return type(snapshot)(snapshot.schema, snapshot.parts, dataset, snapshot.version, snapshot.rollups)


def test_a_table_of_an_earlier_release_is_looked_after(tmp_path: Path) -> None:
    store = DeltaStore(tmp_path / "store")
    store.write([known_rows(0, BATCH)], {LOG: OffsetRange(0, BATCH)})
    table = DeltaTable(str(tmp_path / "store"))
    table.alter.set_table_properties({"delta.dataSkippingStatsColumns": "time"})
    again = DeltaStore(tmp_path / "store")
    maintain(again)
    properties = DeltaTable(str(tmp_path / "store")).metadata().configuration
    assert properties["delta.dataSkippingStatsColumns"] == "time,uuid"
    assert stored(tmp_path / "store") == known(BATCH)


@pytest.mark.timeout(180)
def test_a_thousand_metrics_and_new_ones_are_sealed_and_rolled_up(tmp_path: Path) -> None:
    store, begin = DeltaStore(tmp_path / "store"), hour_begin_ns()
    for hour in range(2):
        wide = {f"metric_{at + 500 * hour:04}": [float(at), at + 1.0] for at in range(1000)}
        times = pa.array([begin - hour * HOUR, begin - hour * HOUR + SECOND], NS)
        store.write([pa.table({"time": times, "uuid": ["GPU-1"] * 2, **wide})], {})
    maintain(store)
    assert all(part.sealed for part in store._snapshot().parts)
    query = SeriesQuery(["metric_0000", "metric_1499"], window_ns=HOUR)
    rows = store.series(query).read_all().select(["metric_0000", "metric_1499"]).to_pylist()
    assert rows == [{"metric_0000": None, "metric_1499": 999.5}, {"metric_0000": 0.5, "metric_1499": None}]


def test_duckdb_and_polars_read_the_table_and_its_rollups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merging, "MAX_CELLS", 1 << 20)
    store, begin = DeltaStore(tmp_path / "store"), hour_begin_ns()
    for day in range(3):
        times = pa.array([begin - day * 24 * HOUR + at * SECOND for at in range(600)], NS)
        rows = {"time": times, "uuid": [f"GPU-{at % 4}" for at in range(600)], "m": [at / 7 for at in range(600)]}
        store.write([pa.table({**rows, "n": [float(at) for at in range(600)]})], {})
    maintain(store)
    store.write([known_rows(0, BATCH)], {LOG: OffsetRange(0, BATCH)})  # not merged, with other columns
    expected = pytest.approx(3 * sum(at / 7 for at in range(600)))

    table = DeltaTable(str(tmp_path / "store"))
    hourly = DeltaTable(str(tmp_path / "store/_rollup_1h"))
    connection = duckdb.connect()
    connection.register("gpu", table.to_pyarrow_dataset())
    connection.register("hours", hourly.to_pyarrow_dataset())

    def ask(sql: str) -> Any:
        return connection.execute(sql).fetchall()

    assert ask("SELECT sum(m), count(*) FROM gpu") == [(expected, 1800 + BATCH)]
    assert ask("SELECT count(DISTINCT uuid) FROM gpu WHERE n < 2") == [(2,)]
    assert ask("SELECT max(n_max), min(n_min) FROM hours") == [(599.0, 0.0)]

    frame = polars.read_delta(str(tmp_path / "store"))
    assert frame.height == 1800 + BATCH
    assert frame["m"].sum() == expected
    hours = polars.read_delta(str(tmp_path / "store/_rollup_1h"))
    assert hours["m_count"].sum() == 1800
    assert hours["m_sum"].sum() == expected


# -- power loss


Names = dict[Path, dict[str, int]]
"""Of each folder: its names, with their inodes."""


@dataclass(frozen=True)
class Point:
    """What is on disk after one sync, and up to which offset was acked by then."""

    contents: dict[int, bytes]
    synced: Names
    eager: Names
    """All names: a file system may write them down at any time, before contents that were not synced."""
    acked: int


class PowerLoss:
    """An fsync that remembers contents of files and names in folders, as they were last synced."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.points: list[Point] = []
        self.acked = 0
        self._contents: dict[int, bytes] = {}  # by inode
        self._names: Names = {}
        self._held: list[int] = []

    def fsync(self, descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        if not path.is_relative_to(self.root):
            return
        if path.is_dir():
            self._names[path] = _names_in(path)
        else:
            self._contents[os.fstat(descriptor).st_ino] = path.read_bytes()
            self._held.append(os.dup(descriptor))  # so that no other file gets this inode
        eager = {Path(at): _names_in(Path(at)) for at, _, _ in os.walk(self.root)}
        self.points.append(Point(dict(self._contents), dict(self._names), eager, self.acked))

    def restore(self, names: Names, contents: dict[int, bytes], to: Path, at: Path | None = None) -> Path:
        """Make a folder as a power loss would leave it."""
        at = at or self.root
        to.mkdir(parents=True)
        for name, inode in names.get(at, {}).items():
            if (at / name).is_dir():
                self.restore(names, contents, to / name, at / name)
            else:
                (to / name).write_bytes(contents.get(inode, b""))
        return to

    def close(self) -> None:
        for descriptor in self._held:
            os.close(descriptor)


def _names_in(folder: Path) -> dict[str, int]:
    return {entry.name: entry.inode() for entry in os.scandir(folder)}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("names", ["synced", "eager"])
def test_given_a_power_loss_at_any_sync_then_nothing_acked_is_missing_and_rollups_hold_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: str
) -> None:
    monkeypatch.setattr("telemetry_services.store.delta_table.CHECKPOINT_INTERVAL", 7)
    monkeypatch.setattr("telemetry_services.store.delta.WRITE_LATEST_EVERY", 1)
    monkeypatch.setattr(merging, "FAN_IN", 2)
    monkeypatch.setattr(maintenance, "_VACUUM_SECONDS", 0.0)
    monkeypatch.setattr("telemetry_services.store.delta_table.DELETED_FILES_HOURS", 0)
    disk = PowerLoss(tmp_path / "store")
    store = DeltaStore(disk.root, fsync=disk.fsync)
    store.positions([])
    del disk.points[:-1]
    for position in range(0, 6 * BATCH, BATCH):
        store.write([known_rows(position, position + BATCH)], {LOG: OffsetRange(position, position + BATCH)})
        disk.acked = position + BATCH
        if position % (2 * BATCH):
            maintain(store)
    disk.close()
    assert len(disk.points) > 60
    step = random.randrange(1, 6)  # so that every point comes to its turn, some day
    for number, point in enumerate(disk.points[step::5]):
        image = disk.restore(getattr(point, names), point.contents, tmp_path / "images" / str(number))
        again = DeltaStore(image)
        position = again.positions([LOG]).get(LOG, 0)
        assert position >= point.acked
        assert stored(image) == known(position)
        assert sum(_counts(again)) == position
        maintain(again)
        assert stored(image) == known(position)
        assert sum(_counts(again)) == position
        assert len(again.gpus()) == min(5, position)


def _counts(store: DeltaStore) -> list[int]:
    """Count samples as rollups and what is not in them tell: of windows as long as an hour, by hand."""
    snapshot = store._snapshot(rollups=True)
    counted = [0]
    for rollup in snapshot.rollups[:1]:
        table = rollup.dataset(rollup.parts).to_table()
        counted += [
            sum(filter(None, table[name].to_pylist())) for name in table.column_names if name.endswith("_count")
        ]
    covered = snapshot.rollups[0].holds if snapshot.rollups else lambda _: False
    rest = [part for part in snapshot.parts if not covered(part)]
    counted.append(sum(part.rows or 0 for part in rest))
    return counted
