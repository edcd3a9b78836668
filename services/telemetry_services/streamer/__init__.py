"""The streamer: a CSV dump of dcgm-exporter into a topic, each row exactly once, with no state of its own."""

from telemetry_services.streamer.csv_streamer import CsvStreamer, Options
from telemetry_services.streamer.progress import Progress

__all__ = ["CsvStreamer", "Options", "Progress"]
