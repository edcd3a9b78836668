"""`telemetry top`: the fleet in a terminal, over the REST API."""
