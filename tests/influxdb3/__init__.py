"""A stand-in for InfluxDB 3 Core: its write endpoints, and queries over Arrow Flight, on one port.

It answers as a real 3.6 server does, status codes and error bodies included, keeps points by their identity (database,
table, tags, time; a point written again overwrites its fields), and fails when it is told to:

    with StandIn() as server:
        server.fail(Status(503), Dropped())    # the next two writes: refused, and stored with the answer lost
        with server.failing(Status(500)): ...  # every write within the block
        with server.away(): ...                # nobody listens
        server.points("telemetry")             # what is stored

`python -m tests.influxdb3 --counting` is one in a process of its own that only counts, for benchmarks.
"""

from tests.influxdb3.faults import Dropped, Fault, Half, Slow, Status
from tests.influxdb3.server import StandIn

__all__ = ["Dropped", "Fault", "Half", "Slow", "StandIn", "Status"]
