"""The subcommands: which settings each has, what its help teaches, and what it runs."""

import importlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import click

log = logging.getLogger(__name__)

CONTEXT: Final = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


@dataclass(frozen=True, slots=True)
class ServiceCommand:
    """One subcommand.

    Attributes:
        settings: name of its model in `telemetry_services.config`.
        runner: `module:function` of `serve(settings, stopping) -> int`.
        subcommands: `module:tuple` of commands that work on a running one; empty: it has none.
        actions: names of tools that are commands of this one, too.
    """

    summary: str
    text: str
    settings: str
    runner: str
    subcommands: str = ""
    actions: tuple[str, ...] = ()

    def build(self, name: str) -> click.Command:
        """The command with an option for each setting."""
        from telemetry_services import config
        from telemetry_services.serving.lifetime import run_until_signalled
        from telemetry_services.serving.memory import keep_freed_memory

        model: type[config.ServiceSettings] = getattr(config, self.settings)
        options: list[click.Parameter] = [_option(setting) for setting in config.describe(model)]

        def run(**flags: Any) -> int:
            if click.get_current_context().invoked_subcommand is not None:
                return 0
            from telemetry_services.observability.logs import configure_logging

            resolution = config.resolve(model, {name: value for name, value in flags.items() if value})
            settings = resolution.checked()
            configure_logging(name, settings.log_level, settings.log_format, config.secrets_of(settings))
            for warning in resolution.warnings:
                log.warning("%s", warning)
            for remark in config.remarks(settings):
                log.info("%s", remark)
            keep_freed_memory()
            serve: Callable[..., Any] = _named(self.runner)
            return run_until_signalled(lambda stopping: serve(settings, stopping))

        described: dict[str, Any] = {
            "callback": run,
            "params": options,
            "short_help": self.summary,
            "help": f"{self.summary}\n\n{self.text}",
            "context_settings": CONTEXT,
        }
        if not self.subcommands and not self.actions:
            return click.Command(name, **described)
        from telemetry_services.cli.tools import TOOLS

        found = _named(self.subcommands) if self.subcommands else ()
        commands = {str(command.name): command for command in found} | {each: TOOLS[each] for each in self.actions}
        return click.Group(name, commands=commands, invoke_without_command=True, **described)


def _named(place: str) -> Any:
    """What `module:name` names."""
    module, name = place.split(":")
    return getattr(importlib.import_module(module), name)


def _option(setting: Any) -> click.Option:
    default = f"; default {setting.default}" if setting.default and not setting.is_switch else ""
    return click.Option(
        [setting.flag, setting.name],
        is_flag=setting.is_switch,
        default=None,
        help=f"{setting.description}  [{setting.variable}{default}]",
        metavar=None if setting.is_switch else _metavar(setting.expected),
    )


def _metavar(expected: str) -> str:
    for start, shown in (("a whole number", "N"), ("a number", "N"), ("a duration", "DURATION"), ("a path", "PATH")):
        if expected.startswith(start):
            return shown
    if expected.startswith("one of "):
        return "|".join(expected.removeprefix("one of ").split(", "))
    return "URL" if "://" in expected else "TEXT"


COMMANDS: Final[dict[str, ServiceCommand]] = {
    "broker": ServiceCommand(
        "Keep topics in a folder and serve them over gRPC.",
        "Serves BrokerService with health and reflection on the gRPC port, and /health, /ready and /metrics on the "
        "HTTP port. SIGTERM drains it: calls are finished, buffers written, the folder is closed.",
        "BrokerSettings",
        "telemetry_services.broker.process:serve",
        actions=("drain",),
    ),
    "proxy": ServiceCommand(
        "Serve several brokers as one.",
        "Serves the BrokerService of all its brokers on the gRPC port; partitions are placed on them by consistent "
        "hashing, and go elsewhere while one is away. Any number of proxies can run side by side. /health, /ready, "
        "/metrics, /status and /stats are on the HTTP port, beside the endpoints of the brokers.\n\n"
        "Example: telemetry proxy --brokers 10.0.0.1:9090,10.0.0.2:9090",
        "ProxySettings",
        "telemetry_services.proxy.process:serve",
    ),
    "streamer": ServiceCommand(
        "Stream a CSV dump of dcgm-exporter into a topic, each row exactly once.",
        "Run it again after a crash, or after the dump has grown, and it goes on where it stopped; after a finished "
        "run it adds nothing. Rows that cannot be used are counted by reason and kept in a reject file.\n\n"
        "Example: telemetry streamer --csv dump.csv --csv-delay-ms 0 --broker-url grpc://127.0.0.1:9090",
        "StreamerSettings",
        "telemetry_services.streamer.process:serve",
    ),
    "collector": ServiceCommand(
        "Store a topic's telemetry in a Delta Lake table or InfluxDB 3, exactly once.",
        "Records are acked only once they are stored. Those that cannot be decoded, or that the store will never take, "
        "go to the dead-letter topic. The subcommands work on a collector that runs.\n\n"
        "Example: telemetry collector --broker-url grpc://127.0.0.1:9090 --store delta:///var/lib/telemetry/store",
        "CollectorSettings",
        "telemetry_services.collector.process:serve",
        "telemetry_services.cli.collector_control:SUBCOMMANDS",
    ),
    "api": ServiceCommand(
        "Answer for the stored telemetry over REST.",
        "Serves /api/v1/... with an API key, its documentation at /swagger/, and /health, /ready and /metrics for "
        "everyone.\n\n"
        "Example: telemetry api --store delta:///var/lib/telemetry/store --broker-url grpc://127.0.0.1:9090",
        "ApiSettings",
        "telemetry_services.api.process:serve",
    ),
    "up": ServiceCommand(
        "Run everything in one process: broker, streamer, collector and api.",
        "Streams a sample dump (or --csv FILE) through the broker into the store, shows the rates, then goes on as a "
        "live fleet and answers over REST until Ctrl-C. Nothing else is needed, and everything is kept in --data.\n\n"
        "Example: telemetry up --csv dump.csv --once",
        "UpSettings",
        "telemetry_services.up.process:serve",
    ),
}
