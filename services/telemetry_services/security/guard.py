"""The guard of one process: what its ports ask of whoever comes, as its settings and their files say now."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Final

from starlette.requests import HTTPConnection

from telemetry_broker import _core
from telemetry_broker.errors import InvalidArgumentError, UnauthenticatedError
from telemetry_services.config.models import AccessSettings, ListenSettings, OlderClientSettings, split_tokens
from telemetry_services.config.sources import MAX_SECRET_BYTES
from telemetry_services.errors import ConfigError
from telemetry_services.security.files import Watched, read_bounded, watch
from telemetry_services.security.tls import CertificateFiles, HttpTls
from telemetry_services.security.tokens import read_tokens, service_grants
from telemetry_services.serving.http_connection import CLIENT_CERTIFICATE

log = logging.getLogger(__name__)

_SERVICE: Final = "/telemetry_broker.v1.BrokerService/"
_ANONYMOUS: Final = frozenset({"Produce", "Consume", "Ack", "ListTopics"})
"""What HTTP_ANONYMOUS opens."""


class Guard:
    """Who gets in. Made before anything listens, so that what cannot be used is refused then.

    Attributes:
        access: the tokens; None: nobody is asked for one.
        http_tls: of the HTTP port; None: it speaks plain text.
        max_connections: of each port, at the same time.

    Raises:
        ConfigError: a file that cannot be read or used.
    """

    def __init__(self, settings: ListenSettings) -> None:
        self._service = settings.service
        self._settings = settings
        self._servers: list[_core.GrpcServer] = []
        self._files: list[Watched] = []
        self._told: dict[str, int] = {}
        self._http_is_open = isinstance(settings, OlderClientSettings) and settings.http_anonymous
        self.max_connections = settings.max_connections
        self.access = self._make_access(settings) if isinstance(settings, AccessSettings) else None
        self._certificates = _certificate_files(settings)
        self.http_tls = None if self._certificates is None else HttpTls()
        if self._certificates is not None:
            self.watch(Watched("certificates", self._certificates.paths, self._use_certificates))

    def grpc_server(self, core: _core.Broker | _core.Cluster | None, forward_to: str) -> _core.GrpcServer:
        """A gRPC server with this guard at its TCP ports; see `_core.GrpcServer`."""
        server = _core.GrpcServer(core, forward_to=forward_to, access=self.access, max_connections=self.max_connections)
        self._servers.append(server)
        if self._certificates is not None:
            self._use_certificates()
        return server

    def require_certificate(self, request: HTTPConnection) -> None:
        """Raises UnauthenticatedError for an HTTP request without a certificate, where one is asked for."""
        if self._settings.tls_client_ca_file is not None and not getattr(request.state, CLIENT_CERTIFICATE, False):
            raise UnauthenticatedError("this server asks for a certificate of its clients: send one")

    def admit(self, request: HTTPConnection, method: str, topic: str = "") -> _core.Caller | None:
        """Who makes an HTTP request that does what a method of BrokerService does; None: whoever.

        Raises:
            UnauthenticatedError: without a token, or a certificate, where one is asked for.
            PermissionDeniedError: the client has not the role.
            UnavailableError: it has too many calls under way.
        """
        if self._http_is_open and method in _ANONYMOUS:
            return None
        self.require_certificate(request)
        if self.access is None:
            return None
        caller = self.access.enter(_token(request))
        caller.check(_SERVICE + method, topic)
        return caller

    def watch(self, watched: Watched) -> None:
        """Takes up files now, and has them kept up with by `watching`; raises ConfigError."""
        watched.begin(self._service)
        self._files.append(watched)

    @contextlib.asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Keeps up with the files inside the block."""
        watching = asyncio.create_task(watch(self._service, self._files, self._tell_refused))
        try:
            yield
        finally:
            watching.cancel()

    @property
    def summary(self) -> dict[str, str]:
        """What is asked of whoever comes, for the log."""
        asked = {
            "token": self.access is not None,
            "client certificate": self._settings.tls_client_ca_file is not None,
        }
        return {
            "tls": "off" if self._certificates is None else "on",
            "asks_for": ", ".join(what for what, is_asked in asked.items() if is_asked) or "nothing",
        }

    @property
    def refused(self) -> dict[str, int]:
        """What was refused since the start, by reason."""
        calls = {} if self.access is None else self.access.refused
        return {**calls, "connections": sum(server.connections[1] for server in self._servers)}

    def _tell_refused(self) -> None:
        refused = self.refused
        news = {why: count - self._told.get(why, 0) for why, count in refused.items()}
        self._told = refused
        if any(news.values()):
            log.warning("Refused calls", extra={why: count for why, count in news.items() if count})

    def _make_access(self, settings: AccessSettings) -> _core.Access | None:
        if not settings.asks_for_tokens:
            return None
        access = _core.Access(max_calls_per_client=settings.max_calls_per_client)

        def load() -> None:
            grants = service_grants(_service_tokens(settings))
            if settings.tokens_file is not None:
                grants += read_tokens(settings.tokens_file)
            access.replace(grants)

        paths = [path for path in (settings.tokens_file, settings.service_token_file) if path is not None]
        self.watch(Watched("tokens", paths, load))
        return access

    def _use_certificates(self) -> None:
        files, http = self._certificates, self.http_tls
        assert files is not None and http is not None  # noqa: S101, PT018 (who calls has looked)
        found = files.read()
        try:
            # One more than there are: what none can use is told before one listens.
            for server in (*self._servers, _core.GrpcServer(None)):
                server.set_tls(found.chain, found.key, found.client_ca)
        except InvalidArgumentError as err:
            raise ConfigError(f"{files}: {err.message}; give PEM files that belong together") from err
        http.use(files)


def _service_tokens(settings: AccessSettings) -> list[str]:
    """The tokens of SERVICE_TOKEN_FILE as they are now, else those of SERVICE_TOKEN."""
    path = settings.service_token_file
    if path is None:
        return settings.service_tokens
    text = read_bounded(path, MAX_SECRET_BYTES, "SERVICE_TOKEN_FILE").decode(errors="replace")
    if tokens := split_tokens(text):
        return tokens
    raise ConfigError(f"SERVICE_TOKEN_FILE={path}: there is no token in the file")


def _certificate_files(settings: ListenSettings) -> CertificateFiles | None:
    if settings.tls_cert_file is None or settings.tls_key_file is None:
        return None
    return CertificateFiles(settings.tls_cert_file, settings.tls_key_file, settings.tls_client_ca_file)


def _token(request: HTTPConnection) -> str | None:
    """The token of `Authorization: Bearer TOKEN`, or of `X-API-Key: TOKEN`."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return token.strip()
    return request.headers.get("x-api-key")
