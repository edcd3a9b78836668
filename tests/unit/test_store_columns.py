"""The wide row: nanoseconds kept, columns told apart, what cannot be stored refused."""

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry_services.store import StoreSchemaError, columns

NS = pa.timestamp("ns", tz="UTC")


def rows(times_ns: list[int], **more: Any) -> pa.Table:
    return pa.table({"time": pa.array(times_ns, NS), **more})


@given(st.lists(st.integers(-(2**63) + 1000, 2**63 - 1), min_size=1))
def test_every_nanosecond_of_any_time_is_kept(times_ns: list[int]) -> None:
    table = columns.normalise([rows(times_ns)])
    whole = table["time"].cast(pa.int64()).to_pylist()
    nanos = table["nanos"].to_pylist()
    assert [us * 1000 + rest for us, rest in zip(whole, nanos, strict=True)] == times_ns
    assert all(0 <= rest < 1000 for rest in nanos)


@given(st.lists(st.integers(-(10**15), 10**15), min_size=1))
def test_days_hold_each_row_once(times_us: list[int]) -> None:
    days = columns.split_days(columns.normalise([rows([us * 1000 for us in times_us])]))
    found = []
    for day in days:
        part = day.table["time"].cast(pa.int64()).to_pylist()
        assert {str(day_of) for day_of in day.table["time"].cast(pa.date32()).to_pylist()} == {day.date}
        found += part
    assert sorted(found) == sorted(times_us)
    assert len({day.date for day in days}) == len(days)


def test_pieces_of_other_columns_become_one_table_with_nulls() -> None:
    table = columns.normalise([rows([1], a=["x"], m=[1.0]), rows([2], b=pa.array(["y"]).dictionary_encode()), rows([])])
    assert table.select(["a", "b", "m"]).to_pylist() == [
        {"a": "x", "b": None, "m": 1.0},
        {"a": None, "b": "y", "m": None},
    ]
    assert columns.tags(table.schema) == ["a", "b"]
    assert columns.metrics(table.schema) == ["m"]


def test_a_record_batch_and_a_reader_are_taken_as_a_table_is() -> None:
    table = rows([1, 2], a=["x", "y"])
    for piece in (table, table.to_batches()[0], pa.RecordBatchReader.from_batches(table.schema, table.to_batches())):
        assert columns.normalise([piece])["a"].to_pylist() == ["x", "y"]


@pytest.mark.parametrize("text", [pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.large_string())])
def test_text_of_any_arrow_layout_is_a_tag(text: pa.DataType) -> None:
    assert columns.normalise([rows([1], a=pa.array(["x"]).cast(text))]).schema.field("a").type == pa.string()


@pytest.mark.parametrize(
    ("piece", "wrong"),
    [
        (pa.table({"a": ["x"]}), ["time"]),
        (pa.table({"time": pa.array([None], NS)}), ["time"]),
        (pa.table({"time": pa.array([1], pa.timestamp("ns"))}), ["time"]),
        (rows([1], date=["x"]), ["date"]),
        (rows([1], Nanos=[1.0]), ["Nanos"]),
        (rows([1], TIME=["x"]), ["time", "TIME"]),
        (rows([1], pod=["x"], Pod=["y"]), ["pod", "Pod"]),
        (rows([1], **{"": ["x"]}), [""]),
        (rows([1], m=[True]), ["m"]),
        (rows([1], m=pa.array([1], pa.int64())), ["m"]),
    ],
)
def test_what_cannot_be_stored_is_refused_by_column(piece: pa.Table, wrong: list[str]) -> None:
    with pytest.raises(StoreSchemaError) as refused:
        columns.normalise([piece])
    assert refused.value.columns == wrong
    assert refused.value.code == "store.schema"


def test_a_tag_in_one_piece_and_a_metric_in_another_is_refused() -> None:
    with pytest.raises(StoreSchemaError, match="metric 'x' is already stored as tag 'x'"):
        columns.normalise([rows([1], x=["text"]), rows([1], x=[1.0])])
