"""The older system's endpoints over HTTP: `/produce`, `/consume`, `/ack`, `/topics`. Written down in docs/http.md."""

from telemetry_services.broker.compat.app import CompatibilityEndpoints
from telemetry_services.broker.compat.upstream import ChannelUpstream, CoreUpstream

__all__ = ["ChannelUpstream", "CompatibilityEndpoints", "CoreUpstream"]
