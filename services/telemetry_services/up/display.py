"""What `telemetry up` shows: a progress bar and a live line on a terminal, plain lines anywhere else."""

import sys
import time
from collections.abc import Iterable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Final, Self

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from telemetry_services.streamer import Progress as Streamed
from telemetry_services.text import printable

_PLAIN_SECONDS: Final = 5.0


class _Bar(Progress):
    """A progress bar, and the rates on a line of their own, which a narrow terminal wraps."""

    def __init__(self, console: Console) -> None:
        self.rates = ""
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
        super().__init__(*columns, console=console)

    def get_renderables(self) -> Iterable[RenderableType]:
        """The bar, then the rates."""
        yield from super().get_renderables()
        yield Text(self.rates)


class Display(AbstractContextManager["Display"]):
    """On anything but a terminal there are no control codes, and a line about the state each 5 s."""

    def __init__(self) -> None:
        self._console = Console(file=sys.stdout, highlight=False)
        self._terminal = self._console.is_terminal
        self._progress: _Bar | None = None
        self._task = TaskID(0)
        self._live: Live | None = None
        self._told_at = time.monotonic()
        self._began = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def say(self, line: str) -> None:
        """Prints a line that stays."""
        self._console.print(printable(line), markup=False, soft_wrap=True)

    def begin_streaming(self, name: str) -> None:
        """Starts the progress bar."""
        self._began = time.monotonic()
        if self._terminal:
            self._progress = _Bar(self._console)
            self._task = self._progress.add_task(name, total=None)
            self._progress.start()

    def streaming(self, streamed: Streamed, stored: int) -> None:
        """Shows how far the streamer and the collector are.

        Args:
            stored: samples stored since the start.
        """
        seconds = max(time.monotonic() - self._began, 0.001)
        sent, kept = streamed.rows / seconds, stored / seconds
        rates = f"{streamed.rows:,} rows, {sent:,.0f}/s · {stored:,} samples stored, {kept:,.0f}/s"
        if self._progress is not None:
            self._progress.rates = rates
            self._progress.update(self._task, completed=streamed.position, total=streamed.size or None)
        else:
            share = f"{streamed.position / streamed.size:.0%} · " if streamed.size else ""
            self._tell(f"streaming {share}{rates}")

    def live(self, line: str) -> None:
        """Shows the live line."""
        line = printable(line)
        if not self._terminal:
            self._tell(line)
        elif self._live is None:
            self._live = Live(Text(line), console=self._console, auto_refresh=False)
            self._live.start(refresh=True)
        else:
            self._live.update(Text(line), refresh=True)

    def end(self) -> None:
        """Leaves what is shown as it is, and lets go of the terminal."""
        for shown in (self._progress, self._live):
            if shown is not None:
                shown.stop()
        self._progress = self._live = None

    def _tell(self, line: str) -> None:
        if time.monotonic() - self._told_at >= _PLAIN_SECONDS:
            self._told_at = time.monotonic()
            self.say(line)
