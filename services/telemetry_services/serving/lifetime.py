"""How a service ends: the first SIGTERM or Ctrl-C drains it, a second one ends it at once."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable


def run_until_signalled(serve: Callable[[asyncio.Event], Awaitable[int]]) -> int:
    """Runs `serve(stopping)` and returns its exit status; `stopping` is set by the first SIGTERM or SIGINT.

    A second signal ends the process without a drain, with the status a shell gives to a signal.
    """

    async def main() -> int:
        stopping = asyncio.Event()

        def signalled(number: int) -> None:
            if stopping.is_set():
                os._exit(128 + number)
            stopping.set()

        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, signalled, number)
        return await serve(stopping)

    return asyncio.run(main())
