"""Every setting: where it may come from, which source wins, and what a wrong one is answered with."""

from pathlib import Path

import pytest

from telemetry_services.config import (
    ApiSettings,
    BrokerSettings,
    CollectorSettings,
    ServiceSettings,
    StreamerSettings,
    UpSettings,
    describe,
    load,
)
from telemetry_services.config.loading import NOT_YET, SERVICES
from telemetry_services.errors import ConfigError


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for service in SERVICES:
        for setting in describe(service):
            monkeypatch.delenv(setting.variable, raising=False)
            monkeypatch.delenv(f"{setting.variable}_FILE", raising=False)
    for variable in NOT_YET:
        monkeypatch.delenv(variable, raising=False)


def test_the_seeds_names_have_the_seeds_defaults() -> None:
    broker, streamer, collector = load(BrokerSettings), load(StreamerSettings), load(CollectorSettings)
    api, up = load(ApiSettings), load(UpSettings)
    assert (broker.queue_size, broker.visibility_timeout, broker.partitions_per_topic) == (2000, 30.0, 4)
    assert (broker.host, broker.port, broker.grpc_port, broker.data_dir) == ("127.0.0.1", 8080, 9090, Path("data"))
    assert broker.topics == {}
    assert streamer.msg_queue_addr == "http://msg-queue-proxy:8080"
    assert streamer.broker == "grpc://msg-queue-proxy:9090"
    assert streamer.use_http_queue is True
    assert (streamer.msg_queue_topic, streamer.msg_queue_producer_name) == ("telemetry", "streamer")
    assert (streamer.csv_path, streamer.csv_delay_ms) == (None, 1000)
    assert (collector.msg_queue_group, collector.msg_queue_consumer_name) == ("telemetry_group", "collector")
    assert api.api_key is None
    assert api.store_url == f"delta://{Path('data/store').absolute()}"
    assert up.csv_delay_ms == 0


@pytest.mark.parametrize(
    ("model", "variable", "text", "field", "value"),
    [
        (BrokerSettings, "QUEUE_SIZE", "5000", "queue_size", 5000),
        (BrokerSettings, "VISIBILITY_TIMEOUT", "1m30s", "visibility_timeout", 90.0),
        (BrokerSettings, "PARTITIONS_PER_TOPIC", "7", "partitions_per_topic", 7),
        (BrokerSettings, "TOPICS", "events:8, orders:4,plain", "topics", {"events": 8, "orders": 4, "plain": None}),
        (BrokerSettings, "PORT", "0", "port", 0),
        (BrokerSettings, "GRPC_PORT", "19090", "grpc_port", 19090),
        (BrokerSettings, "HOST", "::1", "host", "::1"),
        (BrokerSettings, "DATA_DIR", "/srv/data", "data_dir", Path("/srv/data")),
        (StreamerSettings, "BROKER_URL", "grpc://b:1", "broker", "grpc://b:1"),
        (StreamerSettings, "MSG_QUEUE_ADDR", "http://proxy:81", "broker", "grpc://proxy:9090"),
        (StreamerSettings, "MSG_QUEUE_TOPIC", "t", "msg_queue_topic", "t"),
        (StreamerSettings, "MSG_QUEUE_PRODUCER_NAME", "s1", "msg_queue_producer_name", "s1"),
        (StreamerSettings, "USE_HTTP_QUEUE", "true", "use_http_queue", True),
        (StreamerSettings, "CSV_PATH", "/d.csv", "csv_path", Path("/d.csv")),
        (StreamerSettings, "CSV_DELAY_MS", "0", "csv_delay_ms", 0),
        (CollectorSettings, "MSG_QUEUE_GROUP", "g", "msg_queue_group", "g"),
        (CollectorSettings, "MSG_QUEUE_CONSUMER_NAME", "c1", "msg_queue_consumer_name", "c1"),
        (CollectorSettings, "STORE", "delta:///x", "store_url", "delta:///x"),
        (CollectorSettings, "COLLECT_MAX_AGE", "250ms", "collect_max_age", 0.25),
    ],
)
def test_a_variable_sets_its_field(
    monkeypatch: pytest.MonkeyPatch,
    model: type[ServiceSettings],
    variable: str,
    text: str,
    field: str,
    value: object,
) -> None:
    monkeypatch.setenv(variable, text)
    assert getattr(load(model), field) == value


def test_a_flag_wins_over_the_variable_and_that_over_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text('queue_size = 1\nport = 1\nvisibility_timeout = "2s"\n[topics]\na = 3\n')
    monkeypatch.setenv("TELEMETRY_CONFIG", str(file))
    monkeypatch.setenv("PORT", "2")
    monkeypatch.setenv("QUEUE_SIZE", "2")
    settings = load(BrokerSettings, {"queue_size": "3"})
    assert (settings.queue_size, settings.port, settings.visibility_timeout) == (3, 2, 2.0)
    assert settings.topics == {"a": 3}
    assert settings.grpc_port == 9090


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUEUE_SIZE", "")
    assert load(BrokerSettings).queue_size == 2000


