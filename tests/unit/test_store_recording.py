"""The recording store: what it records, and the faults that a test may ask for."""

import pyarrow as pa
import pytest

from telemetry_services.store import ColumnStore as Store
from telemetry_services.store import (
    OffsetRange,
    StoreError,
    StoreFullError,
    StorePositionError,
    StoreSchemaError,
)
from telemetry_services.testing import RecordedWrite, RecordingStore


def rows(*values: float) -> pa.Table:
    times = pa.array(range(len(values)), pa.timestamp("ns", tz="UTC"))
    return pa.table({"time": times, "uuid": ["GPU-1"] * len(values), "m": list(values)})


def test_each_commit_is_recorded_with_its_rows_and_positions() -> None:
    store = RecordingStore()
    typed: Store = store
    assert typed.write([rows(1.0), rows(2.0, 3.0)], {"log": OffsetRange(0, 3)}) == 3
    assert typed.write([], {"log": OffsetRange(3, 4)}) == 0
    first, second = store.writes
    assert isinstance(first, RecordedWrite)
    assert first.rows["m"].to_pylist() == [1.0, 2.0, 3.0]
    assert second.positions == {"log": OffsetRange(3, 4)}
    assert store.rows["m"].to_pylist() == [1.0, 2.0, 3.0]
    assert store.positions(["log", "other"]) == {"log": 4}


def test_faults_come_in_the_order_asked_for_before_or_after_the_commit() -> None:
    store = RecordingStore()
    store.fail_writes(2)
    store.fail_writes(1, StoreFullError("full"), after_commit=True)
    for _ in range(2):
        with pytest.raises(StoreError) as failed:
            store.write([rows(1.0)], {"log": OffsetRange(0, 1)})
        assert failed.value.code == "store.io"
        assert store.writes == []
    with pytest.raises(StoreFullError):
        store.write([rows(1.0)], {"log": OffsetRange(0, 1)})
    assert store.rows.num_rows == 1
    with pytest.raises(StorePositionError) as stands:
        store.write([rows(1.0)], {"log": OffsetRange(0, 1)})
    assert stands.value.positions == {"log": 1}
    assert store.write([rows(2.0)], {"log": OffsetRange(1, 2)}) == 1


def test_a_column_of_another_kind_is_refused_and_nothing_is_stored() -> None:
    store = RecordingStore()
    store.write([rows(1.0)], {"log": OffsetRange(0, 1)})
    clash = pa.table({"time": pa.array([0], pa.timestamp("ns", tz="UTC")), "m": ["text"]})
    with pytest.raises(StoreSchemaError):
        store.write([clash], {"log": OffsetRange(1, 2)})
    assert store.positions(["log"]) == {"log": 1}
