"""Every setting: where it may come from, which source wins, and what a wrong one is answered with."""

import traceback
from pathlib import Path
from typing import Annotated

import pytest
from pydantic import BeforeValidator, SecretStr
from pydantic_settings import NoDecode

from telemetry_services.config import (
    ApiSettings,
    BrokerSettings,
    CollectorSettings,
    ProxySettings,
    ServiceSettings,
    StreamerSettings,
    UpSettings,
    describe,
    load,
    resolve,
)
from telemetry_services.config.loading import NOT_YET, SERVICES
from telemetry_services.config.settings import setting
from telemetry_services.errors import ConfigError

pytestmark = pytest.mark.usefixtures("clean_environment")


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
        (BrokerSettings, "BROKER_INDEX", "2", "broker_name", "msg-queue-2"),
        (BrokerSettings, "HOSTNAME", "msg-queue-11", "index", 11),
        (BrokerSettings, "HOSTNAME", "rack-07", "index", 0),
        (BrokerSettings, "HOSTNAME", "msg-queue-6bd9f-84726", "index", 0),
        (BrokerSettings, "HOSTNAME", "", "index", 0),
        (BrokerSettings, "BROKER_SERVICE", "q.telemetry.svc", "broker_name", "q-0"),
        (ProxySettings, "VIRTUAL_NODES", "300", "virtual_nodes", 300),
        (ProxySettings, "BROKERS", "a:1, b=[::1]:2,", "brokers", (("a:1", "a:1"), ("b", "[::1]:2"))),
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
    file.write_text(
        'queue_size = 5\nmsg_queue_group = "g"\nbroker_url = "grpc://b:1"\nport = 1\n'
        "[collector]\nport = 2\n[up]\nport = 3\n"
    )
    flags = {"telemetry_config": str(file)}
    broker, collector, up = load(BrokerSettings, flags), load(CollectorSettings, flags), load(UpSettings, flags)
    assert (broker.queue_size, broker.port) == (5, 1)
    assert (collector.msg_queue_group, collector.broker, collector.port) == ("g", "grpc://b:1", 2)
    assert (up.queue_size, up.msg_queue_group, up.port) == (5, "g", 3)


