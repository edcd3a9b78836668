"""Exactly once through any crash, fencing, and drift of columns, on a real Delta table.

I1 and I2 of `telemetry_services.store.delta`.
"""

import random
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pytest
from deltalake import CommitProperties, DeltaTable, Field, Transaction, write_deltalake
from deltalake.schema import PrimitiveType
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from telemetry_services.store import (
    OffsetRange,
    Rows,
    StoreConflictError,
    StoreError,
    StoreForeignError,
    StorePositionError,
    StoreSchemaError,
    delta_table,
)
from telemetry_services.store.delta import DeltaStore
from tests.integration.store_writer import BATCH, known_rows, known_time_ns

WRITER = Path(__file__).with_name("store_writer.py")
LOG, OTHER_LOG = "0190f0a0000070008000000000000001", "0190f0a0000070008000000000000002"
NS = pa.timestamp("ns", tz="UTC")


def stored(folder: Path) -> Counter[tuple[str, str, int, float]]:
    """All rows of a table of known rows, as a multiset, read by deltalake itself."""
    table = DeltaTable(str(folder)).to_pyarrow_table()
    if "offset" not in table.column_names:
        return Counter()
    times = zip(table["time"].cast(pa.int64()).to_pylist(), table["nanos"].to_pylist(), strict=True)
    metrics = [name for name in table.column_names if name.startswith("metric_")]
    return Counter(
        (row["offset"], row["uuid"], us * 1000 + nanos, sum(row[name] for name in metrics if row[name] is not None))
        for row, (us, nanos) in zip(table.select(["offset", "uuid", *metrics]).to_pylist(), times, strict=True)
    )


def known(end: int) -> Counter[tuple[str, str, int, float]]:
    return Counter((str(at), f"GPU-{at % 5}", known_time_ns(at), float(at)) for at in range(end))


def start_writer(folder: Path, end: int, *crash_at: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(WRITER), str(folder), LOG, str(end), *crash_at]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def check_prefix(folder: Path, told: int) -> int:
    """The table holds the log up to its position exactly once, and that is no less than what the writer was told."""
    store = DeltaStore(folder)
    position = store.positions([LOG]).get(LOG, 0)
    assert position >= told
    assert stored(folder) == known(position)
    assert store.summary().samples == position
    return position


@pytest.mark.timeout(300)
def test_given_a_kill_at_any_sync_when_restarted_then_every_row_is_stored_exactly_once(tmp_path: Path) -> None:
    folder, position, told = tmp_path / "store", 0, 0
    end, crash_at = 20 * BATCH, 1
    while position < end:
        writer = start_writer(folder, end, str(crash_at))
        told_now, _ = writer.communicate(timeout=60)
        told = max([told, *map(int, told_now.split())])
        position = check_prefix(folder, told)
        crash_at += 2
    assert crash_at > 10
    assert stored(folder) == known(end)


@pytest.mark.timeout(300)
def test_given_kills_at_random_moments_when_restarted_then_every_row_is_stored_exactly_once(tmp_path: Path) -> None:
    seed = random.randrange(1 << 32)
    moments = random.Random(seed)
    told = 0
    for _ in range(5):
        writer = start_writer(tmp_path / "store", 1_000_000)
        assert writer.stdout is not None
        for _ in range(moments.randint(0, 12)):
            told = int(writer.stdout.readline())
        for _ in range(moments.randint(0, 200_000)):
            pass  # some moment within a write
        writer.kill()
        rest, _ = writer.communicate(timeout=60)
        told = max([told, *(int(line) for line in rest.splitlines(keepends=True) if line.endswith("\n"))])
        if (tmp_path / "store").exists():
            check_prefix(tmp_path / "store", told)
    assert told, f"seed {seed}"


