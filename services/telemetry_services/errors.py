"""Errors of the services: the codes they add to the one hierarchy under ``telemetry_broker.BrokerError``.

Store errors (``store.*``) live with the stores. What each code is on the wire is said in `telemetry_services.codes`.
"""

from telemetry_broker.errors import BrokerError


class ServiceError(BrokerError):
    """Base of what only a service can get wrong."""

    default_code = "service.failed"


class ConfigError(ServiceError):
    """A setting is missing, malformed, out of bounds or not supported yet; nothing was started. Exit status 2."""

    default_code = "config.invalid"


class AddressError(ServiceError):
    """The address cannot be listened on; the message says what to give."""

    default_code = "address.unusable"


class ApiKeyError(ServiceError):
    """The API key cannot be kept where it should be; the message says what else there is."""

    default_code = "api.key"


class PortInUseError(ServiceError):
    """Another process listens on the port; the message says how to choose another one."""

    default_code = "port.in_use"


class SourceError(ServiceError):
    """A file cannot be streamed: it is missing, unreadable, of the wrong kind, or has no good row."""

    default_code = "source.unreadable"
