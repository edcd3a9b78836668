"""The settings of each service. A field's name in upper case is its environment variable, in kebab case its flag."""

import os
import re
from pathlib import Path
from typing import Any, ClassVar, Literal
from urllib.parse import quote, urlsplit

from pydantic import SecretStr
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from telemetry_services.config.settings import setting
from telemetry_services.config.values import (
    MAX_BROKERS,
    BrokerList,
    BrokerUrl,
    Duration,
    HttpAddress,
    Origins,
    RateLimit,
    ServiceName,
    TopicCounts,
    TopicName,
    UnixAddress,
)
from telemetry_services.store import Retention

GRPC_PORT = 9090
# As a StatefulSet numbers its pods: no leading zeros, as hosts of a rack often have.
_ORDINAL = re.compile(r"-(0|[1-9]\d{0,2})$", flags=re.ASCII)
_TWELVE_HOURS = 43_200.0
_TEN_YEARS = 315_360_000.0
_TOPIC_NAME = "1 to 200 of A-Z a-z 0-9 . _ -, the first one a letter or digit"


class ServiceSettings(BaseSettings):
    """What every service has: where it listens over HTTP, where its data is, how it logs."""

    model_config = SettingsConfigDict(case_sensitive=False, env_ignore_empty=True, extra="ignore", frozen=True)

    service: ClassVar[str] = "service"

    host: str = setting("127.0.0.1", "Address to listen on.")
    port: int = setting(8080, "HTTP port; 0 takes a free one.", bounds=(0, 65_535))
    data_dir: Path = setting(Path("data"), "Folder for everything the service keeps.", flag="--data")
    insecure: bool = setting(False, "Listen on other addresses than the loopback without asking who comes.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = setting("INFO", "Least severity that is logged.")
    log_format: Literal["text", "json"] = setting("text", "Log lines for people, or one JSON object a line.")
    telemetry_config: Path | None = setting(
        None, "TOML file with settings, by their names in lower case.", flag="--config"
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 (part of the signature)
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments alone: `load` gathers what all sources say, so as to know where each value came from."""
        return (init_settings,)


class CertificateSettings(ServiceSettings):
    """Whom a service shows itself as, to its clients and to other services."""

    tls_cert_file: Path | None = setting(
        None, "Certificate and what it is signed by, as PEM; with it ports speak TLS. Read again when it changes."
    )
    tls_key_file: Path | None = setting(None, "Private key of TLS_CERT_FILE, as PEM.")


class ListenSettings(CertificateSettings):
    """What ports ask of whoever comes."""

    tls_client_ca_file: Path | None = setting(
        None, "Authorities, as PEM, of which clients must have a certificate; needs TLS_CERT_FILE."
    )
    max_connections: int = setting(
        10_000, "Connections of a port at the same time; further ones are closed at once.", bounds=(1, 1_000_000)
    )


def split_tokens(text: str) -> list[str]:
    """Tokens with commas or white space between them."""
    return [token for token in re.split(r"[,\s]+", text) if token]


class TokenSettings(CertificateSettings):
    """What services know each other by."""

    service_token: SecretStr | None = setting(
        None,
        "Tokens of the services, with commas between them: the first one is sent, each one is accepted and may "
        "everything.",
    )
    service_token_file: Path | None = setting(None, "File with SERVICE_TOKEN, one a line; read again when it changes.")

    @property
    def service_tokens(self) -> list[str]:
        """The tokens, as they were at the start."""
        return split_tokens(self.service_token.get_secret_value()) if self.service_token else []


class AccessSettings(ListenSettings, TokenSettings):
    """Who may do what."""

    tokens_file: Path | None = setting(
        None, "TOML file of clients, their tokens and roles; see docs/security.md. Read again when it changes."
    )
    max_calls_per_client: int = setting(
        10_000, "Calls of a client at the same time, streams and long polls included.", bounds=(1, 1_000_000)
    )

    @property
    def asks_for_tokens(self) -> bool:
        """Whether anything says which tokens are good."""
        return any((self.tokens_file, self.service_token_file, self.service_token))


class GrpcPortSettings(ServiceSettings):
    """Where a service answers over gRPC."""

    grpc_port: int = setting(GRPC_PORT, "gRPC port; 0 takes a free one.", bounds=(0, 65_535))


class GrpcSettings(AccessSettings, GrpcPortSettings):
    """What every service has that answers over gRPC and asks for tokens."""


class OlderClientSettings(AccessSettings):
    """What the endpoints over HTTP have that older clients know."""

    http_anonymous: bool = setting(
        False, "Ask for no credentials at /produce, /consume, /ack and /topics: for older clients, which send none."
    )


class CoreSettings(OlderClientSettings, GrpcSettings):
    """What everyone has who opens a broker's folder."""

    queue_size: int = setting(2000, "Records kept in memory per partition.", unit="records", bounds=(1, 10_000_000))
    visibility_timeout: Duration = setting(
        30.0,
        "Length of a lease on a topic that sets none; what is not acked by then is given out again.",
        unit="duration",
        bounds=(0.001, _TWELVE_HOURS),
    )
    partitions_per_topic: int = setting(4, "Partitions of a topic made without a count.", bounds=(1, 4096))
    durability: Literal["memory", "os", "fsync"] = setting(
        "os", "What records survive on a topic that says nothing else: a clean stop, the broker's death, a power cut."
    )
    topics: TopicCounts = setting(
        description="Topics made at start, with their partition counts.",
        expected="names with partition counts from 1 to 4,096, such as events:8,orders:4",
        default_factory=dict,
    )
    listen: UnixAddress | None = setting(
        None,
        "Unix socket to serve gRPC on, for processes of this machine that share the folder; `telemetry broker` then "
        "opens just those ports that are given, too.",
        expected="an address such as unix:data/broker.sock",
    )


class MembershipSettings(ServiceSettings):
    """Which brokers there are, where they are pods of one StatefulSet."""

    broker_service: ServiceName = setting(
        "msg-queue",
        "Service of the brokers, which are called by its name and their number: msg-queue-0.",
        expected="a DNS name such as msg-queue, that of the StatefulSet, too",
    )
    broker_count: int = setting(2, "How many brokers there are.", bounds=(1, MAX_BROKERS))

    def pods(self, port: int) -> tuple[tuple[str, str], ...]:
        """Names and addresses of the brokers, as the headless service of a StatefulSet gives them to its pods."""
        name = self.broker_service.partition(".")[0]
        return tuple(
            (f"{name}-{number}", f"{name}-{number}.{self.broker_service}:{port}") for number in range(self.broker_count)
        )


class PodSettings(MembershipSettings):
    """Which one of them a broker is."""

    broker_count: int = setting(1, "How many brokers there are, this one included.", bounds=(1, MAX_BROKERS))
    broker_index: int | None = setting(
        None,
        "This broker's number among them, from 0; default: that at the end of HOSTNAME, as pods of a StatefulSet have "
        "it, else 0.",
        expected=f"a whole number from 0 to {MAX_BROKERS - 1}",
        bounds=(0, MAX_BROKERS - 1),
    )

    @property
    def index(self) -> int:
        """The broker's number: BROKER_INDEX, or the pod's."""
        if self.broker_index is not None:
            return self.broker_index
        ordinal = _ORDINAL.search(os.environ.get("HOSTNAME", ""))
        return int(ordinal[1]) if ordinal else 0

    @property
    def broker_name(self) -> str:
        """What the broker is called among others: `msg-queue-0`."""
        return f"{self.broker_service.partition('.')[0]}-{self.index}"


class BrokerSettings(CoreSettings, PodSettings):
    """What the broker has."""

    service: ClassVar[str] = "broker"


class ProxySettings(OlderClientSettings, GrpcSettings, MembershipSettings):
    """What the proxy has."""

    service: ClassVar[str] = "proxy"

    brokers: BrokerList = setting(
        (),
        "The brokers, in place of BROKER_SERVICE and BROKER_COUNT. Their names place partitions, so that all proxies "
        "and clients must know them by the same; without a name it is the address.",
        expected="host:port or name=host:port, with commas between them",
    )
    brokers_file: Path | None = setting(
        None, "The same, one a line, in a file; read again when it changes, so that brokers can be added and removed."
    )
    broker_grpc_port: int = setting(GRPC_PORT, "gRPC port of the brokers of BROKER_SERVICE.", bounds=(1, 65_535))
    virtual_nodes: int = setting(
        150, "Places of each broker on the ring; all proxies and clients must have the same number.", bounds=(1, 10_000)
    )
    partitions_per_topic: int = setting(4, "Partitions of a topic made without a count.", bounds=(1, 4096))
    max_partitions: int = setting(
        2, "Accepted for the sake of older deployments: brokers are asked for their partitions.", bounds=(1, 1_000_000)
    )
    broker_tls: bool = setting(False, "Speak TLS to the brokers, and show them TLS_CERT_FILE where there is one.")
    tls_ca_file: Path | None = setting(
        None, "Authorities, as PEM, to trust at the brokers; default: those of this machine."
    )


class TopicSettings(ServiceSettings):
    """What everyone has who knows the topic."""

    msg_queue_topic: TopicName = setting("telemetry", "The topic.", expected=_TOPIC_NAME)
    partitions_per_topic: int = setting(4, "Partitions of a topic made without a count.", bounds=(1, 4096))


class ClientSettings(TopicSettings, TokenSettings):
    """What every client of a broker has."""

    broker_url: BrokerUrl | None = setting(
        None,
        "The broker, or several; wins over MSG_QUEUE_ADDR.",
        expected="grpc://host:9090, grpc://host:9090,host:9090, grpc+dns://name:9090, grpcs://host:9090, "
        "grpc+unix:///path, file:///folder or mem://name",
    )
    msg_queue_addr: HttpAddress = setting(
        "http://msg-queue-proxy:8080",
        f"The proxy's host; records travel over its gRPC port, {GRPC_PORT}.",
        expected="an address such as http://msg-queue-proxy:8080",
    )
    use_http_queue: bool = setting(True, "Accepted for the sake of older deployments; only true is known.")
    tls_ca_file: Path | None = setting(
        None, "Authorities, as PEM, to trust at a grpcs:// broker; default: those of this machine."
    )

    @property
    def broker(self) -> str:
        """The broker's URL: BROKER_URL, or the host of MSG_QUEUE_ADDR."""
        if self.broker_url:
            return self.broker_url
        address = urlsplit(self.msg_queue_addr)
        return f"{'grpcs' if address.scheme == 'https' else 'grpc'}://{address.hostname}:{GRPC_PORT}"

    @property
    def broker_credentials(self) -> dict[str, Any]:
        """What `telemetry_broker.connect` is given beside the URL."""
        scheme = urlsplit(self.broker).scheme
        given: dict[str, Any] = {}
        if scheme in ("grpc", "grpcs", "grpc+dns"):
            if self.service_token_file is not None:
                given["token_file"] = self.service_token_file
            elif self.service_tokens:
                given["token"] = self.service_tokens[0]
        if scheme == "grpcs":
            given |= {"ca_file": self.tls_ca_file, "cert_file": self.tls_cert_file, "key_file": self.tls_key_file}
        return given


class StoreSettings(ServiceSettings):
    """What every user of a store has."""

    store: str | None = setting(
        None,
        "Where telemetry is stored; default: the InfluxDB of INFLUXDB_URL, else a Delta Lake table in the folder "
        "`store` of DATA_DIR.",
        expected="a URL such as delta:///var/lib/telemetry/store or influxdb://host:8181/database",
    )
    influxdb_url: HttpAddress | None = setting(
        None,
        "Address of an InfluxDB 3; with it telemetry is stored there, unless STORE says otherwise.",
        expected="an address such as http://influxdb:8181",
    )
    influxdb_token: SecretStr | None = setting(None, "Token for InfluxDB, for INFLUXDB_URL or STORE.")
    influxdb_bucket: str = setting("telemetry", "Database at INFLUXDB_URL, which it makes where there is none.")
    influxdb_org: str | None = setting(None, "Accepted for the sake of older deployments: InfluxDB 3 has none.")
    influxdb_ca_file: Path | None = setting(
        None, "Authorities, as PEM, to trust at an InfluxDB over TLS; default: those of this machine."
    )

    @property
    def store_url(self) -> str:
        """The store's URL."""
        if self.store:
            return self.store
        if self.influxdb_url:
            address = urlsplit(self.influxdb_url)
            scheme = "influxdbs" if address.scheme == "https" else "influxdb"
            # Not the default port of the store's URLs, but that of the address.
            place = address.netloc if address.port else f"{address.netloc}:{443 if scheme == 'influxdbs' else 80}"
            return f"{scheme}://{place}/{quote(self.influxdb_bucket, safe='')}"
        return f"delta://{quote(str((self.data_dir / 'store').absolute()))}"

    @property
    def store_credentials(self) -> dict[str, Any]:
        """What `open_store` is given beside the URL."""
        token = self.influxdb_token.get_secret_value() if self.influxdb_token else ""
        return {"token": token, "ca_file": self.influxdb_ca_file}


class CsvSettings(TopicSettings):
    """How a dump is streamed."""

    csv_path: Path | None = setting(None, "The dump to stream, as dcgm-exporter's CSV.", flag="--csv")
    csv_delay_ms: int = setting(1000, "Pause after each row; 0 is full speed.", unit="ms", bounds=(0, 3_600_000))
    csv_rate: float = setting(
        0,
        "Rows a second, in place of the pause; 0: as the pause says.",
        flag="--rate",
        unit="rows/s",
        bounds=(0, 1e9),
    )
    csv_loop: bool = setting(False, "Stream the dump again and again, with its timestamps shifted.", flag="--loop")
    csv_again: bool = setting(False, "Stream the dump although it may have been streamed before.", flag="--again")
    msg_queue_producer_name: str = setting(
        "streamer", "Name for logs; rows are stored once by the dump's own name.", flag="--producer-name"
    )

    @property
    def rejects_dir(self) -> Path:
        """Folder of the files that keep rows which cannot be used."""
        return self.data_dir / "rejects"


class CollectSettings(TopicSettings, StoreSettings):
    """How a topic is stored."""

    msg_queue_group: TopicName = setting(
        "telemetry_group", "The group to read as.", flag="--group", expected=_TOPIC_NAME
    )
    msg_queue_consumer_name: str = setting(
        "collector", "Name for logs and for `holder` in the group's description.", flag="--consumer-name"
    )
    collect_max_rows: int = setting(
        100_000, "Rows after which a batch is committed.", unit="rows", bounds=(1, 1_000_000)
    )
    collect_max_bytes: int = setting(
        16 << 20, "Bytes of records at which a batch is committed.", unit="bytes", bounds=(1 << 10, 256 << 20)
    )
    collect_max_age: Duration = setting(
        0.25, "Age of its first record at which a batch is committed.", unit="duration", bounds=(0.001, 60.0)
    )
    store_retention: Duration | None = setting(
        None,
        "How long a Delta table keeps samples, by their own time; default: for ever.",
        unit="duration",
        bounds=(3600.0, _TEN_YEARS),
    )
    store_retention_minutely: Duration | None = setting(
        None, "How long it keeps rollups of a minute; default: for ever.", unit="duration", bounds=(3600.0, _TEN_YEARS)
    )
    store_retention_hourly: Duration | None = setting(
        None, "How long it keeps rollups of an hour; default: for ever.", unit="duration", bounds=(3600.0, _TEN_YEARS)
    )

    @property
    def retention(self) -> Retention:
        """The three above."""
        return Retention(self.store_retention, self.store_retention_minutely, self.store_retention_hourly)


class RestSettings(TopicSettings, StoreSettings, ListenSettings):
    """How the REST API answers."""

    api_key: SecretStr | None = setting(
        None,
        "Keys that callers of the API send, with commas between them, each with every role; default on the loopback: "
        "made, kept in DATA_DIR/api-key and shown.",
    )
    api_key_file: Path | None = setting(None, "File with API_KEY, one a line; read again when it changes.")
    api_keys_file: Path | None = setting(
        None, "TOML file of named API keys and their roles; see docs/api.md. Read again when it changes."
    )
    api_rate_limit: RateLimit = setting(
        "1000/second",
        "Requests of one API key, and of one address, that are answered; further ones are answered 429.",
        expected="a number and a unit such as 1000/second or 20000/minute, several with ; between them",
    )
    api_refused_limit: RateLimit = setting(
        "30/minute",
        "Requests of one address without a valid API key that are answered 401; further ones are answered 429.",
        expected="a number and a unit such as 30/minute",
    )
    cors_origins: Origins = setting(
        "",
        "Web pages of other origins that may use the API, with commas between them.",
        expected="origins such as https://dashboards.example, or *",
    )

    @property
    def asks_for_given_keys(self) -> bool:
        """Whether anything says which keys are good; without, one is made."""
        return any((self.api_key, self.api_key_file, self.api_keys_file))

    @property
    def api_key_path(self) -> Path:
        """Where a key that was made is kept."""
        return self.data_dir / "api-key"


class StreamerSettings(CsvSettings, ClientSettings):
    """What the streamer has."""

    service: ClassVar[str] = "streamer"


class CollectorSettings(CollectSettings, ClientSettings, GrpcSettings):
    """What the collector has."""

    service: ClassVar[str] = "collector"


class ApiSettings(RestSettings, ClientSettings, GrpcPortSettings):
    """What the api has."""

    service: ClassVar[str] = "api"


class UpSettings(CsvSettings, RestSettings, CollectSettings, CoreSettings):
    """What `telemetry up` has: everything but the address of a broker, with the defaults of a first run."""

    service: ClassVar[str] = "up"

    csv_path: Path | None = setting(None, "The dump to stream; default: the sample that comes with it.", flag="--csv")
    once: bool = setting(False, "End when every row of the dump is stored.")
    no_csv: bool = setting(False, "Stream nothing: wait for what others send.")
    up_brokers: int = setting(
        0,
        "Brokers as processes of their own, behind proxies; 0: one broker, in this process.",
        flag="--brokers",
        bounds=(0, 64),
    )
    up_proxies: int = setting(1, "Proxies in front of --brokers.", flag="--proxies", bounds=(1, 64))
    csv_delay_ms: int = setting(0, "Pause after each row; 0 is full speed.", unit="ms", bounds=(0, 3_600_000))
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = setting("WARNING", "Least severity that is logged.")
