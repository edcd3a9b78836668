"""What `telemetry up` keeps records in: one broker in this process, or several behind proxies."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import telemetry_broker as tb
from telemetry_broker import _core
from telemetry_broker.errors import BrokerError
from telemetry_services.api.live.feed import Connect
from telemetry_services.broker.grpc_front import GrpcFront
from telemetry_services.broker.metering import BrokerMetrics, FrontMetrics
from telemetry_services.broker.process import describe_broker, why_unready
from telemetry_services.up.children import Addresses, Fleet


@dataclass(frozen=True, slots=True)
class Queue:
    """Exactly one of `core` and `fleet` is there.

    Attributes:
        broker: for those of this process.
        connect_aio: connects to it anew, for those of an event loop.
    """

    broker: tb.Broker
    core: _core.Broker | None
    fleet: Fleet | None
    connect_aio: Connect

    @property
    def proxies(self) -> Sequence[Addresses]:
        """Where they listen."""
        return () if self.fleet is None else self.fleet.proxies

    def describe(self) -> dict[str, Any]:
        """Its fields of `/health`."""
        if self.core is not None:
            return describe_broker(self.core)
        return {"proxies": [proxy.http for proxy in self.proxies]}

    def metrics(self, grpc_server: GrpcFront) -> BrokerMetrics | FrontMetrics:
        """Its metrics, and those of the gRPC port."""
        return FrontMetrics(grpc_server, "up") if self.core is None else BrokerMetrics(self.core, grpc_server)

    def why_unready(self) -> str:
        """Why no record can be taken now; empty when one can."""
        if self.core is not None:
            return why_unready(self.core)
        try:
            self.broker.describe()
        except BrokerError as error:
            return f"the brokers do not answer: {error}"
        return ""
