"""The GPU telemetry pipeline on telemetry-broker: broker, streamer, collector and API services, and `telemetry up`.

Dependencies point one way, services -> telemetry_broker: a service turns files and wire messages into library calls and
keeps no queue, log or ring of its own.
"""

__version__ = "2.0.0"