def test_one_file_serves_all_services(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text('queue_size = 5\nmsg_queue_group = "g"\n')
    assert load(BrokerSettings, {"telemetry_config": str(file)}).queue_size == 5
    assert load(CollectorSettings, {"telemetry_config": str(file)}).msg_queue_group == "g"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("queue_sizes = 1\n", ["queue_sizes", "no such setting", "queue_size"]),
        ("[broker]\nqueue_size = 1\n", ["broker", "no such setting"]),
        ("queue_size = \n", ["not TOML"]),
        ('queue_size = "many"\n', ["queue_size in", "'many'", "whole number from 1"]),
    ],
)
def test_a_wrong_file_is_refused_with_the_place(tmp_path: Path, text: str, words: list[str]) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(BrokerSettings, {"telemetry_config": str(file)})
    for word in (*words, str(file)):
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("model", "variable", "text", "words"),
    [
        (BrokerSettings, "QUEUE_SIZE", "0", ["QUEUE_SIZE is '0'", "from 1 to 10,000,000", "2000"]),
        (BrokerSettings, "QUEUE_SIZE", "a lot", ["'a lot'", "whole number"]),
        (BrokerSettings, "VISIBILITY_TIMEOUT", "30", ["'30'", "a duration such as 30s"]),
        (BrokerSettings, "VISIBILITY_TIMEOUT", "13h", ["'13h'", "1ms to 12h"]),
        (BrokerSettings, "PARTITIONS_PER_TOPIC", "5000", ["from 1 to 4,096"]),
        (BrokerSettings, "TOPICS", "a:0", ["'a:0'", "events:8,orders:4"]),
        (BrokerSettings, "TOPICS", "a,a", ["listed twice"]),
        (BrokerSettings, "TOPICS", "-bad", ["not a topic name"]),
        (BrokerSettings, "DURABILITY", "disk", ["one of memory, os, fsync"]),
        (BrokerSettings, "PORT", "70000", ["from 0 to 65,535"]),
        (StreamerSettings, "CSV_DELAY_MS", "-1", ["from 0"]),
        (StreamerSettings, "BROKER_URL", "http://x", ["'http'", "grpc://host:9090"]),
        (StreamerSettings, "BROKER_URL", "nats://x", ["nats://", "not supported"]),
        (StreamerSettings, "MSG_QUEUE_ADDR", "proxy", ["'proxy'", "http://msg-queue-proxy:8080"]),
        (StreamerSettings, "MSG_QUEUE_TOPIC", "a b", ["'a b'", "1 to 200"]),
    ],
)
def test_a_wrong_value_is_refused_with_name_value_expectation_and_remedy(
    monkeypatch: pytest.MonkeyPatch, model: type[ServiceSettings], variable: str, text: str, words: list[str]
) -> None:
    monkeypatch.setenv(variable, text)
    with pytest.raises(ConfigError) as caught:
        load(model)
    assert caught.value.code == "config.invalid"
    for word in (variable, *words, "correct it"):
        assert word in str(caught.value)


@pytest.mark.parametrize("variable", sorted(NOT_YET))
def test_a_variable_of_a_feature_to_come_is_refused_where_it_belongs(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "grpc://x" if variable == "BROKER_URL" else "1")
    owner, _ = NOT_YET[variable]
    for service in SERVICES:
        if issubclass(service, owner):
            with pytest.raises(ConfigError) as caught:
                load(service)
            assert caught.value.code == "config.unsupported"
            assert variable in str(caught.value)
        else:
            load(service)


def test_redis_is_answered_with_its_successor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USE_HTTP_QUEUE", "false")
    with pytest.raises(ConfigError, match="BROKER_URL=nats://"):
        load(StreamerSettings)


def test_a_secret_may_come_from_a_file_and_is_never_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("open sesame\n")
    monkeypatch.setenv("API_KEY_FILE", str(tmp_path / "key"))
    settings = load(ApiSettings)
    assert settings.api_key is not None
    assert settings.api_key.get_secret_value() == "open sesame"
    assert "sesame" not in repr(settings)
    monkeypatch.setenv("API_KEY", "another")
    direct = load(ApiSettings).api_key
    assert direct is not None
    assert direct.get_secret_value() == "another"


@pytest.mark.parametrize("content", [None, ""])
def test_a_secret_file_that_gives_nothing_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str | None
) -> None:
    path = tmp_path / "key"
    if content is not None:
        path.write_text(content)
    monkeypatch.setenv("API_KEY_FILE", str(path))
    with pytest.raises(ConfigError, match=f"API_KEY_FILE={path}"):
        load(ApiSettings)


@pytest.mark.parametrize("model", [BrokerSettings, CollectorSettings, ApiSettings, UpSettings])
def test_an_open_address_needs_a_token_or_insecure(
    monkeypatch: pytest.MonkeyPatch, model: type[ServiceSettings]
) -> None:
    monkeypatch.setenv("HOST", "0.0.0.0")
    with pytest.raises(ConfigError, match="--insecure") as caught:
        load(model)
    assert caught.value.code == "config.insecure"
    assert load(model, {"insecure": True}).host == "0.0.0.0"


def test_an_open_api_is_fine_with_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOST", "0.0.0.0")
    monkeypatch.setenv("API_KEY", "k")
    assert load(ApiSettings).host == "0.0.0.0"


@pytest.mark.parametrize("other", ["csv_loop", "no_csv"])
def test_once_is_refused_with_what_never_ends(other: str) -> None:
    with pytest.raises(ConfigError, match="--once"):
        load(UpSettings, {"once": True, other: True})


@pytest.mark.parametrize("service", SERVICES)
def test_every_setting_is_described(service: type[ServiceSettings]) -> None:
    for setting in describe(service):
        assert setting.description.endswith("."), setting.name
        assert setting.expected, setting.name
        assert setting.variable == setting.name.upper()
    flags = [setting.flag for setting in describe(service)]
    assert len(set(flags)) == len(flags)
