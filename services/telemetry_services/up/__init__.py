"""`telemetry up`: broker, streamer, collector and api in one process, over one embedded broker."""
