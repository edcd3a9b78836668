"""What a measurement is, and how measurements and the machine they ran on are shown."""

import os
import platform
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class Result:
    """One figure, with all that makes it one: the payload, the durability, the client, and what it is held against."""

    name: str
    value: float
    unit: str
    client: str
    """Who did it: transport, calls and their sizes."""
    payload_bytes: int | None = None
    durability: str | None = None
    target: float | None = None
    lower_is_better: bool = False
    limit: str | None = None
    """What bounds it from outside, measured in the same run, ..."""
    limit_ratio: float | None = None
    """... and the result as a part of that."""

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None without one."""
        if self.target is None:
            return None
        return self.value <= self.target if self.lower_is_better else self.value >= self.target


COLUMNS = ("measurement", "payload", "durability", "client", "result", "target", "of the limit")


def as_row(result: Result) -> tuple[str, ...]:
    target = ""
    if result.target is not None:
        verdict = "met" if result.met else "MISSED"
        target = f"{'<=' if result.lower_is_better else '>='} {result.target:,.10g} {verdict}"
    return (
        result.name,
        f"{result.payload_bytes} B" if result.payload_bytes else "-",
        result.durability or "-",
        result.client,
        f"{_rounded(result.value)} {result.unit}",
        target or "-",
        f"{result.limit_ratio:.1%} of {result.limit}" if result.limit_ratio is not None else "-",
    )


def _rounded(value: float) -> str:
    """Whole, or two digits behind the point where a whole number would say too little."""
    return f"{value:,.0f}" if value >= 100 else f"{value:,.2f}"


def as_table(results: Iterable[Result]) -> str:
    """A table that reads well in a terminal and is Markdown as well."""
    rows = [COLUMNS, *map(as_row, results)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class Machine:
    """Where and with what the figures came about."""

    cpu: str
    cores: int
    memory_gib: float
    kernel: str
    python: str
    commit: str
    filesystem: str
    """Of the folder that the brokers kept their data in."""

    def __str__(self) -> str:
        return (
            f"{self.cpu}, {self.cores} cores, {self.memory_gib:.0f} GiB memory, Linux {self.kernel}, data on "
            f"{self.filesystem}, Python {self.python}, commit {self.commit}"
        )


def this_machine(folder: Path) -> Machine:
    return Machine(
        cpu=_cpu(),
        cores=len(os.sched_getaffinity(0)),
        memory_gib=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30,
        kernel=platform.release(),
        python=platform.python_version(),
        commit=_commit(),
        filesystem=_filesystem(folder.resolve()),
    )


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def _commit() -> str:
    described = subprocess.run(
        ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--exclude", "*"],
        capture_output=True,
        text=True,
        check=False,
    )
    return described.stdout.strip() or "unknown"


def _filesystem(folder: Path) -> str:
    """The type of the mount that holds the folder: the longest mount point above it."""
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines()]
    above = [(len(point), kind) for point, kind in mounts if folder.is_relative_to(point)]
    return max(above, default=(0, "an unknown file system"))[1]
