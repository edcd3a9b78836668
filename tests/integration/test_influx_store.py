"""The InfluxDB 3 store, against a server that answers as a real one does: see `tests.influxdb3`."""

import csv
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from telemetry_broker import _core
from telemetry_services.store import (
    Filters,
    LineStore,
    RefusedLine,
    SeriesQuery,
    StoreClosedError,
    StoreDeniedError,
    StoreError,
    StoreForeignError,
    StoreQueryError,
    StoreUnavailableError,
    StoreUrlError,
    open_store,
)
from tests.influxdb3 import Dropped, Half, StandIn, Status

SECRET = "apiv3_secret-token"


@pytest.fixture
def server() -> Iterator[StandIn]:
    with StandIn(token=SECRET) as server:
        yield server


@pytest.fixture
def store(server: StandIn) -> Iterator[LineStore]:
    store = influx(server)
    yield store
    store.close()


def influx(server: StandIn, options: str = "", *, database: str = "telemetry", token: str = SECRET) -> LineStore:
    store = open_store(f"influxdb://{server.address}/{database}{options}", token=token)
    assert isinstance(store, LineStore)
    return store


def lines(*texts: str) -> _core.LineBatch:
    builder = _core.LineBuilder("gpu")
    builder.append_values([text.encode() for text in texts])
    assert not builder.rejected
    return builder.finish()


def point(second: int, gpu: int = 0, fields: str = "util=1", tags: str = "") -> str:
    return f"gpu,device=nvidia{gpu},hostname=h{gpu // 8},uuid=GPU-{gpu}{tags} {fields} {second}000000000"


def values(server: StandIn, field: str = "util") -> list[object]:
    return [fields[field] for fields in server.points("telemetry").values() if field in fields]


# Writing


def test_lines_are_stored_in_nanoseconds(server: StandIn, store: LineStore) -> None:
    assert store.write_lines(lines("gpu,uuid=a util=1.5,temp=2i 1752871354000000001", point(2))) == []
    assert server.points("telemetry") == {
        ((("uuid", "a"),), 1752871354000000001): {"util": 1.5, "temp": 2.0},
        ((("device", "nvidia0"), ("hostname", "h0"), ("uuid", "GPU-0")), 2_000_000_000): {"util": 1.0},
    }
    (request,) = server.writes
    assert (request.path, request.query["precision"], request.query["db"]) == (
        "/api/v3/write_lp",
        "nanosecond",
        "telemetry",
    )
    assert "no_sync" not in request.query
    assert "content-encoding" not in request.headers


def test_options_of_the_url_reach_the_server(server: StandIn) -> None:
    store = influx(server, "?no_sync=true&gzip=true")
    store.write_lines(lines(point(1)))
    store.close()
    (request,) = server.writes
    assert request.query["no_sync"] == "true"
    assert request.headers["content-encoding"] == "gzip"
    assert values(server) == [1.0]


def test_a_point_that_is_written_again_overwrites_itself(server: StandIn, store: LineStore) -> None:
    store.write_lines(lines(point(1), point(2)))
    store.write_lines(lines(point(2, fields="util=7"), point(3)))
    assert values(server) == [1.0, 7.0, 1.0]


def test_of_a_partial_write_exactly_the_bad_lines_come_back(server: StandIn, store: LineStore) -> None:
    server.databases.write("telemetry", "gpu odd=1i 1\ngpu,tag=x util=1 1", "ns", accept_partial=True)
    refused = store.write_lines(
        lines(point(1), point(2, fields="odd=1"), point(3), point(4, fields="tag=1"), point(5, fields="util=5"))
    )
    assert [line.line for line in refused] == [1, 3]
    assert refused[0].reason == (
        "invalid column type for column 'odd', expected iox::column_type::field::integer, "
        "got iox::column_type::field::float"
    )
    assert values(server) == [1.0, 1.0, 1.0, 5.0]


