"""The brokers and proxies of `telemetry up --brokers`: processes that end with this one, however it ends.

Each keeps its ports for life, so that whoever knows it finds it again after it died and was started anew.
"""

import asyncio
import contextlib
import json
import logging
import os
import secrets
import signal
import sys
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from telemetry_services.config import SERVICES, UpSettings, describe
from telemetry_services.config.values import format_duration, format_topics
from telemetry_services.errors import ServiceError

log = logging.getLogger(__name__)

_MAIN: Final = (
    "from telemetry_services.serving.lifetime import end_with; end_with({parent}); "
    "from telemetry_services.cli import main; main()"
)
_START_SECONDS: Final = 60.0
_STOP_SECONDS: Final = 15.0
_FIRST_PAUSE_SECONDS: Final = 0.2
_LONGEST_PAUSE_SECONDS: Final = 10.0
_STEADY_SECONDS: Final = 30.0
"""Who ran so long and then ended is started again without a longer pause."""
_LONGEST_LINE: Final = 1 << 20
_LEVELS: Final = {name: getattr(logging, name) for name in ("DEBUG", "INFO", "WARNING", "ERROR")}


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where a child listens: `host:port` each."""

    grpc: str
    http: str


@dataclass
class Child:
    """A service as a process of its own.

    Attributes:
        name: for the log.
        service: its command.
        flags: of its command, without ports.
        environment: beside that of this process, out of which the settings of services are taken.
    """

    name: str
    service: str
    flags: Sequence[str]
    environment: dict[str, str] = field(default_factory=dict)
    _ports: tuple[str, str] = ("0", "0")
    _process: asyncio.subprocess.Process | None = None
    _began: float = 0.0

    async def start(self, grpc_port: int = 0, http_port: int = 0) -> Addresses:
        """Starts it and returns where it listens, once it takes calls.

        Raises:
            ServiceError: it ended, or was not there in 60 s; its log says why.
        """
        self._ports = (str(grpc_port), str(http_port))
        return await self._start()

    async def _start(self) -> Addresses:
        grpc_port, http_port = self._ports
        self._began = time.monotonic()
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            _MAIN.format(parent=os.getpid()),
            *(self.service, "--grpc-port", grpc_port, "--port", http_port),
            *("--log-format", "json", "--log-level", "INFO", *self.flags),
            env=_clean_environment() | self.environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            limit=_LONGEST_LINE,
            start_new_session=True,  # Ctrl-C is for this process, which ends its children in order
        )
        try:
            async with asyncio.timeout(_START_SECONDS):
                addresses = await self._listening()
        except TimeoutError:
            await self._end(signal.SIGKILL)
            raise ServiceError(f"{self.name} did not start within {_START_SECONDS:g} s; see the log") from None
        if addresses is None:
            status = await self._process.wait()
            raise ServiceError(f"{self.name} did not start ({_ending(status)}); see the log")
        self._ports = (addresses.grpc.rpartition(":")[2], addresses.http.rpartition(":")[2])
        return addresses

    async def _listening(self) -> Addresses | None:
        while (line := await self._line()) is not None:
            if line.get("message") == f"Starting {self.service}":
                return Addresses(line["grpc"], line["http"])
            self._pass_on(line)
        return None

    async def keep(self) -> None:
        """Passes its log on, and starts it again whenever it ends, until this is cancelled."""
        pause = _FIRST_PAUSE_SECONDS
        while True:
            while (line := await self._line()) is not None:
                self._pass_on(line)
            status = await self._running.wait()
            if time.monotonic() - self._began >= _STEADY_SECONDS:
                pause = _FIRST_PAUSE_SECONDS
            log.warning(
                "%s ended (%s), and is started again", self.name, _ending(status), extra={"pause": round(pause, 1)}
            )
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
            try:
                await self._start()
            except ServiceError as error:
                log.warning("%s", error)
            else:
                log.warning("%s is there again", self.name)

    async def stop(self) -> None:
        """Ends it in order; kills it after 15 s."""
        if self._process is None or self._process.returncode is not None:
            return
        await self._end(signal.SIGTERM)

    async def _end(self, number: signal.Signals) -> None:
        process = self._running
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(number)
        try:
            async with asyncio.timeout(_STOP_SECONDS):
                while (line := await self._line()) is not None:
                    self._pass_on(line)
                await process.wait()
        except TimeoutError:
            log.warning("%s does not end, and is killed", self.name)
            process.kill()
            await process.wait()

    @property
    def _running(self) -> asyncio.subprocess.Process:
        assert self._process is not None  # noqa: S101 (who calls has started it)
        return self._process

    async def _line(self) -> dict[str, Any] | None:
        """The next line of its log; None: there are no more."""
        assert self._running.stderr is not None  # noqa: S101 (it is a pipe)
        try:
            text = (await self._running.stderr.readline()).decode(errors="replace")
        except ValueError:  # longer than any line of ours
            return {"level": "WARNING", "message": "a line of the log was too long"}
        if not text:
            return None
        try:
            line = json.loads(text)
        except ValueError:
            line = None
        return line if isinstance(line, dict) else {"level": "WARNING", "message": text.rstrip()}

    def _pass_on(self, line: dict[str, Any]) -> None:
        fields = {name: value for name, value in line.items() if name not in _OWN_FIELDS}
        level = _LEVELS.get(line.get("level", ""), logging.WARNING)
        log.log(level, "%s: %s", self.name, line.get("message", ""), extra=fields)


_OWN_FIELDS: Final = {"time", "level", "service", "logger", "message", "exception", *vars(logging.makeLogRecord({}))}


@dataclass(frozen=True, slots=True)
class Fleet:
    """Brokers behind proxies, all running.

    Attributes:
        url: of a proxy, for `telemetry_broker.connect`.
        token: to show there; None: it asks for none.
        proxies: where they listen.
    """

    url: str
    token: str | None
    proxies: Sequence[Addresses]


@contextlib.asynccontextmanager
async def running_fleet(settings: UpSettings) -> AsyncIterator[Fleet]:
    """Runs --brokers and --proxies inside the block; what dies is started again, and said.

    Raises:
        ServiceError: one does not start.
    """
    token = secrets.token_urlsafe(32) if settings.asks_for_tokens else None
    brokers = [_broker(settings, number) for number in range(settings.up_brokers)]
    keeping: list[asyncio.Task[None]] = []
    proxies: list[Child] = []
    try:
        at = await asyncio.gather(*(broker.start() for broker in brokers))
        proxies += (_proxy(settings, number, brokers, at, token) for number in range(settings.up_proxies))
        reached = await asyncio.gather(*(proxy.start() for proxy in proxies))
        keeping += (asyncio.create_task(child.keep()) for child in (*brokers, *proxies))
        yield Fleet(f"grpc://{_reachable(reached[0].grpc)}", token, reached)
    finally:
        for task in keeping:
            task.cancel()
        await asyncio.gather(*keeping, return_exceptions=True)
        for children in (proxies, brokers):
            await asyncio.gather(*(child.stop() for child in children))


def _broker(settings: UpSettings, number: int) -> Child:
    flags = {
        "--data": settings.data_dir.absolute() / f"broker-{number}",
        "--broker-service": "broker",
        "--broker-index": number,
        "--broker-count": settings.up_brokers,
        "--queue-size": settings.queue_size,
        "--visibility-timeout": format_duration(settings.visibility_timeout),
        "--partitions-per-topic": settings.partitions_per_topic,
        "--durability": settings.durability,
        "--topics": format_topics(settings.topics),
    }
    return Child(f"broker-{number}", "broker", _flags(flags))


def _proxy(
    settings: UpSettings, number: int, brokers: Sequence[Child], at: Sequence[Addresses], token: str | None
) -> Child:
    flags = {
        "--host": settings.host,
        "--brokers": ",".join(f"{broker.name}={each.grpc}" for broker, each in zip(brokers, at, strict=True)),
        "--partitions-per-topic": settings.partitions_per_topic,
        "--max-connections": settings.max_connections,
        "--max-calls-per-client": settings.max_calls_per_client,
        "--tokens-file": settings.tokens_file.absolute() if settings.tokens_file else "",
    }
    switches = [
        flag
        for flag, is_on in (("--insecure", settings.insecure), ("--http-anonymous", settings.http_anonymous))
        if is_on
    ]
    # The first one is shown to the brokers, which ask for none; a command line could be read by every user.
    tokens = {} if token is None else {"SERVICE_TOKEN": ",".join((token, *settings.service_tokens))}
    return Child(f"proxy-{number}", "proxy", [*_flags(flags), *switches], tokens)


def _flags(flags: dict[str, object]) -> list[str]:
    return [word for flag, value in flags.items() if value != "" for word in (flag, str(value))]


def _reachable(address: str) -> str:
    """The address for a client of this machine."""
    host, _, port = address.rpartition(":")
    return f"{ {'0.0.0.0': '127.0.0.1', '[::]': '[::1]'}.get(host, host) }:{port}"  # noqa: S104


def _clean_environment() -> dict[str, str]:
    """This process's, without what says how services should be: these are told by flags."""
    settings = [setting for service in SERVICES for setting in describe(service)]
    hidden = {name for setting in settings for name in (setting.variable, setting.file_variable)}
    return {name: value for name, value in os.environ.items() if name.upper() not in hidden}


def _ending(status: int) -> str:
    return f"signal {-status}" if status < 0 else f"status {status}"
