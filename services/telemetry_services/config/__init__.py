"""Settings of the services: one model per service. Flags win over variables, those over the TOML file.

    settings = load(BrokerSettings, flags={"port": "0"})

``resolve`` tells where each value came from, and everything that is wrong at once. ``describe`` lists what a model has:
the command line's options come from it, and so does docs/configuration.md.
"""

from telemetry_services.config.loading import SERVICES, load, remarks, resolve, secrets_of, unread_variables
from telemetry_services.config.models import (
    ApiSettings,
    BrokerSettings,
    CollectorSettings,
    CoreSettings,
    ProxySettings,
    ServiceSettings,
    StreamerSettings,
    UpSettings,
)
from telemetry_services.config.resolution import Effective, Resolution
from telemetry_services.config.settings import Setting, describe

__all__ = [
    "SERVICES",
    "ApiSettings",
    "BrokerSettings",
    "CollectorSettings",
    "CoreSettings",
    "Effective",
    "ProxySettings",
    "Resolution",
    "ServiceSettings",
    "Setting",
    "StreamerSettings",
    "UpSettings",
    "describe",
    "load",
    "remarks",
    "resolve",
    "secrets_of",
    "unread_variables",
]
