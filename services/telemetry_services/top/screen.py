"""What `telemetry top` shows."""

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from telemetry_broker.errors import UnavailableError
from telemetry_services.text import counted, printable
from telemetry_services.top.client import FleetClient, FleetNow, GpuLine

REFRESH_SECONDS: Final = 1.0
_BARS: Final = " ▁▂▃▄▅▆▇█"
_SILENT: Final = "×"
_VIRIDIS: Final = ("#414487", "#2a788e", "#22a884", "#7ad151", "#fde725")
_HEAD_LINES: Final = 8

_KEYS: Final[dict[str, Callable[[GpuLine], tuple[float, str]]]] = {
    "util": lambda gpu: (-_or_low(gpu.util), gpu.name),
    "temp": lambda gpu: (-_or_low(gpu.temp), gpu.name),
    "power": lambda gpu: (-_or_low(gpu.power), gpu.name),
    "memory": lambda gpu: (-_or_low(gpu.memory), gpu.name),
    "silent": lambda gpu: (-gpu.silent_seconds, gpu.name),
    "name": lambda gpu: (0.0, gpu.name),
}


class Screen:
    """Draws the fleet.

    Args:
        sort: which GPUs lead: `util`, `temp`, `power`, `memory`, `silent` or `name`.
        text: only GPUs with this in a name.
    """

    def __init__(self, *, sort: str = "util", text: str = "") -> None:
        self._key = _KEYS[sort]
        self._sort = sort
        self._text = text.casefold()
        self._console = Console(highlight=False)

    def print_once(self, fleet: FleetNow) -> None:
        """Prints one state."""
        self._console.print(self.render(fleet, rows=20))

    def run(self, client: FleetClient) -> None:
        """Shows it until Ctrl-C; an API that is away is told, and asked again."""
        trouble = ""
        fleet = client.fetch()
        with Live(console=self._console, screen=True, auto_refresh=False) as live:
            while True:
                rows = max(3, self._console.height - _HEAD_LINES - min(10, self._console.height // 4))
                live.update(self.render(fleet, rows, trouble), refresh=True)
                time.sleep(REFRESH_SECONDS)
                try:
                    fleet, trouble = client.fetch(), ""
                except UnavailableError as error:
                    trouble = error.message

    def render(self, fleet: FleetNow, rows: int, trouble: str = "") -> RenderableType:
        """Totals, hosts, and as many GPUs as there is room for."""
        gpus = [gpu for gpu in fleet.gpus if self._text in f"{gpu.name} {gpu.job} {gpu.model}".casefold()]
        parts: list[RenderableType] = [self._totals(gpus, fleet)]
        if trouble:
            parts.append(Text(printable(trouble), style="bold red"))
        if not gpus:
            why = (
                "no GPU matches the filter"
                if fleet.gpus
                else "no GPU has reported yet: `telemetry up` streams a sample"
            )
            return Group(*parts, Text(why))
        hosts = max(1, min(10, self._console.height // 4))
        return Group(*parts, Text(), *self._hosts(gpus, hosts), Text(), self._table(gpus, rows))

    def _totals(self, gpus: list[GpuLine], fleet: FleetNow) -> Text:
        live = [gpu for gpu in gpus if not gpu.silent_seconds]
        silent = len(gpus) - len(live)
        text = Text.assemble((counted(len(live), "GPU"), "bold"), f" of {len(gpus):,} report")
        text.append(" · ").append(f"{silent:,} silent", style="bold red" if silent else "")
        text.append(f" · {_shown(_mean(gpu.util for gpu in live), '%')} mean utilisation")
        text.append(f" · {sum(gpu.power for gpu in live if not math.isnan(gpu.power)) / 1000:,.1f} kW")
        hottest = max(live, key=lambda gpu: _or_low(gpu.temp), default=None)
        if hottest is not None and not math.isnan(hottest.temp):
            text.append(f" · hottest {_shown(hottest.temp, '°C')} {printable(hottest.name)}")
        text.append(time.strftime("  %H:%M:%S", time.localtime(fleet.time_ms / 1000)), style="dim")
        return text

    def _hosts(self, gpus: list[GpuLine], most: int) -> Iterable[RenderableType]:
        """Hosts as bars, a character a GPU; those with silent GPUs first, then the busiest."""
        by_host: defaultdict[str, list[GpuLine]] = defaultdict(list)
        for gpu in gpus:
            by_host[gpu.host].append(gpu)
        order = sorted(
            by_host.items(),
            key=lambda one: (-sum(gpu.silent_seconds > 0 for gpu in one[1]), -_or_low(_mean_util(one[1]))),
        )
        table = Table.grid(padding=(0, 2))
        columns = max(1, self._console.width // 44)
        cells = [cell for host, members in order[: most * columns] for cell in (_name(host), _bars(members))]
        for start in range(0, len(cells), 2 * columns):
            row = cells[start : start + 2 * columns]
            table.add_row(*row, *[Text()] * (2 * columns - len(row)))
        yield table
        if len(order) > most * columns:
            yield Text(f"and {counted(len(order) - most * columns, 'more host')}", style="dim")

    def _table(self, gpus: list[GpuLine], rows: int) -> Table:
        table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim", expand=True)
        table.add_column("GPU", no_wrap=True, min_width=min(32, max(len(gpu.name) for gpu in gpus)))
        for title in ("util", "temp", "power", "memory"):
            marked = f"{title} ▾" if title == self._sort else title
            table.add_column(marked, justify="right", no_wrap=True, min_width=8)
        table.add_column("job", no_wrap=True, overflow="ellipsis", ratio=1)
        for gpu in sorted(gpus, key=self._key)[:rows]:
            style = "red" if gpu.silent_seconds else ""
            job = f"silent for {gpu.silent_seconds:,.0f} s" if gpu.silent_seconds else gpu.job
            table.add_row(
                Text(printable(gpu.name), style=style),
                Text(_shown(gpu.util, "%"), style=style or _color(gpu.util)),
                Text(_shown(gpu.temp, "°C"), style=style),
                Text(_shown(gpu.power, "W"), style=style),
                Text(_shown(gpu.memory / 1024, "GiB"), style=style),
                Text(printable(job), style=style or "dim"),
            )
        return table


def _name(host: str) -> Text:
    return Text(printable(host))


def _bars(gpus: list[GpuLine]) -> Text:
    text = Text()
    for gpu in sorted(gpus, key=lambda gpu: gpu.name)[:16]:
        if gpu.silent_seconds:
            text.append(_SILENT, style="bold red")
        else:
            share = 0.0 if math.isnan(gpu.util) else min(1.0, max(0.0, gpu.util / 100))
            text.append(_BARS[max(1, round(share * (len(_BARS) - 1)))], style=_color(gpu.util))
    return text.append(f" {_shown(_mean_util(gpus), '%')}", style="dim")


def _mean_util(gpus: list[GpuLine]) -> float:
    return _mean(gpu.util for gpu in gpus if not gpu.silent_seconds)


def _mean(values: Iterable[float]) -> float:
    there = [value for value in values if not math.isnan(value)]
    return sum(there) / len(there) if there else math.nan


def _or_low(value: float) -> float:
    return -math.inf if math.isnan(value) else value


def _color(percent: float) -> str:
    if math.isnan(percent):
        return "dim"
    return _VIRIDIS[min(len(_VIRIDIS) - 1, int(max(0.0, percent) / 100 * len(_VIRIDIS)))]


def _shown(value: float, unit: str) -> str:
    return "-" if math.isnan(value) else f"{value:,.0f} {unit}"