def test_what_up_would_have_to_ignore_is_refused_in_its_own_table(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text('[up]\nbroker_url = "grpc://b:1"\n')
    load(BrokerSettings, {"telemetry_config": str(file)})
    with pytest.raises(ConfigError, match=r"broker_url of \[up\] in .*brings its own broker") as caught:
        load(UpSettings, {"telemetry_config": str(file)})
    assert caught.value.code == "config.unsupported"


def test_everything_that_is_wrong_is_told_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text('queue_sizes = 1\n[up]\ndurability = "disk"\n')
    monkeypatch.setenv("TELEMETRY_CONFIG", str(file))
    monkeypatch.setenv("BROKER_COUNT", "3")
    monkeypatch.setenv("API_KEY_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("PORT", "x")
    resolution = resolve(UpSettings, {"queue_size": "0"})
    for part in (
        "BROKER_COUNT",
        "API_KEY_FILE",
        "queue_sizes",
        "durability of [up]",
        "PORT is 'x'",
        "--queue-size is '0'",
    ):
        assert sum(part in problem.message for problem in resolution.problems) == 1, part
    assert len(resolution.problems) == 6
    with pytest.raises(ConfigError) as caught:
        resolution.checked()
    assert caught.value.message == "; ".join(problem.message for problem in resolution.problems)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("queue_sizes = 1\n", ["queue_sizes", "no such setting", "queue_size"]),
        ("csv = 1\n", ["csv in", "no such setting", "did you mean csv_path?"]),
        ("zzz = 1\n", ["zzz in", "no such setting", "`telemetry SERVICE --help`"]),
        ("telemetry_config = 'x'\n", ["telemetry_config in", "no such setting"]),
        ("[brokr]\nqueue_size = 1\n", ["[brokr] in", "no such table", "did you mean [broker]?"]),
        ("[zzz]\nqueue_size = 1\n", ["[zzz] in", "no such table", "[collector]"]),
        ("[queue_size]\nis = 1\n", ["queue_size in", "is a table", "queue_size = value"]),
        ("broker = 1\n", ["broker in", "is no table", "expected [broker]"]),
        ("[[broker]]\nqueue_size = 1\n", ["broker in", "is no table", "expected [broker]"]),
        ("[broker]\nqueue_sizes = 1\n", ["queue_sizes of [broker] in", "no such setting", "did you mean queue_size?"]),
        ("[broker.port]\nis = 1\n", ["port of [broker] in", "is a table", "port = value"]),
        ("[broker]\nzzz = 1\n", ["zzz of [broker] in", "no such setting", "`telemetry broker --help`"]),
        ("[broker]\ncsv_path = 'x'\n", ["csv_path of [broker] in", "a setting of streamer, up"]),
        ("[collector]\nqueue_size = 1\n", ["queue_size of [collector] in", "a setting of broker, up"]),
        ("[streamer]\ninfluxdb_url = 'x'\n", ["influxdb_url of [streamer] in", "no such setting"]),
        ("queue_size = \n", ["not TOML"]),
        ('queue_size = "many"\n', ["queue_size in", "'many'", "whole number from 1"]),
        ("[broker]\nqueue_size = 0\n", ["queue_size of [broker] in", "is 0", "whole number from 1"]),
        ("[topics]\nevents = 5000\n", ["topics in", "5000 is not a partition count"]),
        ("[topics]\nevents = true\n", ["topics in", "True is not a partition count"]),
        ("[topics]\n-bad = 1\n", ["topics in", "'-bad' is not a topic name"]),
        ("broker_count = 1001\n", ["broker_count in", "is 1001", "from 1 to 1,000"]),
        ("#" + "x" * (1 << 20), ["larger than 1 MiB"]),
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
        (BrokerSettings, "BROKER_INDEX", "1000", ["from 0 to 999"]),
        (BrokerSettings, "BROKER_SERVICE", "msg queue", ["'msg queue'", "not a DNS name", "msg-queue"]),
        (ProxySettings, "BROKER_COUNT", "0", ["'0'", "from 1 to 1,000", "default, 2"]),
        (ProxySettings, "VIRTUAL_NODES", "none", ["'none'", "from 1 to 10,000"]),
        (ProxySettings, "BROKERS", "a", ["'a' has no address such as host:9090", "name=host:port"]),
        (ProxySettings, "BROKERS", "a:70000", ["'a:70000' has no address"]),
        (ProxySettings, "BROKERS", "a b:1", ["'a b:1' has no address"]),
        (ProxySettings, "BROKERS", "grpc://a:1", ["'grpc://a:1' has no address"]),
        (ProxySettings, "BROKERS", "x y=a:1", ["'x y=a:1' has no good name"]),
        (ProxySettings, "BROKERS", "a:1,b:1,a:1", ["'a:1' is listed twice"]),
        (ProxySettings, "BROKERS", "x=a:1,x=b:1", ["'x' is listed twice"]),
        (ProxySettings, "BROKERS", "x=a:1,y=a:1", ["'a:1' is the address of two brokers"]),
        (ProxySettings, "BROKERS", ",".join(f"b{n}:1" for n in range(1001)), ["1,001 brokers are listed"]),
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


def test_only_line_ends_are_left_out_of_a_secret_in_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b" open\nsesame \r\n\n")
    monkeypatch.setenv("API_KEY_FILE", str(tmp_path / "key"))
    key = load(ApiSettings).api_key
    assert key is not None
    assert key.get_secret_value() == " open\nsesame "


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "No such file"),
        (b"", "is empty"),
        (b" \r\n\n", "is empty"),
        (b"sesam" * (64 << 10), "larger than 64 KiB"),
        (b"\xffsesam", "not text in UTF-8"),
    ],
)
def test_a_secret_file_that_gives_nothing_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes | None, reason: str
) -> None:
    path = tmp_path / "key"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setenv("API_KEY_FILE", str(path))
    with pytest.raises(ConfigError, match=f"API_KEY_FILE={path}: .*{reason}") as caught:
        load(ApiSettings)
    assert "sesam" not in "".join(traceback.format_exception(caught.value))


def test_a_folder_in_place_of_a_secret_file_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("API_KEY_FILE", str(tmp_path))
    with pytest.raises(ConfigError, match=f"API_KEY_FILE={tmp_path}: .*Is a directory"):
        load(ApiSettings)


def test_a_secret_file_that_cannot_be_read_is_not_followed_by_what_lacks_the_secret(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("API_KEY_FILE", str(tmp_path / "none"))
    (problem,) = resolve(ApiSettings, {"host": "0.0.0.0"}).problems
    assert "API_KEY_FILE" in problem.message


@pytest.mark.parametrize(("mode", "is_open"), [(0o644, True), (0o604, True), (0o640, False), (0o400, False)])
def test_a_secret_file_that_everybody_can_read_is_used_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mode: int, is_open: bool
) -> None:
    path = tmp_path / "key"
    path.write_text("open sesame")
    path.chmod(mode)
    monkeypatch.setenv("API_KEY_FILE", str(path))
    resolution = resolve(ApiSettings)
    assert resolution.checked().api_key is not None
    assert any(f"mode {mode:04o}" in warning for warning in resolution.warnings) == is_open
    assert len(resolution.warnings) == is_open


