"""A DCGM dump from its file into the store, by `telemetry up --once` in a process of its own."""

import os
import re
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.broker import TELEMETRY
from benchmarks.make_dump import write_dump
from benchmarks.results import Result
from benchmarks.workload import Workload

STORED = re.compile(r"stored ([\d,]+) samples of ([\d,]+) from .* \(([\d,]+) samples/s\)")
DURABILITY = "os; store fsynced"


@dataclass(frozen=True, slots=True)
class Run:
    """One run of the command, from outside."""

    output: str
    ready_seconds: float
    """From the start of the process until it said where the API is; streaming begins then."""
    answered_seconds: float
    """... until it printed what the store answers for."""
    exit_seconds: float
    peak_rss_bytes: int


def measure_dump(workload: Workload, rows: int) -> Iterator[Result]:
    """Samples a second, as the command counts them and from outside, and its peak memory."""
    with workload.scratch() as folder:
        dump = folder / "dump.csv"
        size = write_dump(rows, dump)
        run = run_once(dump, folder / "data")
    printed = STORED.search(run.output)
    if printed is None:
        raise SystemExit(f"dump: `telemetry up --once` did not say what it stored; it said:\n{run.output[-2000:]}")
    stored, expected, samples_per_second = (int(text.replace(",", "")) for text in printed.groups())
    if (stored, expected) != (rows, rows):
        raise SystemExit(f"dump: {rows:,} rows went in, the store answers for {stored:,} of {expected:,}")

    client = f"telemetry up --once, Delta store, {size / 1e6:,.0f} MB CSV"
    for name, rate, target in (
        ("stored, as printed", samples_per_second, 200_000),
        ("stored and counted by a query", rows / (run.answered_seconds - run.ready_seconds), 200_000),
        ("process start to exit", rows / run.exit_seconds, None),
    ):
        yield Result(f"dump of {rows:,}: {name}", rate, "samples/s", client, None, DURABILITY, target)
    yield Result(
        f"dump of {rows:,}: peak RSS (ru_maxrss)",
        run.peak_rss_bytes / 1e6,
        "MB",
        client,
        None,
        DURABILITY,
        target=600,
        lower_is_better=True,
    )


def run_once(dump: Path, data: Path) -> Run:
    """Runs the command to its end.

    Linux counts a parent's memory at the time of the fork into a child's ru_maxrss, so this is measured first, while
    the harness itself is small.
    """
    command = [str(TELEMETRY), "up", "--once", "--port", "0", "--grpc-port", "0"]
    command += ["--csv", str(dump), "--data", str(data)]
    ready = answered = 0.0
    lines: list[str] = []
    started = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            if line.startswith("API "):
                ready = time.perf_counter() - started
            elif STORED.search(line):
                answered = time.perf_counter() - started
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    ended = time.perf_counter() - started
    output = "".join(lines)
    if process.returncode != 0:
        raise SystemExit(f"dump: `telemetry up --once` ended with {process.returncode}; it said:\n{output[-2000:]}")
    return Run(output, ready, answered, ended, usage.ru_maxrss * 1024)
