"""A Delta store through deltalake's object-store layer, on a file:// URL: the same promises, without a local folder."""

from pathlib import Path

import pyarrow as pa
import pytest

from telemetry_services.store import OffsetRange, Retention, SeriesQuery, StorePositionError, delta, maintenance
from telemetry_services.store.delta import DeltaStore
from telemetry_services.store.object_files import ObjectFiles
from tests.integration.store_writer import BATCH, known_rows
from tests.integration.test_delta_maintenance import HOUR, LOG, later_ms, small_steps  # noqa: F401 (a fixture)
from tests.integration.test_delta_store import known, stored


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "bucket").mkdir()
    return tmp_path / "bucket"


def opened(folder: Path) -> DeltaStore:
    return DeltaStore(ObjectFiles(f"file://{folder}"))


def test_rows_and_positions_are_stored_once_and_a_sleeper_is_fenced(folder: Path) -> None:
    store, sleeper = opened(folder), opened(folder)
    assert sleeper.positions([LOG]) == {}
    assert store.write([known_rows(0, BATCH)], {LOG: OffsetRange(0, BATCH)}) == BATCH
    with pytest.raises(StorePositionError):
        sleeper.write([known_rows(0, BATCH)], {LOG: OffsetRange(0, BATCH)})
    assert stored(folder) == known(BATCH)
    assert len(list(folder.glob("date=*/*.parquet"))) == 1, "the files of a refused write are gone"
    assert opened(folder).positions([LOG]) == {LOG: BATCH}


def test_upkeep_and_questions_are_those_of_a_local_table(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maintenance, "_VACUUM_SECONDS", 0.0)
    monkeypatch.setattr(delta, "WRITE_LATEST_EVERY", 1)
    store = opened(folder)
    for position in range(0, 20 * BATCH, BATCH):
        store.write([known_rows(position, position + BATCH)], {LOG: OffsetRange(position, position + BATCH)})
    query = SeriesQuery(window_ns=HOUR, aggregate="max", group_by="none")
    before = store.series(query).read_all(), store.latest()
    while store.maintain(Retention(), now_ms=later_ms(3)):
        pass
    assert stored(folder) == known(20 * BATCH)
    assert (folder / "_latest.parquet").exists()
    assert store.sql("SELECT count(*) > 0 FROM gpu_1h").read_all().column(0).to_pylist() == [True]
    again = opened(folder)
    assert (again.series(query).read_all(), again.latest()) == before
    assert isinstance(before[0], pa.Table)
