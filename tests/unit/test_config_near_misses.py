"""Variables that seem to be meant for us are told; the many of others are not."""

import pytest

from telemetry_services.config import SERVICES, describe, unread_variables
from telemetry_services.config.loading import NOT_YET
from telemetry_services.config.near_misses import near_misses

SETTINGS = {setting.variable: setting for service in SERVICES for setting in describe(service)}.values()


def told(*names: str) -> list[str]:
    return near_misses(dict.fromkeys(names, "x"), SETTINGS, NOT_YET)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("VISIBILTY_TIMEOUT", "VISIBILITY_TIMEOUT"),
        ("VISIBILITYY_TIMEOUT", "VISIBILITY_TIMEOUT"),
        ("VISIBILITY_TIMOEUT", "VISIBILITY_TIMEOUT"),
        ("visibilty_timeout", "VISIBILITY_TIMEOUT"),
        ("QUEUE_SIZES", "QUEUE_SIZE"),
        ("QUEUE_SISE", "QUEUE_SIZE"),
        ("QUEUESIZE", "QUEUE_SIZE"),
        ("QUEUE-SIZE", "QUEUE_SIZE"),
        ("PARTITIONSPERTOPIC", "PARTITIONS_PER_TOPIC"),
        ("DATADIR", "DATA_DIR"),
        ("BROKER_ULR", "BROKER_URL"),
        ("APIKEY_FILE", "API_KEY_FILE"),
        ("BROKER_COUNTS", "BROKER_COUNT"),
    ],
)
def test_a_name_one_slip_away_is_told_with_what_may_be_meant(name: str, meant: str) -> None:
    assert told(name) == [f"{name} is set, and nothing reads it: did you mean {meant}?"]


@pytest.mark.parametrize("name", ["QUEUE_SIZE", "LOG_LEVEL"])
def test_a_file_for_what_is_no_secret_is_told(name: str) -> None:
    (sentence,) = told(f"{name}_FILE")
    assert sentence == f"{name}_FILE is set, and nothing reads it: only secrets are taken from files; set {name}"


def test_what_is_read_is_not_told() -> None:
    read = {name for setting in SETTINGS for name in (setting.variable, setting.file_variable) if name}
    assert told(*read, *NOT_YET, *(name.lower() for name in read)) == []


def test_what_an_environment_is_full_of_is_not_told() -> None:
    shell = "HOME HOSTNAME HOSTTYPE LANG LOGNAME LS_COLORS OLDPWD PATH PWD SHELL SHLVL TERM TZ USER XDG_DATA_DIRS _"
    usual = "POST PORTS HOSTS STORES STORAGE TOPIC APP_KEY API_KEYS API_KEY_ID HOST_FILE PORT_FILE KUBERNETES_PORT"
    peers = "INFLUX_TOKEN INFLUX_ORG INFLUX_HOST INFLUXDB_DB INFLUXDB_USER KAFKA_BROKER_ID GRPC_TRACE GRPC_VERBOSITY"
    services = ["BROKER", "COLLECTOR", "API", "API_SERVICE", "MSG_QUEUE", "MSG_QUEUE_PROXY", "STORE", "TELEMETRY"]
    links = ["SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_HTTP", "PORT", "PORT_8080_TCP", "PORT_8080_TCP_ADDR"]
    kubernetes = [f"{service}_{link}" for service in services for link in links]
    assert told(*shell.split(), *usual.split(), *peers.split(), *kubernetes) == []


def test_an_empty_variable_is_not_told() -> None:
    assert near_misses({"QUEUE_SIZES": ""}, SETTINGS, NOT_YET) == []


@pytest.mark.usefixtures("clean_environment")
def test_variables_of_the_command_itself_are_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    before = unread_variables()
    monkeypatch.setenv("TELEMETRY_DEBUG", "1")
    monkeypatch.setenv("INFLUXDB_TOKEN_FILE", "x")
    assert unread_variables() == before
    monkeypatch.setenv("QUEUE_SIZES", "1")
    assert len(unread_variables()) == len(before) + 1
