"""Which URLs name a store, and what is said of those that do not."""

import pickle
from pathlib import Path

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry_broker.errors import BrokerError
from telemetry_services.codes import CODES, status_of
from telemetry_services.store import (
    ColumnStore,
    StoreError,
    StoreForeignError,
    StorePositionError,
    StoreUrlError,
    errors,
    open_store,
)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("influxdb://secret@influx:8181/db?pass=secret", "give it as INFLUXDB_TOKEN"),
        ("influxdbs://influx:8181/db?pass=secret", "there is no option 'pass'"),
        ("postgres://me:secret@host/db", "unknown scheme 'postgres'"),
        ("./data", "store './data': no scheme"),
        ("delta://", "no folder is named"),
        ("delta:///", "no folder is named"),
        ("delta:///data?version=1", "writes them as %3F and %23"),
        ("delta:///data/50%25", "holds %"),
        ("delta://[half", "not a URL"),
    ],
)
def test_a_url_of_no_store_is_refused_with_a_remedy_and_without_its_secrets(url: str, told: str) -> None:
    with pytest.raises(StoreUrlError) as refused:
        open_store(url)
    assert refused.value.code == "store.url"
    assert told in str(refused.value)
    assert "secret" not in str(refused.value)
    assert "token" not in str(refused.value)


@given(st.text())
def test_no_text_opens_anything_but_a_store_or_fails_otherwise(text: str) -> None:
    if not text.startswith(("delta:", "influxdb")):
        with pytest.raises(StoreUrlError):
            open_store(text)


def test_a_relative_folder_and_one_with_a_space_are_stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for url in ("delta://./data/store", "delta://data/with%20space"):
        store = open_store(url)
        assert isinstance(store, ColumnStore)
        assert store.positions(["log"]) == {}
    assert (tmp_path / "data/store/_delta_log").is_dir()
    assert (tmp_path / "data/with space/_delta_log").is_dir()


def test_opening_makes_nothing_and_reads_as_empty(tmp_path: Path) -> None:
    store = open_store(f"delta://{tmp_path}/store")
    assert (store.gpus(), store.hosts(), store.namespaces(), store.metrics()) == ([], [], [], [])
    assert list(store.telemetry("GPU-1")) == []
    assert store.summary().samples == 0
    assert list(tmp_path.iterdir()) == []


def test_a_file_and_a_folder_of_something_else_are_refused(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    for path in (tmp_path, tmp_path / "letter.txt"):
        with pytest.raises(StoreForeignError, match="name a folder that is empty or not there"):
            open_store(f"delta://{path}")


def test_every_code_has_its_class_and_a_status_and_survives_pickling() -> None:
    classes = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, StoreError)]
    assert {kind.default_code: kind for kind in classes} == {
        code: info.error for code, info in CODES.items() if code.startswith("store.")
    }
    for kind in classes:
        error = pickle.loads(pickle.dumps(kind("told")))
        assert (type(error), error.code, error.message) == (kind, kind.default_code, "told")
        assert isinstance(error, BrokerError)
        assert isinstance(status_of(error.code), grpc.StatusCode)
    assert StorePositionError("", positions={"log": 3}).positions == {"log": 3}
