"""How a service ends: the first SIGTERM or Ctrl-C drains it, a second one ends it at once."""

import asyncio
import ctypes
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Final

_PR_SET_PDEATHSIG: Final = 1  # of prctl(2)


def end_with(parent: int) -> None:
    """Has this process sent a SIGTERM when its parent ends, however that ends.

    Args:
        parent: the process that started this one, from its main thread; if it is gone already, this one exits.

    Raises:
        OSError: the system cannot do it.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    if os.getppid() != parent:
        sys.exit(0)


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
