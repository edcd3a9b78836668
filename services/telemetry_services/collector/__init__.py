"""The collector: from a topic into a store, each record exactly once."""

from telemetry_services.collector.collector import Bounds, Collector, Status

__all__ = ["Bounds", "Collector", "Status"]
