"""The Rust core by itself: `cargo bench -p broker_core`, whose figures are taken from the lines that name a target."""

import re
import subprocess
from collections.abc import Iterator

from benchmarks.results import ROOT, Result

PAYLOAD_BYTES = 450
_FIGURE = re.compile(r"^(?P<name>.+): (?P<value>[\d.]+) (?P<unit>.+) \(target (?P<sign>>=|<=) (?P<target>[\d.]+) ")


def measure_core() -> Iterator[Result]:
    """Takes about eight minutes, half of it to build."""
    command = ["cargo", "bench", "--quiet", "--package", "broker_core"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    for line in done.stdout.splitlines():
        if figure := _FIGURE.match(line):
            yield Result(
                f"core: {figure['name']}",
                float(figure["value"]),
                figure["unit"],
                "Rust, cargo bench, batches of 500 where records are appended or leased",
                payload_bytes=PAYLOAD_BYTES,
                target=float(figure["target"]),
                lower_is_better=figure["sign"] == "<=",
            )
