"""Makes the settings of a service from all their sources, or says in one sentence why that is not possible."""

import ipaddress
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import SecretStr, ValidationError

from telemetry_services.config.models import (
    ApiSettings,
    BrokerSettings,
    ClientSettings,
    CollectorSettings,
    ServiceSettings,
    StoreSettings,
    StreamerSettings,
    UpSettings,
)
from telemetry_services.config.settings import Setting, describe
from telemetry_services.config.sources import CONFIG_VARIABLE, read_toml
from telemetry_services.errors import ConfigError

S = TypeVar("S", bound=ServiceSettings)

SERVICES: Final = (BrokerSettings, StreamerSettings, CollectorSettings, ApiSettings, UpSettings)

_ONE_BROKER: Final = "this version runs one broker; unset it"
_NO_INFLUX: Final = "InfluxDB is not supported by this version; unset it and use STORE=delta:///path"

NOT_YET: Final[dict[str, tuple[type[ServiceSettings], str]]] = {
    "HTTP_ANONYMOUS": (
        BrokerSettings,
        "this version asks for no credentials on /produce, /consume and /ack; unset it",
    ),
    "SERVICE_TOKEN": (
        ServiceSettings,
        "this version has no service tokens; unset it and listen on the loopback",
    ),
    "BROKER_COUNT": (BrokerSettings, _ONE_BROKER),
    "BROKER_INDEX": (BrokerSettings, _ONE_BROKER),
    "BROKER_SERVICE": (BrokerSettings, _ONE_BROKER),
    "BROKER_URL": (UpSettings, "`telemetry up` brings its own broker; unset it, or start the services one by one"),
    "INFLUXDB_URL": (StoreSettings, _NO_INFLUX),
    "INFLUXDB_TOKEN": (StoreSettings, _NO_INFLUX),
    "INFLUXDB_ORG": (StoreSettings, _NO_INFLUX),
    "INFLUXDB_BUCKET": (StoreSettings, _NO_INFLUX),
}
"""Variables that a service would have to ignore, most of them of features to come: set, they are refused instead."""


def load(model: type[S], flags: Mapping[str, Any] | None = None) -> S:
    """Makes the settings of one service from flags, environment, files and defaults, in this order of precedence.

    Args:
        flags: what the command line gave, by field name; texts are read as in a variable.

    Raises:
        ConfigError: with the setting's name, its value, what was expected and what to do.
    """
    flags = {name: value for name, value in (flags or {}).items() if value is not None}
    _refuse_what_is_not_there_yet(model)
    toml = _check_toml(model, flags)
    try:
        settings = model(**flags)
    except ValidationError as err:
        raise ConfigError("; ".join(_sentence(model, flags, toml, dict(problem)) for problem in err.errors())) from err
    _check_combination(settings)
    return settings


def remarks(settings: ServiceSettings) -> list[str]:
    """What is worth a line in the log about settings that were taken, once the log is there."""
    if isinstance(settings, ClientSettings) and "use_http_queue" in settings.model_fields_set:
        return [f"USE_HTTP_QUEUE is accepted and changes nothing: records travel over gRPC, to {settings.broker}"]
    return []


def secrets_of(settings: ServiceSettings) -> list[str]:
    """The secrets that were given."""
    return [value.get_secret_value() for _, value in settings if isinstance(value, SecretStr)]


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _refuse_what_is_not_there_yet(model: type[ServiceSettings]) -> None:
    for variable, (owner, reason) in NOT_YET.items():
        if issubclass(model, owner) and os.environ.get(variable):
            raise ConfigError(f"{variable} is set: {reason}", code="config.unsupported")


def _check_toml(model: type[ServiceSettings], flags: Mapping[str, Any]) -> Mapping[str, Any]:
    path = flags.get("telemetry_config") or os.environ.get(CONFIG_VARIABLE)
    if not path:
        return {}
    values = read_toml(Path(path))
    known = {name for service in SERVICES for name in service.model_fields} - {"telemetry_config"}
    for key, value in values.items():
        owner, reason = NOT_YET.get(key.upper(), (None, ""))
        if owner and issubclass(model, owner):
            raise ConfigError(f"{key} in {path}: {reason}", code="config.unsupported")
        if key not in known:
            raise ConfigError(f"{key} in {path}: there is no such setting; expected one of {', '.join(sorted(known))}")
        if isinstance(value, dict) and key != "topics":
            raise ConfigError(f"{key} in {path}: a table; expected {key} = value")
    return values


def _sentence(
    model: type[ServiceSettings], flags: Mapping[str, Any], toml: Mapping[str, Any], problem: Mapping[str, Any]
) -> str:
    """One sentence for one invalid setting: where it was set, its value, what is expected, what to do."""
    name = str(problem["loc"][0])
    settings = {setting.name: setting for setting in describe(model)}
    found = settings[name]
    place = _place(found, flags, toml)
    shown = "a secret" if found.is_secret else repr(_given(found, flags, toml, problem["input"]))
    reason = f" ({problem['ctx']['error']})" if problem["type"] == "value_error" else ""
    remedy = f"or leave it out for the default, {found.default}" if found.default else "or leave it out"
    return f"{place} is {shown}{reason}: expected {found.expected}; correct it, {remedy}"


def _place(setting: Setting, flags: Mapping[str, Any], toml: Mapping[str, Any]) -> str:
    if setting.name in flags:
        return setting.flag
    if any(variable.upper() == setting.variable for variable in os.environ):
        return setting.variable
    if f"{setting.variable}_FILE" in os.environ:
        return f"{setting.variable}_FILE"
    file = flags.get("telemetry_config") or os.environ.get(CONFIG_VARIABLE)
    return f"{setting.name} in {file}" if setting.name in toml else setting.variable


def _given(setting: Setting, flags: Mapping[str, Any], toml: Mapping[str, Any], fallback: object) -> object:
    return flags.get(setting.name) or os.environ.get(setting.variable) or toml.get(setting.name) or fallback


def _check_combination(settings: ServiceSettings) -> None:
    if isinstance(settings, ClientSettings):
        _check_queue(settings)
    if isinstance(settings, UpSettings) and settings.once and (settings.csv_loop or settings.no_csv):
        other = "--loop never ends" if settings.csv_loop else "--no-csv streams nothing"
        raise ConfigError(f"--once waits for the end of a dump, and {other}: leave one of them out")
    if is_loopback(settings.host) or settings.insecure:
        return
    if isinstance(settings, ApiSettings) and not isinstance(settings, UpSettings):
        if settings.api_key is None:
            raise ConfigError(
                f"HOST is {settings.host!r}, which other machines can reach, and API_KEY is not set: "
                "set API_KEY or API_KEY_FILE, or pass --insecure",
                code="config.insecure",
            )
        return
    raise ConfigError(
        f"HOST is {settings.host!r}, which other machines can reach, and gRPC has no tokens in this version: "
        "listen on 127.0.0.1, or pass --insecure",
        code="config.insecure",
    )


def _check_queue(settings: ClientSettings) -> None:
    if not settings.use_http_queue:
        raise ConfigError(
            "USE_HTTP_QUEUE is false, which once meant Redis: use BROKER_URL=nats://... when this version has it, "
            "and until then unset USE_HTTP_QUEUE",
            code="config.unsupported",
        )
