"""Series and latest values: what they hold, against a plain model, in each store.

InfluxDB is the stand-in of `tests.influxdb3`.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import count, pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from telemetry_broker import _core
from telemetry_services.store import (
    Aggregate,
    ColumnStore,
    Cursor,
    Filters,
    GroupBy,
    LineStore,
    SeriesQuery,
    Store,
    StoreQueryError,
    open_store,
    series,
)
from telemetry_services.store.base import KEY_COLUMNS
from telemetry_services.store.delta import DeltaStore
from telemetry_services.store.series_sql import Span, slices
from telemetry_services.testing import RecordingStore
from tests.influxdb3 import StandIn

NS = pa.timestamp("ns", tz="UTC")
T0 = 1_752_871_354_000_000_000
SECOND = 1_000_000_000
HOSTILE = ["' OR 1=1 --", '" OR 1=1 --', "$p0", "x'; DROP TABLE gpu; --", "\0", "%", "GPU-1') OR ('1'='1"]

Row = dict[str, Any]


AnyStore = ColumnStore | LineStore


@pytest.fixture(scope="module")
def influx() -> Iterator[Callable[[], LineStore]]:
    """Give what opens a store in a new database."""
    numbers = count()
    with StandIn() as server:

        def opened() -> LineStore:
            store = open_store(f"influxdb://{server.address}/db{next(numbers)}")
            assert isinstance(store, LineStore)
            return store

        yield opened


@pytest.fixture(params=["delta", "recording", "influx"])
def store(request: pytest.FixtureRequest, tmp_path: Path, influx: Callable[[], LineStore]) -> Iterator[AnyStore]:
    opened: AnyStore
    if request.param == "influx":
        opened = influx()
    else:
        opened = DeltaStore(tmp_path / "store") if request.param == "delta" else RecordingStore()
    yield opened
    opened.close()


@pytest.fixture(params=["delta", "recording"])
def file_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ColumnStore]:
    """Give one of those that read files."""
    opened: ColumnStore = DeltaStore(tmp_path / "store") if request.param == "delta" else RecordingStore()
    yield opened
    opened.close()


def point(time_ns: int, uuid: str = "GPU-1", /, **more: Any) -> Row:
    return {"time": time_ns, "uuid": uuid, **more}


def put(store: AnyStore, *points: Row) -> None:
    if isinstance(store, LineStore):
        put_lines(store, *points)
        return
    names = sorted({name for row in points for name in row} - {"time"})
    table = {name: pa.array([row.get(name) for row in points]) for name in names}
    store.write([pa.table({"time": pa.array([row["time"] for row in points], NS), **table})], {})


def put_lines(store: LineStore, *points: Row) -> None:
    builder = _core.LineBuilder("gpu")
    # A point without a value is none to InfluxDB.
    builder.append_values(
        [line(**row).encode() for row in points if any(isinstance(each, float) for each in row.values())]
    )
    assert not builder.rejected
    assert store.write_lines(builder.finish()) == []


def line(*, time: int, **values: Any) -> str:
    escape = str.maketrans({character: f"\\{character}" for character in ",= "})
    tags = [f",{name}={value.translate(escape)}" for name, value in values.items() if isinstance(value, str) and value]
    fields = [f"{name.translate(escape)}={value}" for name, value in values.items() if isinstance(value, float)]
    return f"gpu{''.join(tags)} {','.join(fields)} {time}"


def read(store: Store, **query: Any) -> list[tuple[Any, ...]]:
    """Return the rows of a series, with times as nanoseconds."""
    table = store.series(SeriesQuery(**query)).read_all()
    columns = [table["time"].cast(pa.int64()), *table.columns[1:]]
    return list(zip(*(column.to_pylist() for column in columns), strict=True))


def test_samples_of_one_gpu_come_in_the_order_of_time_to_the_nanosecond(store: AnyStore) -> None:
    put(
        store,
        *(point(T0 + ns, hostname="h", device="nvidia0", m=float(ns)) for ns in (2, 0, 1)),
        point(T0, "GPU-2", m=9.0),
    )
    only = Filters(gpus=["GPU-1"])
    assert read(store, filters=only) == [(T0 + ns, "h", "nvidia0", "GPU-1", "", float(ns)) for ns in (0, 1, 2)]
    assert [row[0] - T0 for row in read(store, filters=only, descending=True, limit=2)] == [2, 1]
    assert [row[0] - T0 for row in read(store, filters=only, start_ns=T0 + 1, end_ns=T0 + 2)] == [1]
    assert read(store, metrics=["never"]) == []
    assert store.series(SeriesQuery(metrics=["never"])).schema.names == ["time", *KEY_COLUMNS["gpu"]]


def test_values_of_a_point_that_came_in_pieces_are_one_row(store: AnyStore) -> None:
    put(store, point(T0, a=1.0))
    put(store, point(T0, b=2.0), point(T0 + 1, b=3.0))
    assert [row[-2:] for row in read(store)] == [(1.0, 2.0), (None, 3.0)]
    assert [row[-1] for row in read(store, metrics=["a"])] == [1.0]


def test_the_rows_of_few_gpus_are_read_first_and_are_the_same(
    file_store: ColumnStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = file_store
    put(store, *(point(T0 + at, f"GPU-{at % 30}", hostname="h", model="H100", m=float(at)) for at in range(300)))
    queries: list[dict[str, Any]] = [
        {},
        {"window_ns": SECOND, "aggregate": "p95"},
        {"start_ns": T0 + 31, "end_ns": T0 + 91, "descending": True},
        {"group_by": "namespace", "window_ns": SECOND},
        {"start_ns": T0 + 1, "end_ns": T0 + 2},
    ]
    chosen = Filters(gpus=["GPU-0"], models=["H100"])
    read_first = [read(store, filters=chosen, **query) for query in queries]
    monkeypatch.setattr(series, "_FEW_GPUS", 0.0)
    assert read_first == [read(store, filters=chosen, **query) for query in queries]
    assert [len(rows) for rows in read_first] == [10, 1, 2, 1, 0]


@pytest.mark.parametrize(
    ("aggregate", "expected"), [("mean", 2.5), ("min", 1.0), ("max", 4.0), ("last", 2.0), ("p95", 4.0)]
)
def test_a_window_is_one_value(store: AnyStore, aggregate: Aggregate, expected: float) -> None:
    put(store, *(point(T0 + at, m=value) for at, value in enumerate((1.0, 4.0, 3.0, 2.0))), point(T0 + 9, other=1.0))
    rows = read(store, metrics=["m"], window_ns=SECOND, aggregate=aggregate)
    assert len(rows) == 1
    assert rows[0][0] == T0
    assert rows[0][-1] == pytest.approx(expected, rel=0.1)


def test_groups_bring_the_samples_of_several_gpus_together(store: AnyStore) -> None:
    put(
        store,
        point(T0, "GPU-1", hostname="a", namespace="x", pod="p", m=1.0),
        point(T0, "GPU-2", hostname="a", namespace="x", pod="q", m=3.0),
        point(T0, "GPU-3", hostname="b", m=8.0),
    )
    assert [row[1:] for row in read(store, group_by="host")] == [("a", 2.0), ("b", 8.0)]
    assert [row[1:] for row in read(store, group_by="namespace", aggregate="max")] == [("", 8.0), ("x", 3.0)]
    assert [row[1:] for row in read(store, group_by="pod")] == [("", "", 8.0), ("x", "p", 1.0), ("x", "q", 3.0)]
    assert [row[1:] for row in read(store, group_by="none")] == [(4.0,)]


def test_every_filter_narrows_and_its_names_widen(store: AnyStore) -> None:
    put(
        store,
        point(T0, "GPU-1", hostname="a", device="nvidia0", namespace="x", pod="p", model="H100", m=1.0),
        point(T0, "GPU-2", hostname="b", device="nvidia0", namespace="x", pod="q", model="A100", m=2.0),
        point(T0, "GPU-3", hostname="b", device="nvidia1", m=3.0),
    )

    def found(**filters: Sequence[str]) -> list[float]:
        chosen = Filters(**filters)
        values: list[float] = store.latest(["m"], chosen)["m"].combine_chunks().field("value").to_pylist()
        assert values == [row[-1] for row in read(store, filters=chosen)]
        return values

    assert found(gpus=["GPU-2"]) == [2.0]
    assert found(gpus=["nvidia0"]) == [1.0, 2.0]
    assert found(gpus=["nvidia0", "GPU-3"]) == [1.0, 2.0, 3.0]
    assert found(gpus=["GPU-1", "GPU-3", "GPU-9"]) == [1.0, 3.0]
    assert found(hostnames=["b"]) == [2.0, 3.0]
    assert found(hostnames=["b"], gpus=["nvidia0"]) == [2.0]
    assert found(namespaces=["x"], pods=["q", "r"]) == [2.0]
    assert found(models=["H100", "A100"]) == [1.0, 2.0]
    assert found(models=["B200"]) == []


@pytest.mark.parametrize("kind", ["recording", "influx"])
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    data=st.lists(
        st.tuples(
            st.integers(0, 300),  # seconds
            st.sampled_from(["GPU-1", "GPU-2", "GPU-3"]),
            st.one_of(st.none(), st.integers(-5, 5)),
            st.one_of(st.none(), st.integers(-5, 5)),
        ),
        max_size=30,
    ),
    window=st.sampled_from([None, 7, 60, 120]),
    aggregate=st.sampled_from(["mean", "min", "max"]),
    group_by=st.sampled_from(["gpu", "host", "none"]),
    descending=st.booleans(),
    bounds=st.tuples(st.one_of(st.none(), st.integers(0, 300)), st.one_of(st.none(), st.integers(0, 300))),
    page=st.integers(1, 5),
)
def test_a_series_is_what_a_plain_model_says_page_by_page(
    data: list[tuple[int, str, int | None, int | None]],
    window: int | None,
    aggregate: Aggregate,
    group_by: GroupBy,
    descending: bool,
    bounds: tuple[int | None, int | None],
    page: int,
    kind: str,
    influx: Callable[[], LineStore],
) -> None:
    store: AnyStore = RecordingStore() if kind == "recording" else influx()
    if kind == "influx":  # there a GPU has one point a time, which the next one overwrites
        data = list({(second, uuid): (second, uuid, a, b) for second, uuid, a, b in data}.values())
    host = {"GPU-1": "a", "GPU-2": "b", "GPU-3": "a"}
    put(store, point(-(10**15), "GPU-1", hostname="a", a=0.0, b=0.0))  # before every range
    points = [
        point(second * SECOND, uuid, hostname=host[uuid])
        | {name: float(value) for name, value in (("a", a), ("b", b)) if value is not None}
        for second, uuid, a, b in data
    ]
    for third in (points[::3], points[1::3], points[2::3]):
        if third:
            put(store, *third)
    low, high = bounds
    if low is not None and high is not None and low > high:
        low, high = high, low
    keys = {uuid: {"gpu": (at, "", uuid, ""), "host": (at,), "none": ()}[group_by] for uuid, at in host.items()}
    groups: dict[tuple[Any, ...], tuple[list[float], list[float]]] = defaultdict(lambda: ([], []))
    for second, uuid, a, b in data:
        inside = (low is None or low <= second) and (high is None or second < high)
        if inside and second >= 0 and (a, b) != (None, None):
            begin = second if window is None else second // window * window
            values = groups[(begin * SECOND, *keys[uuid])]
            for value, into in zip((a, b), values, strict=True):
                if value is not None:
                    into.append(float(value))
    combine: dict[str, Callable[[list[float]], float]] = {"mean": fmean, "min": min, "max": max}
    expected = [
        (*key, *(combine[aggregate](values) if values else None for values in groups[key]))
        for key in sorted(groups, key=lambda key: (-key[0] if descending else key[0], key[1:]))
    ]
    query: dict[str, Any] = {
        "metrics": ["a", "b"],
        "start_ns": 0 if low is None else low * SECOND,
        "end_ns": None if high is None else high * SECOND,
        "window_ns": None if window is None else window * SECOND,
        "aggregate": aggregate,
        "group_by": group_by,
        "descending": descending,
    }
    assert [pytest.approx(row) for row in expected] == read(store, **query)
    paged: list[tuple[Any, ...]] = []
    after = None
    while rows := read(store, **query, limit=page, after=after):
        paged += rows
        after = Cursor(rows[-1][0], rows[-1][1 : 1 + len(KEY_COLUMNS[group_by])])
    assert [pytest.approx(row) for row in expected] == paged


@given(
    spans=st.lists(st.tuples(st.integers(-100, 100), st.integers(0, 50), st.integers(1, 20))),
    bounds=st.tuples(st.integers(-120, 120), st.integers(1, 200)),
    step=st.integers(1, 30),
    descending=st.booleans(),
    first=st.integers(1, 30),
)
def test_slices_cover_what_there_is_once_and_cut_no_window(
    spans: list[tuple[int, int, int]], bounds: tuple[int, int], step: int, descending: bool, first: int
) -> None:
    low, high = bounds[0], bounds[0] + bounds[1]
    given_spans = [Span(at, at + length, weight) for at, length, weight in spans]
    cut = list(slices(given_spans, low, high, step, descending=descending, first_weight=first, weight=40))
    there = any(span.last_ns >= low and span.first_ns < high for span in given_spans)
    assert bool(cut) == there
    if there:
        in_order = cut[::-1] if descending else cut
        assert in_order[0][0] == low
        assert in_order[-1][1] == high
        for (_, end), (begin, _) in pairwise(in_order):
            assert end == begin
            assert begin % step == 0
        assert all(begin < end for begin, end in cut)


def test_a_long_series_is_read_in_slices_and_the_first_page_reads_one(
    file_store: ColumnStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = file_store
    monkeypatch.setattr(series, "_FIRST_SLICE_CELLS", 12)
    monkeypatch.setattr(series, "_MAX_SLICE_CELLS", 24)
    sliced: list[int] = []
    read_slice = series.Series._slice

    def counting(of: series.Series, low: int, high: int, limit: int | None) -> Iterator[pa.RecordBatch]:
        sliced.append(low)
        return read_slice(of, low, high, limit)

    monkeypatch.setattr(series.Series, "_slice", counting)
    for second in range(40):
        put(store, point(T0 + second * SECOND, m=float(second)))
    assert [row[-1] for row in read(store)] == [float(second) for second in range(40)]
    assert len(sliced) > 5
    sliced.clear()
    assert [row[-1] for row in read(store, descending=True, limit=2)] == [39.0, 38.0]
    assert len(sliced) == 1


def test_latest_is_the_last_value_that_is_there_and_when_it_was(store: AnyStore) -> None:
    put(
        store, point(T0 + 5, hostname="h", model="old", a=5.0), point(T0 + 3, hostname="h", model="older", a=3.0, b=3.5)
    )
    put(store, point(T0 + 7, hostname="h", model="new", c=7.0), point(T0 + 4, hostname="h", a=4.0, b=4.5))
    put(store, point(T0, "GPU-2", hostname="g", d=0.0), point(T0 + 1, "", hostname="nobody", a=1.0))
    table = store.latest()
    assert table.column_names[:10] == [
        "hostname", "device", "uuid", "GPU_I_ID", "gpu", "model", "container", "pod", "namespace", "time",
    ]  # fmt: skip
    assert table["uuid"].to_pylist() == ["GPU-2", "GPU-1"]
    assert table["model"].to_pylist() == ["", "new"]
    assert table["time"].cast(pa.int64()).to_pylist() == [T0, T0 + 7]
    last = {name: table[name].combine_chunks() for name in ("a", "b", "c")}
    assert [column[0].as_py() for column in last.values()] == [None] * 3
    values = {name: column.field("value")[1].as_py() for name, column in last.items()}
    times = {name: column.field("time").cast(pa.int64())[1].as_py() for name, column in last.items()}
    assert values == {"a": 5.0, "b": 4.5, "c": 7.0}
    assert times == {"a": T0 + 5, "b": T0 + 4, "c": T0 + 7}
    assert store.latest(["c", "never", "a"]).column_names[10:] == ["c", "a"]
    assert [gpu.uuid for gpu in store.gpu("GPU-1")] == ["GPU-1"]
    assert store.gpu("") == []


def test_latest_of_an_empty_store_is_an_empty_table(store: AnyStore) -> None:
    assert store.latest().num_rows == 0
    assert read(store) == []
    assert store.latest().schema.field("time").type == NS


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ({"window_ns": 0}, "window: 0 ns; expected 1000000 to"),
        ({"window_ns": 1_000_001}, "in whole microseconds"),
        ({"window_ns": 10**18}, "window"),
        ({"aggregate": "median"}, "expected one of mean, min, max, last, p95"),
        ({"group_by": "rack"}, "expected one of gpu, host, namespace, pod, none"),
        ({"limit": -1}, "limit: -1"),
        ({"start_ns": 2, "end_ns": 1}, "swap them"),
        ({"after": Cursor(0, ("a",))}, "expected those of hostname, device, uuid, GPU_I_ID"),
        ({"filters": Filters(pods=[""] * 10_001)}, "filter pods: 10,001 names"),
    ],
)
def test_what_cannot_be_answered_is_refused_at_once(store: AnyStore, query: dict[str, Any], told: str) -> None:
    with pytest.raises(StoreQueryError, match=told):
        store.series(SeriesQuery(**query))


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_of_a_series_is_read_as_sql(store: AnyStore, text: str) -> None:
    put(store, point(T0, hostname="h", m=1.0))
    for field in Filters.__slots__:
        chosen = Filters(**{field: [text]})
        assert read(store, filters=chosen) == []
        assert store.latest((), chosen).num_rows == 0
    assert read(store, metrics=[text]) == []
    assert read(store, after=Cursor(T0 - 1, (text,) * 4), window_ns=SECOND) == read(store, window_ns=SECOND)
    wrongs: list[dict[str, Any]] = [{"aggregate": text}, {"group_by": text}]
    for wrong in wrongs:
        with pytest.raises(StoreQueryError):
            store.series(SeriesQuery(**wrong))
    assert len(read(store)) == 1


def test_metrics_of_any_name_have_a_series(store: AnyStore) -> None:
    metric = "m'\"$p0 {x} ü"
    put(store, point(T0, **{metric: 1.0}))
    for aggregate in ("mean", "last", "p95"):
        assert read(store, metrics=[metric], aggregate=aggregate)[0][-1] == 1.0


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TABLE gpu",
        "CREATE TABLE x AS SELECT 1",
        "CREATE EXTERNAL TABLE x STORED AS CSV LOCATION '/etc/passwd'",
        "INSERT INTO gpu SELECT * FROM gpu",
        "COPY (SELECT 1) TO '{folder}/copied.csv'",
        "SET datafusion.execution.batch_size = 1",
        "SELECT 1; SELECT 2",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT nothing FROM gpu",
        "",
        "nonsense",
    ],
)
def test_sql_that_is_not_one_query_of_the_tables_is_refused(store: AnyStore, statement: str, tmp_path: Path) -> None:
    put(store, point(T0, m=1.0))
    with pytest.raises(StoreQueryError):
        store.sql(statement.format(folder=tmp_path)).read_all()
    assert not (tmp_path / "copied.csv").exists()
    assert store.sql("SELECT count(*) FROM gpu").read_all().column(0).to_pylist() == [1]


def test_sql_is_answered_as_it_is_asked(store: AnyStore) -> None:
    put(store, *(point(T0 + at * SECOND, hostname=f"h{at % 2}", m=float(at)) for at in range(4)))
    table = store.sql("SELECT hostname, max(m) AS most FROM gpu GROUP BY hostname ORDER BY hostname").read_all()
    assert table.to_pydict() == {"hostname": ["h0", "h1"], "most": [2.0, 3.0]}