def test_a_secret_file_is_not_opened_where_the_secret_itself_is_given(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Secrets(ServiceSettings):
        sesame: SecretStr | None = setting(None, "A secret without a setting for its file.")

    monkeypatch.setenv("SESAME_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("SESAME", "k")
    resolution = resolve(Secrets)
    assert resolution.problems == ()
    assert "SESAME_FILE is not read: SESAME is given too" in resolution.warnings[0]


def test_a_list_of_secrets_comes_from_a_file_as_one_secret_does(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def split(value: object) -> object:
        return tuple(value.split()) if isinstance(value, str) else value

    class Tokens(ServiceSettings):
        tokens: Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(split)] = setting((), "Tokens.")

    (tmp_path / "tokens").write_text("sesam1\nsesam2\n")
    monkeypatch.setenv("TOKENS_FILE", str(tmp_path / "tokens"))
    resolution = resolve(Tokens)
    assert [token.get_secret_value() for token in resolution.checked().tokens] == ["sesam1", "sesam2"]
    shown = {effective.setting.name: effective.value for effective in resolution.effective()}
    assert shown["tokens"] == "********"
    monkeypatch.delenv("TOKENS_FILE")
    assert {effective.setting.name: effective.value for effective in resolve(Tokens).effective()}["tokens"] is None


def test_a_wrong_secret_is_refused_without_being_shown(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text("api_key = 123456789\n")
    with pytest.raises(ConfigError, match=r"api_key in .* is a secret: expected a text") as caught:
        load(ApiSettings, {"telemetry_config": str(file)})
    assert "123456789" not in "".join(traceback.format_exception(caught.value))


def test_a_wrong_url_is_refused_without_its_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROKER_URL", "amqp://user:sesam1@host/vhost?token=sesam2")
    with pytest.raises(ConfigError, match="BROKER_URL is 'amqp://") as caught:
        load(StreamerSettings)
    assert "sesam" not in str(caught.value)
    assert "@host/vhost" in str(caught.value)


@pytest.mark.parametrize("model", [BrokerSettings, ProxySettings, CollectorSettings, ApiSettings, UpSettings])
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


def test_the_older_systems_proxy_settings_have_its_defaults() -> None:
    proxy, broker = load(ProxySettings), load(BrokerSettings)
    assert (proxy.broker_service, proxy.broker_count, proxy.virtual_nodes, proxy.max_partitions) == (
        "msg-queue",
        2,
        150,
        2,
    )
    assert (proxy.brokers, proxy.brokers_file, proxy.broker_grpc_port) == ((), None, 9090)
    assert (broker.broker_service, broker.broker_count, broker.broker_index) == ("msg-queue", 1, None)


def test_two_lists_of_brokers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="BROKERS and BROKERS_FILE are both set"):
        load(ProxySettings, {"brokers": "a:1", "brokers_file": str(tmp_path)})


def test_a_list_of_brokers_is_shown_as_it_can_be_given() -> None:
    resolution = resolve(ProxySettings, {"brokers": "a:1,x=b:1"})
    shown = {effective.setting.name: effective.value for effective in resolution.effective()}
    assert shown["brokers"] == "a:1,x=b:1"


def test_a_list_of_brokers_in_a_settings_file_may_be_a_list(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text('brokers = ["a:1", "x=b:1"]\n')
    assert load(ProxySettings, {"telemetry_config": str(file)}).brokers == (("a:1", "a:1"), ("x", "b:1"))


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"up_proxies": "2"}, "--proxies is set, and without --brokers"),
        ({"up_brokers": "2", "listen": "unix:x.sock"}, "LISTEN is set"),
        ({"up_brokers": "2", "tls_cert_file": "c", "tls_key_file": "k"}, "TLS_CERT_FILE is set"),
    ],
)
def test_up_refuses_what_it_does_not_have_with_brokers_of_their_own(flags: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load(UpSettings, flags)


@pytest.mark.parametrize("other", ["csv_loop", "no_csv"])
def test_once_is_refused_with_what_never_ends(other: str) -> None:
    with pytest.raises(ConfigError, match="--once"):
        load(UpSettings, {"once": True, other: True})


@pytest.mark.parametrize("model", [BrokerSettings, ProxySettings, CollectorSettings])
def test_one_port_for_http_and_grpc_is_refused(monkeypatch: pytest.MonkeyPatch, model: type[ServiceSettings]) -> None:
    monkeypatch.setenv("PORT", "9090")
    with pytest.raises(ConfigError, match="PORT and GRPC_PORT are both 9090"):
        load(model)
    assert load(model, {"grpc_port": "9091"}).port == 9090
    load(model, {"port": "0", "grpc_port": "0"})


def test_one_port_is_fine_where_the_other_one_is_not_opened_or_moves() -> None:
    load(UpSettings, {"port": "9090"})
    load(BrokerSettings, {"port": "9090", "listen": "unix:b.sock"})
    for model, more in ((UpSettings, {}), (BrokerSettings, {"listen": "unix:b.sock"})):
        with pytest.raises(ConfigError, match="PORT and GRPC_PORT"):
            load(model, {"port": "9090", "grpc_port": "9090", **more})


def test_no_setting_can_be_taken_for_the_table_of_a_service() -> None:
    assert {service.service for service in SERVICES}.isdisjoint(
        name for model in SERVICES for name in model.model_fields
    )


@pytest.mark.parametrize("service", SERVICES)
def test_every_setting_may_be_left_out(service: type[ServiceSettings]) -> None:
    assert [name for name, info in service.model_fields.items() if info.is_required()] == []


@pytest.mark.parametrize("service", SERVICES)
def test_every_setting_is_described(service: type[ServiceSettings]) -> None:
    for described in describe(service):
        assert described.description.endswith("."), described.name
        assert described.expected, described.name
        assert described.variable == described.name.upper()
    flags = [described.flag for described in describe(service)]
    assert len(set(flags)) == len(flags)
