"""``python -m telemetry_broker``: see ``telemetry_broker.cli``."""

import sys

from telemetry_broker.cli import main

if __name__ == "__main__":
    sys.exit(main())
