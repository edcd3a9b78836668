"""What a store answers: the same questions to the Delta store and to the recording one."""

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from telemetry_services.store import ColumnStore as Store
from telemetry_services.store import (
    Gpu,
    HostCount,
    NamespaceCount,
    OffsetRange,
    Sample,
    StoreError,
    Summary,
    queries,
)
from telemetry_services.store.delta import DeltaStore
from telemetry_services.store.parts import Part
from telemetry_services.store.snapshot import Snapshot
from telemetry_services.testing import RecordingStore

NS = pa.timestamp("ns", tz="UTC")
T0 = 1_752_871_354_000_000_000
SECOND = 1_000_000_000

# One row of a real dump.
DUMP = '''"2025-07-18T20:42:34Z","DCGM_FI_DEV_GPU_UTIL","1","nvidia1","GPU-bc7a12ab-4998-fdc5-0785-2678a929a142","NVIDIA H100 80GB HBM3","mtv5-dgx1-hgpu-031","","","","100","DCGM_FI_DRIVER_VERSION=""535.129.03"",Hostname=""mtv5-dgx1-hgpu-031"",UUID=""GPU-bc7a12ab-4998-fdc5-0785-2678a929a142"",__name__=""DCGM_FI_DEV_GPU_UTIL"",device=""nvidia1"",gpu=""1"",instance=""mtv5-dgx1-hgpu-031:9400"",job=""dgx_dcgm_exporter"",modelName=""NVIDIA H100 80GB HBM3"""'''  # noqa: E501


