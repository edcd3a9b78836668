"""Settings of the services: one model per service. Flags win over variables, those over the TOML file.

    settings = load(BrokerSettings, flags={"port": "0"})

``describe`` lists what a model has: the command line's options come from it, and so can a reference page.
"""

from telemetry_services.config.loading import load, remarks, secrets_of
from telemetry_services.config.models import (
    ApiSettings,
    BrokerSettings,
    CollectorSettings,
    ServiceSettings,
    StreamerSettings,
    UpSettings,
)
from telemetry_services.config.settings import Setting, describe

__all__ = [
    "ApiSettings",
    "BrokerSettings",
    "CollectorSettings",
    "ServiceSettings",
    "Setting",
    "StreamerSettings",
    "UpSettings",
    "describe",
    "load",
    "remarks",
    "secrets_of",
]
