"""I3: what is on disk when a write returns, in which order it got there, and what a power loss leaves."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from telemetry_services.store import (
    OffsetRange,
    StoreCorruptError,
    StoreError,
    StoreForeignError,
    StoreFullError,
    StorePositionError,
    StoreUnwritableError,
    delta_table,
)
from telemetry_services.store.delta import DeltaStore

DAY_NS = 86_400_000_000_000
TORN = [b"", b'{"commitInfo":{}}\n{"add":{"pa', bytes(100)]


def rows(*days: int, **more: float) -> pa.Table:
    times = pa.array([day * DAY_NS for day in days], pa.timestamp("ns", tz="UTC"))
    return pa.table(
        {"time": times, "uuid": ["GPU-1"] * len(days), **{name: [at] * len(days) for name, at in more.items()}}
    )


class Disk:
    """An fsync that remembers what it was called for, what was there at that time, and fails when told to."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.synced: list[Path] = []
        self.commits_at: list[int] = []
        self.failing: Callable[[Path], int] = lambda _: 0

    def fsync(self, descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        if number := self.failing(path):
            raise OSError(number, os.strerror(number), str(path))
        os.fsync(descriptor)
        self.synced.append(path)
        self.commits_at.append(len(list((self.root / "_delta_log").glob("*.json"))))


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path / "made" / "store")


def test_a_write_syncs_data_before_the_commit_and_the_commit_before_it_returns(disk: Disk) -> None:
    store = DeltaStore(disk.root, fsync=disk.fsync)
    store.positions([])
    assert {disk.root, disk.root.parent, disk.root.parent.parent, disk.root / "_delta_log"} <= set(disk.synced)
    assert disk.root / "_delta_log/00000000000000000000.json" in disk.synced
    disk.synced.clear()
    disk.commits_at.clear()

    store.write([rows(0, 1, util=1.0)], {"log": OffsetRange(0, 2)})

    synced = dict(zip(disk.synced, disk.commits_at, strict=True))
    data = list(disk.root.glob("date=*/*.parquet"))
    assert len(data) == 2
    for path in (*data, *(path.parent for path in data), disk.root):
        assert synced[path] == 1, "data and folders are synced before the commits of columns and rows"
    for version in (1, 2):
        assert synced[disk.root / f"_delta_log/{version:020}.json"] == 3
    assert disk.synced[-1] == disk.root / "_delta_log"


def test_commits_of_another_writer_are_synced_before_a_position_is_told(disk: Disk) -> None:
    store = DeltaStore(disk.root, fsync=disk.fsync)
    store.positions([])
    DeltaStore(disk.root, fsync=lambda _: None).write([rows(0)], {"log": OffsetRange(0, 1)})
    disk.synced.clear()
    assert store.positions(["log"]) == {"log": 1}
    assert disk.root / "_delta_log/00000000000000000001.json" in disk.synced


def test_a_restart_syncs_what_a_killed_writer_left(disk: Disk) -> None:
    DeltaStore(disk.root, fsync=lambda _: None).write([rows(0)], {"log": OffsetRange(0, 1)})
    DeltaStore(disk.root, fsync=disk.fsync).positions(["log"])
    assert {*(disk.root / "_delta_log").glob("*.json"), disk.root, disk.root.parent} <= set(disk.synced)


def test_a_full_disk_stores_nothing_leaves_nothing_and_is_passed_by_a_retry(disk: Disk) -> None:
    store = DeltaStore(disk.root, fsync=disk.fsync)
    store.positions([])
    disk.failing = lambda path: errno.ENOSPC if "date=1970-01-02" in str(path) else 0
    with pytest.raises(StoreFullError) as full:
        store.write([rows(0, 1)], {"log": OffsetRange(0, 2)})
    assert full.value.retry_after
    assert list(disk.root.glob("date=*/*")) == []
    assert store.positions(["log"]) == {}
    disk.failing = lambda _: 0
    assert store.write([rows(0, 1)], {"log": OffsetRange(0, 2)}) == 2
    assert store.positions(["log"]) == {"log": 2}


def test_a_commit_that_cannot_be_synced_is_an_error_and_a_retry_finds_out_what_happened(disk: Disk) -> None:
    store = DeltaStore(disk.root, fsync=disk.fsync)
    store.positions([])
    disk.failing = lambda path: errno.EIO if path.suffix == ".json" else 0
    with pytest.raises(StoreError) as failed:
        store.write([rows(0)], {"log": OffsetRange(0, 1)})
    assert failed.value.code == "store.io"
    with pytest.raises(StoreError, match="Input/output error"):
        store.positions(["log"])  # not told while it may not last
    disk.failing = lambda _: 0
    with pytest.raises(StorePositionError) as stands:
        store.write([rows(0)], {"log": OffsetRange(0, 1)})
    assert stands.value.positions == {"log": 1}
    assert store.summary().gpus == 1
    assert len(list(disk.root.glob("date=*/*.parquet"))) == 1


