"""Makes the settings of a service from all their sources, or says in one sentence why that is not possible."""

import ipaddress
import os
from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeVar

from pydantic import SecretStr, ValidationError
from pydantic_core import ErrorDetails

from telemetry_services.config.gathering import Gathering
from telemetry_services.config.models import (
    AccessSettings,
    ApiSettings,
    BrokerSettings,
    CertificateSettings,
    ClientSettings,
    CollectorSettings,
    CoreSettings,
    GrpcPortSettings,
    ListenSettings,
    ProxySettings,
    RestSettings,
    ServiceSettings,
    StreamerSettings,
    TokenSettings,
    UpSettings,
    split_tokens,
)
from telemetry_services.config.near_misses import near_misses
from telemetry_services.config.resolution import Resolution
from telemetry_services.config.settings import describe
from telemetry_services.config.settings_file import SettingsFile
from telemetry_services.config.sources import Given
from telemetry_services.config.values import without_credentials
from telemetry_services.errors import ConfigError

S = TypeVar("S", bound=ServiceSettings)

SERVICES: Final = (BrokerSettings, ProxySettings, StreamerSettings, CollectorSettings, ApiSettings, UpSettings)

_OWN_BROKERS: Final = "`telemetry up` makes its own brokers; unset it, and say how many with --brokers"

NOT_YET: Final[dict[str, tuple[type[ServiceSettings], str]]] = {
    "BROKER_COUNT": (UpSettings, _OWN_BROKERS),
    "BROKER_INDEX": (UpSettings, _OWN_BROKERS),
    "BROKER_SERVICE": (UpSettings, _OWN_BROKERS),
    "BROKER_URL": (UpSettings, "`telemetry up` brings its own broker; unset it, or start the services one by one"),
}
"""Variables that a service would have to ignore, most of them of features to come: set, they are refused instead."""


OTHER_VARIABLES: Final = ("TELEMETRY_DEBUG",)
"""What the `telemetry` command reads beyond settings."""


def load(model: type[S], flags: Mapping[str, Any] | None = None) -> S:
    """Makes the settings of one service from flags, environment, files and defaults, in this order of precedence.

    Args:
        flags: what the command line gave, by field name; texts are read as in a variable.

    Raises:
        ConfigError: for everything that is wrong, the setting's name, its value, what was expected and what to do.
    """
    return resolve(model, flags).checked()


def resolve(model: type[S], flags: Mapping[str, Any] | None = None) -> Resolution[S]:
    """What `load` would make of the same sources, told in full: origins, problems and warnings."""
    gathering, problems = _gather(model, flags or {})
    settings: S | None = None
    try:
        settings = model(**{name: found.value for name, found in gathering.given.items()})
    except ValidationError as err:
        problems += [_invalid(model, gathering.given, problem) for problem in err.errors()]
    if settings is not None and not problems:
        try:
            _check_combination(settings)
        except ConfigError as err:
            problems.append(err)
    return Resolution(model, settings, gathering.given, tuple(problems), tuple(gathering.warnings))


def unread_variables() -> list[str]:
    """A sentence for each environment variable that seems to be meant for a service and is read by none."""
    settings = {setting.variable: setting for service in SERVICES for setting in describe(service)}
    known = [*NOT_YET, *(f"{name}_FILE" for name in NOT_YET), *OTHER_VARIABLES]
    return near_misses(os.environ, settings.values(), known)


def remarks(settings: ServiceSettings) -> list[str]:
    """What is worth a line in the log about settings that were taken, once the log is there."""
    if isinstance(settings, ClientSettings) and "use_http_queue" in settings.model_fields_set:
        return [f"USE_HTTP_QUEUE is accepted and changes nothing: records travel over gRPC, to {settings.broker}"]
    if isinstance(settings, ProxySettings) and "max_partitions" in settings.model_fields_set:
        return ["MAX_PARTITIONS is accepted and changes nothing: brokers are asked for their partitions"]
    return []


def secrets_of(settings: ServiceSettings) -> list[str]:
    """The secrets that were given."""
    given = [value.get_secret_value() for _, value in settings if isinstance(value, SecretStr)]
    tokens = settings.service_tokens if isinstance(settings, TokenSettings) else []
    keys = (
        split_tokens(settings.api_key.get_secret_value())
        if isinstance(settings, RestSettings) and settings.api_key
        else []
    )
    return [*given, *tokens, *keys]


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _gather(model: type[ServiceSettings], flags: Mapping[str, Any]) -> tuple[Gathering, list[ConfigError]]:
    gathering = Gathering(model)
    gathering.add_flags(flags)
    gathering.add_variables()
    gathering.add_secret_files()
    problems = [*_set_too_early(model), *gathering.problems]
    if path := gathering.settings_file:
        try:
            file = SettingsFile(path, SERVICES, {name.lower(): owner for name, (owner, _) in NOT_YET.items()})
        except ConfigError as err:
            return gathering, [*problems, err]
        gathering.add_settings_file(file)
        problems += [*file.problems(), *_written_too_early(model, file)]
    return gathering, problems


def _set_too_early(model: type[ServiceSettings]) -> Iterator[ConfigError]:
    for name, (owner, reason) in NOT_YET.items():
        for variable in (name, f"{name}_FILE"):
            if issubclass(model, owner) and os.environ.get(variable):
                yield ConfigError(f"{variable} is set: {reason}", code="config.unsupported")


