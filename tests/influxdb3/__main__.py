"""A stand-in as a process: it prints where it listens, and ends with its standard input."""

import argparse
import sys

from tests.influxdb3.server import StandIn


def main() -> None:
    """Serves until standard input ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--counting", action="store_true", help="count lines and keep nothing")
    parser.add_argument("--port", type=int, default=0)
    arguments = parser.parse_args()
    with StandIn(counting=arguments.counting, port=arguments.port) as server:
        print(f"listening {server.address}", flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