def test_a_folder_that_cannot_be_made_or_written_is_said_with_its_path(disk: Disk, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreForeignError, match=f"{tmp_path}/file/store is a file, or below one"):
        DeltaStore(tmp_path / "file" / "store")
    disk.failing = lambda path: errno.EROFS
    with pytest.raises(StoreUnwritableError, match=r"cannot be written .* give this user the right"):
        DeltaStore(disk.root, fsync=disk.fsync).positions([])


@pytest.mark.parametrize("torn", TORN, ids=["empty", "half", "zeros"])
def test_given_a_commit_torn_by_a_power_loss_when_opened_then_the_prefix_survives(disk: Disk, torn: bytes) -> None:
    DeltaStore(disk.root).write([rows(0)], {"log": OffsetRange(0, 1)})
    last = disk.root / "_delta_log/00000000000000000002.json"
    last.write_bytes(torn)
    store = DeltaStore(disk.root, fsync=disk.fsync)
    assert store.positions(["log"]) == {"log": 1}
    assert not last.exists()
    assert store.write([rows(1)], {"log": OffsetRange(1, 2)}) == 1
    assert DeltaStore(disk.root).positions(["log"]) == {"log": 2}


@pytest.mark.parametrize("torn", TORN, ids=["empty", "half", "zeros"])
@pytest.mark.parametrize("opened", ["before", "after"])
def test_given_a_torn_commit_when_a_reader_comes_first_then_it_sees_what_is_written_in_its_place(
    disk: Disk, torn: bytes, opened: str
) -> None:
    DeltaStore(disk.root).write([rows(0)], {"log": OffsetRange(0, 1)})
    reader = DeltaStore(disk.root)
    if opened == "before":
        assert len(reader.gpus()) == 1
    (disk.root / "_delta_log/00000000000000000002.json").write_bytes(torn)
    assert len(reader.gpus()) == 1
    DeltaStore(disk.root).write([rows(1)], {"log": OffsetRange(1, 2)})
    assert [gpu.uuid for gpu in reader.gpus()] == [gpu.uuid for gpu in DeltaStore(disk.root).gpus()]
    assert sum(batch.num_rows for batch in reader.sql("SELECT * FROM gpu")) == 2


def test_given_a_table_whose_first_commit_is_torn_when_read_then_nothing_is_there(disk: Disk) -> None:
    (disk.root / "_delta_log").mkdir(parents=True)
    (disk.root / "_delta_log/00000000000000000000.json").write_bytes(b"")
    reader = DeltaStore(disk.root)
    assert list(reader.gpus()) == []
    DeltaStore(disk.root).write([rows(0)], {"log": OffsetRange(0, 1)})
    assert len(reader.gpus()) == 1


def test_given_a_checkpoint_torn_by_a_power_loss_when_opened_then_nothing_is_missing(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delta_table, "CHECKPOINT_INTERVAL", 3)
    store = DeltaStore(disk.root)
    for offset in range(3):
        store.write([rows(offset)], {"log": OffsetRange(offset, offset + 1)})
    (checkpoint,) = (disk.root / "_delta_log").glob("*.checkpoint.parquet")
    checkpoint.write_bytes(checkpoint.read_bytes()[:100])
    with pytest.raises(StoreCorruptError, match="cannot be read"):
        DeltaStore(disk.root).gpus()  # a reader mends nothing
    assert DeltaStore(disk.root).positions(["log"]) == {"log": 3}
    assert len(DeltaStore(disk.root).gpus()) == 1


def test_a_checkpoint_is_made_every_so_many_commits_synced_and_read_from(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delta_table, "CHECKPOINT_INTERVAL", 5)
    store = DeltaStore(disk.root, fsync=disk.fsync)
    for offset in range(12):
        store.write([rows(offset, util=1.0)], {"log": OffsetRange(offset, offset + 1)})
    log = disk.root / "_delta_log"
    checkpoints = sorted(log.glob("*.checkpoint.parquet"))
    assert [int(path.name[:20]) for path in checkpoints] == [5, 10]
    assert {*checkpoints, log / "_last_checkpoint"} <= set(disk.synced)
    for version in range(10):
        (log / f"{version:020}.json").unlink()  # as retention does
    again = DeltaStore(disk.root)
    assert again.positions(["log"]) == {"log": 12}
    assert again.summary().samples == 12