def _written_too_early(model: type[ServiceSettings], file: SettingsFile) -> Iterator[ConfigError]:
    for key, found in file.given(model).items():
        owner, reason = NOT_YET.get(key.upper(), (None, ""))
        if owner and issubclass(model, owner):
            yield ConfigError(f"{found.place}: {reason}", code="config.unsupported")


def _invalid(model: type[ServiceSettings], given: Mapping[str, Given], problem: ErrorDetails) -> ConfigError:
    """One sentence for one invalid setting: where it was set, its value, what is expected, what to do."""
    setting = next(setting for setting in describe(model) if setting.name == problem["loc"][0])
    found = given[setting.name]
    if setting.is_secret:
        shown = "a secret"  # and no reason, which may quote it
    else:
        reason = f" ({problem['ctx']['error']})" if problem["type"] == "value_error" else ""
        shown = f"{_shown_as_given(found.value)!r}{reason}"
    remedy = f"or leave it out for the default, {setting.default}" if setting.default else "or leave it out"
    return ConfigError(f"{found.place} is {shown}: expected {setting.expected}; correct it, {remedy}")


def _shown_as_given(value: object) -> object:
    return without_credentials(value) if isinstance(value, str) else value


def _check_combination(settings: ServiceSettings) -> None:
    if isinstance(settings, ClientSettings):
        _check_queue(settings)
    if isinstance(settings, GrpcPortSettings):
        _check_ports(settings)
    if isinstance(settings, ProxySettings) and settings.brokers and settings.brokers_file:
        raise ConfigError("BROKERS and BROKERS_FILE are both set: one says which brokers there are, so unset the other")
    if isinstance(settings, UpSettings):
        _check_children(settings)
    if isinstance(settings, UpSettings) and settings.once and (settings.csv_loop or settings.no_csv):
        other = "--loop never ends" if settings.csv_loop else "--no-csv streams nothing"
        raise ConfigError(f"--once waits for the end of a dump, and {other}: leave one of them out")
    if isinstance(settings, CertificateSettings):
        _check_tls(settings)
    if not is_loopback(settings.host) and not settings.insecure:
        _check_reachable(settings)


def _check_children(settings: UpSettings) -> None:
    if not settings.up_brokers:
        if settings.up_proxies > 1:
            raise ConfigError("--proxies is set, and without --brokers there are none: say how many brokers there are")
        return
    for name, value in (("TLS_CERT_FILE", settings.tls_cert_file), ("LISTEN", settings.listen)):
        if value:
            raise ConfigError(
                f"{name} is set, and `telemetry up` does not have it with --brokers: unset it, or start the services "
                "one by one",
                code="config.unsupported",
            )


def _check_tls(settings: CertificateSettings) -> None:
    pair = {"TLS_CERT_FILE": settings.tls_cert_file, "TLS_KEY_FILE": settings.tls_key_file}
    missing = [name for name, path in pair.items() if path is None]
    if len(missing) == 1:
        given = next(f"{name} is {str(path)!r}" for name, path in pair.items() if path is not None)
        raise ConfigError(f"{given}, and {missing[0]} is not set: a certificate needs its key, so set both or neither")
    if isinstance(settings, ListenSettings) and settings.tls_client_ca_file is not None and missing:
        raise ConfigError(
            f"TLS_CLIENT_CA_FILE is {str(settings.tls_client_ca_file)!r}, and TLS_CERT_FILE is not set: certificates "
            "of clients are part of TLS, so set TLS_CERT_FILE and TLS_KEY_FILE, too"
        )


def _check_reachable(settings: ServiceSettings) -> None:
    """Refuses ports that other machines can reach, and that let in everybody."""
    open_to = f"HOST is {settings.host!r}, which other machines can reach"
    if isinstance(settings, RestSettings) and not settings.asks_for_given_keys:
        raise ConfigError(
            f"{open_to}, and API_KEY is not set: set API_KEY, API_KEY_FILE or API_KEYS_FILE, or pass --insecure",
            code="config.insecure",
        )
    if isinstance(settings, AccessSettings) and not (settings.asks_for_tokens or settings.tls_client_ca_file):
        raise ConfigError(
            f"{open_to}, and nothing says who may come in: set TOKENS_FILE, SERVICE_TOKEN_FILE or TLS_CLIENT_CA_FILE, "
            "or pass --insecure",
            code="config.insecure",
        )


def _check_queue(settings: ClientSettings) -> None:
    if not settings.use_http_queue:
        raise ConfigError(
            "USE_HTTP_QUEUE is false, which once meant Redis: use BROKER_URL=nats://... when this version has it, "
            "and until then unset USE_HTTP_QUEUE",
            code="config.unsupported",
        )


def _check_ports(settings: GrpcPortSettings) -> None:
    if isinstance(settings, UpSettings) or (isinstance(settings, CoreSettings) and settings.listen):
        is_fixed = {"port", "grpc_port"} <= settings.model_fields_set  # it takes another port, or none, for a default
    else:
        is_fixed = True
    if is_fixed and settings.port == settings.grpc_port != 0:
        raise ConfigError(
            f"PORT and GRPC_PORT are both {settings.port}, and HTTP and gRPC do not share one: "
            "give them different ports, or 0 for free ones"
        )