@pytest.fixture(params=["delta", "recording"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    opened: Store = DeltaStore(tmp_path / "store") if request.param == "delta" else RecordingStore()
    yield opened
    opened.close()


def point(time_ns: int, uuid: str = "GPU-1", /, **more: Any) -> dict[str, Any]:
    """A wide point: text is a tag, a number a metric."""
    return {"time": time_ns, "uuid": uuid, **more}


def put(store: Store, *points: dict[str, Any]) -> None:
    names = sorted({name for row in points for name in row} - {"time"})
    table = {name: pa.array([row.get(name) for row in points]) for name in names}
    store.write([pa.table({"time": pa.array([row["time"] for row in points], NS), **table})], {})


def told(samples: Iterator[Sample]) -> list[tuple[int, str, str, float]]:
    return [(sample.time_ns, sample.uuid, sample.metric, sample.value) for sample in samples]


def parts_read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list to which every reading from now on appends how many parts it opens."""
    read: list[int] = []
    state = Snapshot.__init__

    def counting(snapshot: Snapshot, schema: pa.Schema, parts: Sequence[Part], dataset: Any, *more: Any) -> None:
        def opened(chosen: Sequence[Part]) -> Any:
            read.append(len(chosen))
            return dataset(chosen)

        state(snapshot, schema, parts, opened, *more)

    monkeypatch.setattr(Snapshot, "__init__", counting)
    return read


def test_an_empty_store_answers_empty_lists(store: Store) -> None:
    store.positions(["log"])
    assert (store.gpus(), store.hosts(), store.namespaces(), store.metrics()) == ([], [], [], [])
    assert list(store.telemetry("GPU-1")) == []
    assert store.summary() == Summary(0, 0, 0)


def test_a_gpu_is_listed_with_its_newest_tags_and_a_slice_of_it_as_one_more(store: Store) -> None:
    put(
        store,
        point(
            T0 + 7,
            hostname="b",
            device="nvidia0",
            gpu="0",
            model="H100",
            pod="new",
            container="c",
            namespace="ml",
            m=1.0,
        ),
        point(
            T0, hostname="a", device="nvidia3", gpu="3", model="H100", pod="old", container="c", namespace="old", m=1.0
        ),
    )
    put(store, point(T0 + 1, "GPU-0", hostname="b", device="nvidia1", m=1.0))
    put(store, point(T0 + 2, hostname="b", device="nvidia0", GPU_I_ID="7", m=1.0))
    put(store, {"time": T0, "hostname": "c", "m": 1.0})
    whole = Gpu("nvidia0", "0", "GPU-1", "H100", "b", "c", "new", "ml", "", T0 + 7)
    assert store.gpus() == [
        whole,
        Gpu("nvidia0", "", "GPU-1", "", "b", "", "", "", "7", T0 + 2),
        Gpu("nvidia1", "", "GPU-0", "", "b", "", "", "", "", T0 + 1),
    ]
    assert store.hosts() == [HostCount("b", 3)]
    assert store.namespaces() == [NamespaceCount("ml", 1)]
    assert store.metrics() == ["m"]
    assert store.summary() == Summary(samples=5, gpus=3, hosts=3)


def test_the_gpu_list_reads_only_what_is_new(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    read = parts_read(monkeypatch)
    for second in range(20):
        put(store, point(T0 + second * SECOND, m=1.0))
    store.gpus()
    assert sum(read) == 20
    put(store, point(T0 + 60 * SECOND, m=1.0))
    assert store.gpus()[0].last_seen_ns == T0 + 60 * SECOND
    assert sum(read) == 21


def test_without_a_range_the_newest_samples_come_newest_first(store: Store) -> None:
    for second in (3, 1, 2):
        put(store, point(T0 + second, b=10.0 + second, a=float(second)), point(T0 + second, "GPU-2", a=9.0))
    assert told(store.telemetry("GPU-1", limit=3)) == [
        (T0 + 3, "GPU-1", "a", 3.0),
        (T0 + 3, "GPU-1", "b", 13.0),
        (T0 + 2, "GPU-1", "a", 2.0),
    ]
    assert told(store.telemetry("GPU-1", metrics=["b", "never"], limit=2)) == [
        (T0 + 3, "GPU-1", "b", 13.0),
        (T0 + 2, "GPU-1", "b", 12.0),
    ]
    assert list(store.telemetry("GPU-1", metrics=["never"])) == []
    assert list(store.telemetry("GPU-1", limit=0)) == []


def test_a_range_is_half_open_to_the_nanosecond_and_comes_oldest_first(store: Store) -> None:
    put(store, *(point(T0 + ns, m=float(ns)) for ns in range(998, 1003)))
    assert [row[0] - T0 for row in told(store.telemetry("GPU-1", start_ns=T0 + 999, end_ns=T0 + 1002))] == [
        999,
        1000,
        1001,
    ]
    assert [row[0] - T0 for row in told(store.telemetry("GPU-1", start_ns=T0 + 1001))] == [1001, 1002]
    assert [row[0] - T0 for row in told(store.telemetry("GPU-1", end_ns=T0 + 999))] == [998]
    assert list(store.telemetry("GPU-1", start_ns=-(10**30), end_ns=-(10**29))) == []
    assert len(list(store.telemetry("GPU-1", start_ns=-(10**30), end_ns=10**30))) == 5
    assert store.summary(T0 + 999, T0 + 1001) == Summary(samples=2, gpus=1, hosts=0)


def test_a_device_id_answers_for_all_hosts_and_a_hostname_narrows(store: Store) -> None:
    put(store, *(point(T0, f"GPU-{host}", hostname=host, device="nvidia0", m=1.0) for host in ("b", "a", "c")))
    assert [row[1] for row in told(store.telemetry("nvidia0"))] == ["GPU-a", "GPU-b", "GPU-c"]
    assert [row[1] for row in told(store.telemetry("nvidia0", hostname="b"))] == ["GPU-b"]
    assert list(store.telemetry("GPU-a", hostname="b")) == []


def test_labels_raw_is_rebuilt_as_the_dump_had_it(store: Store) -> None:
    _, metric, gpu, device, uuid, model, hostname, *_, value, labels_raw = next(csv.reader(io.StringIO(DUMP)))
    more = {"DCGM_FI_DRIVER_VERSION": "535.129.03", "instance": f"{hostname}:9400", "job": "dgx_dcgm_exporter"}
    put(
        store, point(T0, uuid, gpu=gpu, device=device, model=model, hostname=hostname, **more, **{metric: float(value)})
    )
    assert list(store.telemetry("nvidia1")) == [
        Sample(device, metric, 100.0, T0, gpu, uuid, model, hostname, "", "", "", labels_raw)
    ]


def test_a_label_with_quotes_is_escaped_as_prometheus_does(store: Store) -> None:
    put(store, point(T0, "GPU-1", zone='a\\b"c\nd', m=1.0))
    assert next(store.telemetry("GPU-1")).labels_raw == r'UUID="GPU-1",__name__="m",zone="a\\b\"c\nd"'


def test_times_that_overlap_between_commits_still_come_in_order(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queries, "_FIRST_CHUNK_PARTS", 1)
    monkeypatch.setattr(queries, "_MAX_CHUNK_PARTS", 2)
    times = [[0, 9], [3], [1, 5], [8, 2], [7], [4, 6], [10, -1]]
    for part in times:
        put(store, *(point(T0 + at, m=float(at)) for at in part))
    every = sorted(at for part in times for at in part)
    assert [row[0] - T0 for row in told(store.telemetry("GPU-1"))] == every[::-1]
    assert [row[0] - T0 for row in told(store.telemetry("GPU-1", limit=4))] == every[::-1][:4]
    assert [row[0] - T0 for row in told(store.telemetry("GPU-1", start_ns=T0 + 2, limit=5))] == [2, 3, 4, 5, 6]


def test_the_newest_samples_are_found_without_reading_all_parts(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for second in range(40):
        put(store, point(T0 + second * SECOND, m=float(second)))
    read = parts_read(monkeypatch)
    assert [sample.value for sample in store.telemetry("GPU-1", limit=5)] == [39.0, 38.0, 37.0, 36.0, 35.0]
    assert sum(read) < 10


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=st.one_of(st.text(), st.sampled_from(["' OR 1=1 --", '" OR 1=1 --', "$gpu", "x'; DROP TABLE gpu; --", "\0"]))
)
def test_no_text_of_a_caller_is_read_as_sql(store: Store, text: str) -> None:
    assume(text not in ("GPU-1", "h"))  # which are there
    if not store.metrics():
        put(store, point(T0, hostname="h", m=1.0))
    assert list(store.telemetry(text)) == []
    assert list(store.telemetry("GPU-1", hostname=text)) == []
    assert list(store.telemetry("GPU-1", metrics=[text] if text != "m" else ["n"])) == []
    assert store.summary() == Summary(1, 1, 1)


def test_column_names_of_any_text_are_stored_and_told(store: Store) -> None:
    tag, metric = 'a"; DROP TABLE gpu; --', "m'\"$gpu {x} \u00fc"
    put(store, point(T0, **{tag: "t", metric: 1.0}))
    assert store.metrics() == [metric]
    (sample,) = store.telemetry("GPU-1")
    assert sample.metric == metric
    assert f'{tag}="t"' in sample.labels_raw


def test_a_thousand_metrics_are_one_table(store: Store) -> None:
    put(store, point(T0, **{f"m{number:04}": float(number) for number in range(1000)}))
    assert store.summary() == Summary(1000, 1, 0)
    assert [sample.value for sample in store.telemetry("GPU-1", limit=1000)] == [
        float(number) for number in range(1000)
    ]


def test_samples_are_of_the_state_at_the_time_of_the_call(store: Store) -> None:
    put(store, point(T0, m=1.0))
    samples = store.telemetry("GPU-1")
    put(store, point(T0 + 1, m=2.0))
    assert [sample.value for sample in samples] == [1.0]


def test_a_closed_store_says_so(store: Store) -> None:
    store.close()
    store.close()
    for call in (
        store.gpus,
        store.summary,
        lambda: store.positions([]),
        lambda: store.write([], {"log": OffsetRange(0, 1)}),
    ):
        with pytest.raises(StoreError) as closed:
            call()
        assert closed.value.code == "store.closed"
