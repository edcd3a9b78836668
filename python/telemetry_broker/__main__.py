"""``python -m telemetry_broker``: see ``telemetry_broker.cli``."""

import sys

if __name__ == "__main__":
    try:
        from telemetry_broker.cli import main

        sys.exit(main())
    except KeyboardInterrupt:  # before the program was there to take it
        sys.exit(130)
