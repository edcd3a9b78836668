"""The ports of a service that may stand beside others on one machine."""

import socket
from typing import Final

from telemetry_services.config.models import GrpcPortSettings
from telemetry_services.serving.sockets import listen, listen_nearby

_NAMES: Final = {"port": ("PORT", "--port"), "grpc_port": ("GRPC_PORT", "--grpc-port")}


def listen_for(settings: GrpcPortSettings, field: str) -> socket.socket:
    """A port that was asked for is taken or refused; a default one may be the next free one."""
    bind = listen if field in settings.model_fields_set else listen_nearby
    variable, flag = _NAMES[field]
    return bind(settings.host, getattr(settings, field), variable=variable, flag=flag)


def free_grpc_port(settings: GrpcPortSettings) -> int:
    """The gRPC port, looked for in the same way; the server binds it by itself, and finds one for 0."""
    if settings.grpc_port == 0:
        return 0  # one that is free now could be another's by then
    with listen_for(settings, "grpc_port") as probe:
        return int(probe.getsockname()[1])