@pytest.mark.parametrize("status", [413, 422])
def test_where_the_server_does_not_say_which_lines_it_refuses_they_are_found(server: StandIn, status: int) -> None:
    class Picky(StandIn):
        def _route(self, request):  # type: ignore[no-untyped-def]
            answer = super()._route(request)
            return answer._replace(status=status) if b"bad" in request.body else answer

    texts = [point(second, fields="bad=1" if second in (3, 4, 9) else "util=1") for second in range(11)]
    with Picky() as server:
        store = influx(server)
        assert [line.line for line in store.write_lines(lines(*texts))] == [3, 4, 9]
        assert len(values(server)) == 8
        store.close()


def test_lines_around_a_refused_one_are_stored_though_the_server_stored_none(server: StandIn, store: LineStore) -> None:
    body = {"error": "parsing failed for write_lp endpoint", "data": {"error_message": "no", "line_number": 2}}
    server.fail(Status(400, json.dumps(body)))
    assert store.write_lines(lines(point(1), point(2), point(3))) == [RefusedLine(1, "no")]
    assert [stamp for _, stamp in server.points("telemetry")] == [1_000_000_000, 3_000_000_000]


def test_a_batch_over_the_servers_bound_is_cut() -> None:
    fields = ",".join(f"DCGM_FI_DEV_A_METRIC_OF_SOME_LENGTH_{number:03d}=12345678.5" for number in range(400))
    batch = lines(*(point(second, fields=fields) for second in range(600)))
    assert batch.nbytes > 10 << 20
    with StandIn(counting=True) as server:
        store = influx(server)
        assert store.write_lines(batch) == []
        assert (server.lines_counted, len(server.writes)) == (600, 2)
        store.close()


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Status(500), StoreUnavailableError),
        (Status(503, headers={"Retry-After": "7"}), StoreUnavailableError),
        (Status(429), StoreUnavailableError),
        (Status(401), StoreDeniedError),
        (Status(403), StoreDeniedError),
        (Status(404), StoreError),
        (Status(400, "missing query parameter 'db'"), StoreError),
        (Status(302, headers={"Location": "/elsewhere"}), StoreError),
        (Half(), StoreUnavailableError),
        (Dropped(stored=True), StoreUnavailableError),
        (Dropped(stored=False), StoreUnavailableError),
    ],
)
def test_after_any_error_the_same_lines_may_be_written_again(
    server: StandIn, store: LineStore, fault: object, error: type[StoreError]
) -> None:
    batch = lines(point(1), point(2))
    server.fail(fault)  # type: ignore[arg-type]
    with pytest.raises(error) as raised:
        store.write_lines(batch)
    assert SECRET not in str(raised.value)
    if isinstance(fault, Status) and fault.headers.get("Retry-After"):
        assert raised.value.retry_after == 7
    assert store.write_lines(batch) == []
    assert values(server) == [1.0, 1.0]


def test_a_half_answer_about_bad_lines_is_no_answer(server: StandIn, store: LineStore) -> None:
    server.databases.write("telemetry", "gpu odd=1i 1", "ns", accept_partial=True)
    batch = lines(point(1), point(2, fields="odd=1"))
    server.fail(Half())
    with pytest.raises(StoreUnavailableError):
        store.write_lines(batch)
    assert [line.line for line in store.write_lines(batch)] == [1]


def test_a_server_that_is_away_is_told_with_its_address(server: StandIn, store: LineStore) -> None:
    with server.away():
        with pytest.raises(StoreUnavailableError, match=f"influxdb://{server.address}/telemetry does not answer"):
            store.write_lines(lines(point(1)))
        with pytest.raises(StoreUnavailableError):
            store.gpus()
    store.write_lines(lines(point(1)))
    assert values(server) == [1.0]


def test_a_closed_store_says_so(store: LineStore) -> None:
    store.close()
    with pytest.raises(StoreClosedError):
        store.write_lines(lines(point(1)))


# The start


def test_the_database_is_made(server: StandIn, store: LineStore) -> None:
    store.prepare()
    assert not server.databases.create("telemetry")
    store.prepare()