class StoreMachine(RuleBasedStateMachine):
    """A store, opened again at will, against a dict of positions and a multiset of rows."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory()
        self.store = DeltaStore(Path(self.folder.name) / "store")
        self.positions: dict[str, int] = {}
        self.rows: Counter[tuple[int, str]] = Counter()

    @rule()
    def open_again(self) -> None:
        self.store.close()
        self.store = DeltaStore(Path(self.folder.name) / "store")

    @rule(
        metrics=st.lists(st.sampled_from(["a", "b", "c"]), max_size=3),
        moved=st.dictionaries(
            st.sampled_from([LOG, OTHER_LOG]),
            st.tuples(st.sampled_from([0, 0, 0, -1, 1]), st.integers(0, 4)),
            max_size=2,
        ),
    )
    def write(self, metrics: list[str], moved: dict[str, tuple[int, int]]) -> None:
        ranges = {}
        for log, (off_by, count) in moved.items():
            first = self.positions.get(log, 10) + off_by
            ranges[log] = OffsetRange(first, first + count)
        pieces = [
            pa.table({"time": pa.array([at], NS), "uuid": ["GPU-1"], name: [1.0]}) for at, name in enumerate(metrics)
        ]
        wrong = {log for log in ranges if log in self.positions and self.positions[log] != ranges[log].first}
        if wrong:
            with pytest.raises(StorePositionError) as refused:
                self.store.write(pieces, ranges)
            assert refused.value.positions == {log: self.positions[log] for log in wrong}
        else:
            assert self.store.write(pieces, ranges) == len(metrics)
            self.positions |= {log: offsets.next for log, offsets in ranges.items()}
            self.rows.update(enumerate(metrics))

    @invariant()
    def holds_what_was_written(self) -> None:
        assert self.store.positions([LOG, OTHER_LOG]) == self.positions
        found = self.store.telemetry("GPU-1", limit=10_000)
        assert Counter((sample.time_ns, sample.metric) for sample in found) == self.rows

    def teardown(self) -> None:
        self.store.close()
        self.folder.cleanup()


TestStoreAgainstModel = StoreMachine.TestCase
TestStoreAgainstModel.settings = settings(max_examples=15, stateful_step_count=12, deadline=None)


def race(*stores: DeltaStore, end: int, log_ids: Sequence[str]) -> list[BaseException]:
    """Let each store write known rows up to `end`, going on from where the store stands; return what went wrong."""
    failures: list[BaseException] = []
    together = threading.Barrier(len(stores))

    def collect(store: DeltaStore, log_id: str) -> None:
        try:
            together.wait()
            position = store.positions([log_id]).get(log_id, 0)
            while position < end:
                after = min(position + BATCH, end)
                try:
                    store.write([known_rows(position, after)], {log_id: OffsetRange(position, after)})
                    position = after
                except StorePositionError as stands:
                    position = stands.positions[log_id]
        except BaseException as failure:
            failures.append(failure)
            raise

    threads = [
        threading.Thread(target=collect, args=(store, log_id)) for store, log_id in zip(stores, log_ids, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return failures


def test_of_two_writers_on_one_log_each_row_is_stored_by_exactly_one(tmp_path: Path) -> None:
    stores = [DeltaStore(tmp_path / "store") for _ in range(2)]
    assert race(*stores, end=12 * BATCH, log_ids=[LOG, LOG]) == []
    assert stored(tmp_path / "store") == known(12 * BATCH)
    files = len(list((tmp_path / "store").glob("date=*/*.parquet")))
    assert files == len(DeltaTable(str(tmp_path / "store")).file_uris()), "the loser's data files are removed"


def test_writers_on_different_logs_with_new_columns_all_get_through(tmp_path: Path) -> None:
    stores = [DeltaStore(tmp_path / "store") for _ in range(3)]
    logs = [f"{LOG}-{number}" for number in range(3)]
    assert race(*stores, end=6 * BATCH, log_ids=logs) == []
    assert stored(tmp_path / "store") == Counter({row: 3 * count for row, count in known(6 * BATCH).items()})
    assert stores[0].positions(logs) == dict.fromkeys(logs, 6 * BATCH)


def test_a_writer_that_slept_through_others_commits_is_fenced(tmp_path: Path) -> None:
    sleeper, awake = DeltaStore(tmp_path / "store"), DeltaStore(tmp_path / "store")
    assert sleeper.positions([LOG]) == {}
    awake.write([known_rows(0, 7)], {LOG: OffsetRange(0, 7)})
    with pytest.raises(StorePositionError) as stands:
        sleeper.write([known_rows(0, 7)], {LOG: OffsetRange(0, 7)})
    assert stands.value.positions == {LOG: 7}
    assert "is stored up to offset 7, the write goes on from 0" in str(stands.value)
    assert stored(tmp_path / "store") == known(7)


def test_a_commit_of_another_writer_between_comparing_and_committing_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, rival = DeltaStore(tmp_path / "store"), DeltaStore(tmp_path / "store")
    store.write([known_rows(0, 7)], {LOG: OffsetRange(0, 7)})
    compare = store._compare
    rounds = iter(range(3))

    def overtaken(table: DeltaTable, positions: Mapping[str, OffsetRange]) -> None:
        compare(table, positions)
        if next(rounds) == 1:  # 0: before the data files, 1: right before the commit
            rival.write([known_rows(7, 14)], {LOG: OffsetRange(7, 14)})

    monkeypatch.setattr(store, "_compare", overtaken)
    with pytest.raises(StorePositionError) as stands:
        store.write([known_rows(7, 14)], {LOG: OffsetRange(7, 14)})
    assert stands.value.positions == {LOG: 14}
    assert stored(tmp_path / "store") == known(14)


def test_a_writer_that_always_loses_gives_up_and_stores_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, folder = DeltaStore(tmp_path / "store"), tmp_path / "store"
    store.write([known_rows(0, 7)], {LOG: OffsetRange(0, 7)})
    rounds = iter(range(100))

    def overtaken(table: DeltaTable, schema: pa.Schema) -> None:
        DeltaTable(str(folder)).alter.add_columns([Field(f"rival_{next(rounds)}", PrimitiveType("double"))])

    monkeypatch.setattr(store._table, "add_columns", overtaken)
    with pytest.raises(StoreConflictError, match="Try again"):
        store.write([known_rows(7, 14)], {LOG: OffsetRange(7, 14)})
    assert stored(folder) == known(7)
    assert len(list(folder.glob("date=*/*.parquet"))) == len(DeltaTable(str(folder)).file_uris())


def test_new_metrics_and_tags_add_columns_and_a_change_of_kind_is_refused(tmp_path: Path) -> None:
    store = DeltaStore(tmp_path / "store")

    def put(**more: Sequence[object]) -> int:
        position = store.positions([LOG]).get(LOG, 0)
        table = pa.table({"time": pa.array([position], NS), "uuid": ["GPU-1"], **more})
        return store.write([table], {LOG: OffsetRange(position, position + 1)})

    assert put(util=[1.0]) == 1
    assert put(temp=[2.0], rack=["r1"]) == 1
    assert put(util=[3.0], temp=[4.0]) == 1
    for clash in ({"util": ["text"]}, {"rack": [1.0]}, {"Util": [1.0]}, {"uuid2": ["x"], "nanos": [1.0]}):
        with pytest.raises(StoreSchemaError):
            put(**clash)
    assert store.positions([LOG]) == {LOG: 3}
    assert [(s.metric, s.value) for s in store.telemetry("GPU-1")] == [
        ("temp", 4.0),
        ("util", 3.0),
        ("temp", 2.0),
        ("util", 1.0),
    ]
    assert len(list((tmp_path / "store").glob("date=*/*.parquet"))) == 3


def test_positions_move_without_rows_and_rows_are_stored_without_positions(tmp_path: Path) -> None:
    store = DeltaStore(tmp_path / "store")
    assert store.write([], {LOG: OffsetRange(100, 150), OTHER_LOG: OffsetRange(0, 1)}) == 0
    assert store.write([known_rows(0, 7)], {}) == 7
    before = DeltaTable(str(tmp_path / "store")).version()
    assert store.write([], {}) == 0
    assert DeltaTable(str(tmp_path / "store")).version() == before
    assert store.positions([LOG, OTHER_LOG, "never"]) == {LOG: 150, OTHER_LOG: 1}


def test_the_table_is_plain_delta_that_others_can_read(tmp_path: Path) -> None:
    store = DeltaStore(tmp_path / "store")
    store.write([known_rows(0, 49)], {LOG: OffsetRange(0, 49)})
    table = DeltaTable(str(tmp_path / "store"))
    assert table.protocol().min_reader_version == 1
    assert table.metadata().partition_columns == ["date"]
    assert table.metadata().configuration["delta.logRetentionDuration"] == "interval 1 hours"
    only = table.to_pyarrow_table(filters=[("date", "=", date(1970, 1, 2))])
    assert only.num_rows == sum(known_time_ns(at) // 86_400_000_000_000 == 1 for at in range(49))


@pytest.mark.parametrize(
    ("schema", "partition_by"),
    [({"a": [1]}, None), ({"date": ["2025-07-18"], "time": [1]}, ["date"])],
)
def test_a_delta_table_of_another_layout_is_refused_untouched(
    tmp_path: Path, schema: Mapping[str, list[object]], partition_by: list[str] | None
) -> None:
    write_deltalake(tmp_path, pa.table(dict(schema)), partition_by=partition_by)
    with pytest.raises(StoreForeignError, match="Name another folder"):
        DeltaStore(tmp_path).positions([LOG])
    with pytest.raises(StoreForeignError, match="Name another folder"):
        DeltaStore(tmp_path).gpus()
    assert DeltaTable(str(tmp_path)).version() == 0


def test_a_file_added_by_another_writer_without_statistics_is_read(tmp_path: Path) -> None:
    store = DeltaStore(tmp_path / "store")
    store.write([known_rows(0, 7)], {LOG: OffsetRange(0, 7)})
    table = DeltaTable(str(tmp_path / "store"))
    copied = table.to_pyarrow_table()
    properties = CommitProperties(app_transactions=[Transaction("a foreign application", 1)])
    write_deltalake(table, copied, mode="append", commit_properties=properties)
    assert store.summary().samples == 14
    assert len(list(store.telemetry("GPU-1", start_ns=0, end_ns=10**18))) == 4


def test_a_table_that_vanishes_is_an_error_and_not_an_empty_answer(tmp_path: Path) -> None:
    store = DeltaStore(tmp_path / "store")
    store.write([known_rows(0, 7)], {LOG: OffsetRange(0, 7)})
    for path in (tmp_path / "store").glob("date=*/*.parquet"):
        path.unlink()
    with pytest.raises(StoreError):
        store.summary()


def test_a_write_takes_what_the_arrow_c_interface_gives(tmp_path: Path) -> None:
    class OnlyStream:
        def __init__(self, table: pa.Table) -> None:
            self.table = table

        def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
            return self.table.__arrow_c_stream__(requested_schema)

    class OnlyArray:
        def __init__(self, batch: pa.RecordBatch) -> None:
            self.batch = batch

        def __arrow_c_array__(self, requested_schema: object | None = None) -> object:
            return self.batch.__arrow_c_array__(requested_schema)

    rows: list[Rows] = [OnlyStream(known_rows(0, 7)), OnlyArray(known_rows(7, 9).to_batches()[0])]
    store = DeltaStore(tmp_path / "store")
    assert store.write(rows, {LOG: OffsetRange(0, 9)}) == 9
    assert stored(tmp_path / "store") == known(9)


def test_readers_go_on_while_a_writer_commits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delta_table, "CHECKPOINT_INTERVAL", 4)
    store = DeltaStore(tmp_path / "store")
    done = threading.Event()
    seen: list[int] = []

    def read() -> None:
        while not done.is_set():
            seen.append(store.summary().samples)

    reader = threading.Thread(target=read)
    reader.start()
    for position in range(0, 10 * BATCH, BATCH):
        store.write([known_rows(position, position + BATCH)], {LOG: OffsetRange(position, position + BATCH)})
    done.set()
    reader.join()
    assert seen == sorted(seen)
    assert all(samples % BATCH == 0 for samples in seen), "a commit is seen whole"
    assert store.summary().samples == 10 * BATCH
