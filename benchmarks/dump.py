"""A DCGM dump from its file into the store, by `telemetry up --once` in a process of its own."""

import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.broker import TELEMETRY
from benchmarks.make_dump import write_dump
from benchmarks.results import Result
from benchmarks.workload import Workload

STORED = re.compile(r"stored ([\d,]+) samples of ([\d,]+) from .* \(([\d,]+) samples/s\)")
DURABILITY = "os; store fsynced"


def measure_dump(workload: Workload, rows: int) -> Iterator[Result]:
    """Samples a second, as the command counts them by a query and from outside, and its peak memory."""
    with workload.scratch() as folder:
        dump = folder / "dump.csv"
        size = write_dump(rows, dump)
        started = time.perf_counter()
        output, peak_rss_bytes = run_once(dump, folder / "data")
        seconds = time.perf_counter() - started
    printed = STORED.search(output)
    if printed is None:
        raise SystemExit(f"dump: `telemetry up --once` did not say what it stored; it said:\n{output[-2000:]}")
    stored, expected, samples_per_second = (int(text.replace(",", "")) for text in printed.groups())
    if (stored, expected) != (rows, rows):
        raise SystemExit(f"dump: {rows:,} rows went in, the store answers for {stored:,} of {expected:,}")

    name, client = f"dump of {rows:,} rows", f"telemetry up --once, Delta store, {size / 1e6:,.0f} MB CSV"
    yield Result(f"{name}: as printed", samples_per_second, "samples/s", client, None, DURABILITY, target=200_000)
    yield Result(f"{name}: whole process", rows / seconds, "samples/s", f"{client}, start to exit", None, DURABILITY)
    yield Result(
        f"{name}: peak RSS",
        peak_rss_bytes / 1e6,
        "MB",
        f"{client}, ru_maxrss of the one process",
        None,
        DURABILITY,
        target=600,
        lower_is_better=True,
    )


def run_once(dump: Path, data: Path) -> tuple[str, int]:
    """Runs the command to its end; returns what it printed and its peak resident memory in bytes.

    Linux counts a parent's memory at the time of the fork into a child's ru_maxrss, so this is measured first, while
    the harness itself is small.
    """
    command = [
        str(TELEMETRY),
        "up",
        "--once",
        "--csv",
        str(dump),
        "--data",
        str(data),
        "--port",
        "0",
        "--grpc-port",
        "0",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(
            f"dump: `telemetry up --once` ended with status {process.returncode}; it said:\n{output[-2000:]}"
        )
    return output, usage.ru_maxrss * 1024