def test_a_token_that_may_not_make_databases_may_write_to_one_that_is_there() -> None:
    with StandIn(token=SECRET, may_create=False) as server:
        store = influx(server)
        store.prepare()
        store.write_lines(lines(point(1)))
        store.close()


@pytest.mark.parametrize("token", ["", "apiv3_wrong"])
def test_a_wrong_token_is_told_with_the_remedy_and_without_the_token(server: StandIn, token: str) -> None:
    store = influx(server, token=token)
    with pytest.raises(StoreDeniedError, match="INFLUXDB_TOKEN") as raised:
        store.prepare()
    assert "apiv3_wrong" not in str(raised.value)
    with pytest.raises(StoreDeniedError):
        store.gpus()
    store.close()


def test_no_right_to_write_is_told() -> None:
    with StandIn(token=SECRET, may_write=False) as server:
        store = influx(server)
        with pytest.raises(StoreDeniedError, match="no right to write"):
            store.prepare()
        store.close()


def test_a_name_that_no_database_can_have_is_told(server: StandIn) -> None:
    store = influx(server, database="%2Dx y")
    with pytest.raises(StoreUrlError, match="name another"):
        store.prepare()
    store.close()


def test_another_server_than_influxdb_3_is_told(server: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    for answer, told in (((404, b"", {}), "answers nothing"), ((204, b"", {"X-Influxdb-Version": "v2.7.6"}), "2.7.6")):
        monkeypatch.setattr(server, "_route", lambda _, answer=answer: _answer(*answer))
        store = influx(server)
        with pytest.raises(StoreForeignError, match=told):
            store.prepare()
        store.close()


def _answer(status: int, body: bytes, headers: dict[str, str]) -> object:
    from tests.influxdb3.server import Answer

    return Answer(status, body, headers)


def test_nobody_at_the_address_is_told_as_away(server: StandIn, store: LineStore) -> None:
    with server.away(), pytest.raises(StoreUnavailableError, match="see that it runs"):
        store.prepare()


def test_the_token_is_in_no_log(server: StandIn, store: LineStore, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)  # below it the client logs what servers say; services mask secrets in all logs
    store.prepare()
    server.fail(Status(500, f"the token {SECRET} is odd"))
    with pytest.raises(StoreUnavailableError) as raised:
        store.write_lines(lines(point(1)))
    assert "********" in str(raised.value)
    store.gpus()
    assert SECRET not in caplog.text + str(raised.value)


# Questions


def test_a_store_without_database_or_table_reads_as_empty(server: StandIn, store: LineStore) -> None:
    for _ in range(2):
        assert store.gpus() == []
        assert store.metrics() == []
        assert "uuid" in store.tags()
        assert list(store.telemetry("GPU-0")) == []
        assert store.summary().samples == 0
        store.prepare()


def test_gpus_are_listed_with_their_newest_tags(server: StandIn, store: LineStore) -> None:
    store.write_lines(lines(point(1), point(2, tags=",pod=p1"), point(1, gpu=9), "gpu odd=1 5000000000"))
    first, second = store.gpus()
    assert (first.uuid, first.hostname, first.device_id, first.pod) == ("GPU-0", "h0", "nvidia0", "p1")
    assert (first.last_seen_ns, second.uuid) == (2_000_000_000, "GPU-9")
    store.write_lines(lines(point(3, tags=",namespace=n")))
    assert (store.gpus()[0].pod, store.gpus()[0].namespace) == ("", "n")
    assert [(host.hostname, host.gpu_count) for host in store.hosts()] == [("h0", 1), ("h1", 1)]
    assert [(namespace.namespace, namespace.gpu_count) for namespace in store.namespaces()] == [("n", 1)]
    assert store.metrics() == ["odd", "util"]


def test_the_list_of_gpus_is_not_made_anew_from_all_that_is_stored(server: StandIn, store: LineStore) -> None:
    store.write_lines(lines(point(1), point(100_000)))
    store.gpus()
    store.gpus()
    whole, part = [sql for sql, _ in server.queries if "GROUP BY" in sql]
    assert "time >=" not in whole
    assert "time >=" in part


def test_telemetry_is_newest_first_or_in_a_range_oldest_first(server: StandIn, store: LineStore) -> None:
    store.write_lines(lines(*(point(second, fields=f"util={second},temp=1") for second in range(5)), point(9, gpu=1)))
    newest = list(store.telemetry("GPU-0", metrics=["util"], limit=2))
    assert [(sample.value, sample.time_ns) for sample in newest] == [(4.0, 4_000_000_000), (3.0, 3_000_000_000)]
    assert (newest[0].uuid, newest[0].hostname, newest[0].labels_raw) == (
        "GPU-0",
        "h0",
        'Hostname="h0",UUID="GPU-0",__name__="util",device="nvidia0"',
    )
    ranged = store.telemetry("nvidia0", start_ns=1_000_000_000, end_ns=3_000_000_000, hostname="h0")
    assert [(sample.metric, sample.value) for sample in ranged] == [
        ("temp", 1.0),
        ("util", 1.0),
        ("temp", 1.0),
        ("util", 2.0),
    ]
    assert list(store.telemetry("GPU-0", metrics=["nope"])) == []
    assert list(store.telemetry("GPU-0", limit=0)) == []


def test_what_a_caller_gives_is_bound_and_never_part_of_a_query(server: StandIn, store: LineStore) -> None:
    store.write_lines(lines(point(1)))
    evil = "x' OR 'a'='a"
    assert list(store.telemetry(evil, hostname=evil)) == []
    assert all(evil not in sql for sql, _ in server.queries)
    assert any(evil in parameters.values() for _, parameters in server.queries)


def test_a_summary_counts_samples_gpus_and_hosts(server: StandIn, store: LineStore) -> None:
    store.write_lines(lines(point(1, fields="util=1,temp=2"), point(2), point(3, gpu=9)))
    assert (store.summary().samples, store.summary().gpus, store.summary().hosts) == (4, 2, 2)
    assert store.summary(start_ns=2_000_000_000, end_ns=3_000_000_000).samples == 1


def test_names_that_need_quotes_are_asked_for_and_told(server: StandIn, store: LineStore) -> None:
    store.write_lines(lines('gpu,uuid=u,odd"\\ tag=v "te\\ mp=1,UPPER=2 1'))
    assert store.metrics() == ['"te mp', "UPPER"]
    samples = list(store.telemetry("u"))
    assert [(sample.metric, sample.value) for sample in samples] == [('"te mp', 1.0), ("UPPER", 2.0)]


DAY = 86_400


def test_last_values_are_those_of_the_day_before_the_newest_point(server: StandIn, store: LineStore) -> None:
    store.write_lines(
        lines(
            point(1, gpu=2, fields="util=1"),
            point(2 * DAY - 1, gpu=1, fields="util=2,temp=20"),
            point(2 * DAY, gpu=1, fields="util=3", tags=",pod=p"),
            point(3 * DAY - 2, gpu=0, fields="util=4"),
        )
    )
    assert [gpu.uuid for gpu in store.gpus()] == ["GPU-0", "GPU-1", "GPU-2"]
    assert latest(store) == {"GPU-0": (4.0, None), "GPU-1": (3.0, 20.0), "GPU-2": (None, None)}
    assert store.latest(filters=Filters(pods=["p"]))["uuid"].to_pylist() == ["GPU-1"]
    assert latest(influx(server, "?gzip=true")) == latest(store)


def test_last_values_are_kept_up_to_date_by_what_came_since(server: StandIn, store: LineStore) -> None:
    store.write_lines(lines(point(DAY, fields="util=1,temp=20")))
    assert latest(store) == {"GPU-0": (1.0, 20.0)}
    store.write_lines(lines(point(DAY + 10, fields="util=2"), point(DAY + 5, fields="util=9,temp=21")))
    server.queries.clear()
    assert latest(store) == {"GPU-0": (2.0, 21.0)}
    bounds = [parameters["p0"] for sql, parameters in server.queries if "GROUP BY" in sql]
    assert bounds == [(DAY - 3600) * 10**9] * 2


def test_a_clock_far_ahead_hides_no_later_points(store: LineStore) -> None:
    now = time.time_ns() // 10**9
    store.write_lines(lines(point(now + 10 * DAY, gpu=9, fields="util=9"), point(now, fields="util=1")))
    assert latest(store) == {"GPU-0": (1.0, None), "GPU-9": (9.0, None)}
    store.write_lines(lines(point(now + 1, fields="util=2"), point(now + 1, gpu=3, fields="util=3")))
    assert latest(store) == {"GPU-0": (2.0, None), "GPU-3": (3.0, None), "GPU-9": (9.0, None)}


def latest(store: LineStore) -> dict[str, tuple[float | None, ...]]:
    """Return the last values of util and temp of each GPU."""
    table = store.latest()
    pairs = [
        [None if cell is None else cell["value"] for cell in table[name].to_pylist()]
        if name in table.column_names
        else [None] * table.num_rows
        for name in ("util", "temp")
    ]
    return dict(zip(table["uuid"].to_pylist(), zip(*pairs, strict=True), strict=True))


def test_every_question_is_answered_though_the_server_opens_few_files(server: StandIn, store: LineStore) -> None:
    server.databases.file_limit = 20
    hours = range(0, 100 * 24, 5)
    store.write_lines(lines(*(point(hour * 3600, gpu=hour % 2, fields=f"util={hour}") for hour in hours)))
    assert [gpu.last_seen_ns // 10**9 // 3600 for gpu in store.gpus()] == [hours[-2], hours[-1]]
    assert latest(store) == {"GPU-0": (float(hours[-2]), None), "GPU-1": (float(hours[-1]), None)}
    assert store.summary().samples == len(hours)
    newest = store.telemetry("GPU-1", limit=3)
    assert [sample.value for sample in newest] == [float(hours[-1] - 10 * back) for back in range(3)]
    assert len(list(store.telemetry("GPU-0", start_ns=0, limit=10_000))) == len(hours) // 2
    whole = store.series(SeriesQuery()).read_all()
    assert whole["util"].to_pylist() == [float(hour) for hour in hours]
    days = store.series(SeriesQuery(window_ns=DAY * 10**9, aggregate="max", group_by="none", descending=True, limit=40))
    expected = [float(max(hour for hour in hours if hour // 24 == day)) for day in range(99, 59, -1)]
    assert days.read_all()["util"].to_pylist() == expected
    with pytest.raises(StoreQueryError, match="shorter range of time"):
        store.sql("SELECT count(*) FROM gpu")
    with pytest.raises(StoreQueryError, match="shorter range of time"):
        store.series(SeriesQuery(window_ns=30 * DAY * 10**9)).read_all()


def test_integers_of_other_programs_are_numbers_too(server: StandIn, store: LineStore) -> None:
    text = f"gpu,uuid=a odd={(1 << 53) + 1}i 1000\ngpu,uuid=a odd=3i,util=1 2000"
    server.databases.write("telemetry", text, "ns", accept_partial=True)
    assert store.series(SeriesQuery(metrics=["odd"])).read_all()["odd"].to_pylist() == [float(1 << 53), 3.0]
    assert store.latest(["odd"])["odd"].to_pylist()[0]["value"] == 3.0
    assert [sample.value for sample in store.telemetry("a", metrics=["odd"], limit=1)] == [3.0]


def test_a_series_that_breaks_off_is_told_while_it_is_read(server: StandIn, store: LineStore) -> None:
    store.write_lines(lines(point(1), point(10 * DAY)))
    rows = store.series(SeriesQuery())
    assert rows.read_next_batch().num_rows == 1
    with server.away(), pytest.raises(StoreUnavailableError):
        rows.read_all()


def test_one_answer_that_breaks_off_is_told_while_it_is_read(server: StandIn, store: LineStore) -> None:
    store.write_lines(lines(point(1)))
    with server.answering_without_end():
        rows = store.sql("SELECT time FROM gpu")
        assert rows.read_next_batch().num_rows == 1
        with server.away(), pytest.raises(StoreUnavailableError):
            rows.read_all()


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("", "it is empty"),
        (" -- nothing\n ;", "it is empty"),
        ("DROP TABLE gpu", "it begins with 'DROP'"),
        ("/* SELECT */ delete FROM gpu", "it begins with 'delete'"),
        ("SELECT ';' ; DROP TABLE gpu", "several statements"),
        ("/* /* */ SELECT 1 */ DROP TABLE gpu", "a comment within a comment"),
        ("WITH x AS (SELECT 1) INSERT INTO gpu SELECT * FROM x", "."),
        ("EXPLAIN ANALYZE INSERT INTO gpu SELECT * FROM gpu", "."),
        ("SELECT nothing FROM gpu", "nothing"),
    ],
)
def test_sql_only_reads(store: LineStore, statement: str, told: str) -> None:
    store.write_lines(lines(point(1)))
    with pytest.raises(StoreQueryError, match=told):
        store.sql(statement).read_all()
    assert store.sql(' (SELECT util AS "a;b" FROM gpu) -- ;\n;').read_all().to_pydict() == {"a;b": [1.0]}


def test_sql_of_a_database_that_is_not_there_yet_is_told(store: LineStore) -> None:
    with pytest.raises(StoreQueryError, match="nothing is stored"):
        store.sql("SELECT 1")


def test_the_command_line_reads_it_with_the_token(server: StandIn, store: LineStore, tmp_path: Path) -> None:
    store.write_lines(lines(point(1), point(2, fields="util=7")))
    url, token = f"influxdb://{server.address}/telemetry", {"INFLUXDB_TOKEN": SECRET}
    asked = telemetry("query", "--store", url, "--json", "SELECT max(util) AS most FROM gpu", **token)
    assert json.loads(asked.stdout) == {"most": 7.0}, asked.stderr
    file = tmp_path / "util.csv"
    exported = telemetry("export", "--store", url, str(file), **token)
    assert exported.returncode == 0, exported.stderr
    assert [row["util"] for row in csv.DictReader(file.read_text().splitlines())] == ["1", "7"]
    refused = telemetry("query", "--store", url, "SELECT 1")
    assert refused.returncode != 0
    assert "INFLUXDB_TOKEN" in refused.stderr
    assert "Traceback" not in refused.stderr


def telemetry(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from telemetry_services.cli import main; main()", *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **variables},
    )


# The URL


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("influxdb://host:8181", "no database"),
        ("influxdb:///telemetry", "no host"),
        ("influxdb://host/a/b", "no database"),
        ("influxdb://host:x/telemetry", "not a URL"),
        ("influxdb://host/telemetry?sync=no", "no option 'sync'"),
        ("influxdb://host/telemetry?no_sync=1", "expected true or false"),
        ("influxdb://user:hush@host/telemetry", "INFLUXDB_TOKEN"),
    ],
)
def test_a_malformed_url_is_told(url: str, told: str) -> None:
    with pytest.raises(StoreUrlError, match=told) as raised:
        open_store(url)
    assert "hush" not in str(raised.value)


def test_requests_are_compressed_unless_the_server_is_on_this_machine() -> None:
    from telemetry_services.store.influx_url import InfluxUrl

    compressed = {
        host: InfluxUrl.parse(f"influxdbs://{host}/t").gzip for host in ("localhost", "127.0.0.1", "[::1]", "influx")
    }
    assert compressed == {"localhost": False, "127.0.0.1": False, "[::1]": False, "influx": True}
    assert InfluxUrl.parse("influxdbs://[::2]:443/t").address == "https://[::2]:443"
