"""The benchmarks: `make bench`, or `python benchmarks/run.py --help`.

Every figure stands in one table with its payload, durability and client, its target where there is one, and what bounds
it from outside, measured in the same run. A peer gets a module in `benchmarks/peers/` that does the same work
(`workload.py`) and yields the same `Result`.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from functools import partial
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.api import measure_api
from benchmarks.broker import measure_file, measure_grpc
from benchmarks.collector import measure_collector
from benchmarks.consumers import measure_consumers
from benchmarks.core import measure_core
from benchmarks.dump import measure_dump
from benchmarks.failover import measure_failover
from benchmarks.idle import measure_idle
from benchmarks.latency import RECORDS_PER_SECOND, measure_latency
from benchmarks.load import Load
from benchmarks.proxy import measure_proxy
from benchmarks.results import ROOT, Result, as_table, this_machine
from benchmarks.ring import measure_ring
from benchmarks.security import measure_security
from benchmarks.store import measure_store
from benchmarks.workload import Workload

# The dump comes first: see dump.run_once.
MEASUREMENTS = (
    "dump",
    "file",
    "grpc",
    "latency",
    "security",
    "consumers",
    "proxy",
    "failover",
    "collector",
    "idle",
    "ring",
    "store",
    "api",
)
# Asked for by name, since it builds and runs for eight minutes.
ON_REQUEST = ("core",)
PAGE = ROOT / "docs/benchmarks.md"
BEGIN, END = "<!-- BEGIN make bench -->", "<!-- END make bench -->"
HEADING = "### "


def main() -> None:
    options = parse_arguments()
    with TemporaryDirectory(dir=options.folder, prefix="telemetry-bench-") as name:
        folder = Path(name)
        workload = Workload(options.records, options.rounds, folder)
        measures: dict[str, Callable[[], Iterator[Result]]] = {
            "dump": partial(measure_dump, workload, options.rows),
            "file": partial(measure_file, workload),
            "grpc": partial(measure_grpc, workload),
            "latency": partial(measure_latency, workload, Load(RECORDS_PER_SECOND, options.seconds)),
            "consumers": partial(measure_consumers, workload, options.seconds),
            "collector": partial(measure_collector, workload, options.seconds),
            "idle": partial(measure_idle, workload),
            "security": partial(measure_security, workload),
            "proxy": partial(measure_proxy, workload),
            "failover": partial(measure_failover, workload),
            "ring": measure_ring,
            "store": partial(measure_store, workload, options.store_hours),
            "api": partial(measure_api, options.gpus, options.seconds),
            "core": measure_core,
        }
        measured: dict[str, list[Result]] = {}
        for measurement in options.only or MEASUREMENTS:
            print(f"measuring {measurement} ...", file=sys.stderr, flush=True)
            measured[measurement] = list(measures[measurement]())
        machine = this_machine(folder)
    results = list(chain.from_iterable(measured.values()))
    if options.json:
        lines = [json.dumps(asdict(result) | {"met": result.met, "machine": asdict(machine)}) for result in results]
        text = "\n".join(lines) + "\n"
        if options.json == "-":
            sys.stdout.write(text)
        else:
            Path(options.json).write_text(text, encoding="utf-8")
    circumstances = f"{machine}; {options.records:,} records a round, median of {options.rounds} rounds"
    if options.json != "-":
        print(f"{circumstances}\n\n{as_table(results)}")
    if options.record:
        record({name: f"{circumstances}.\n\n{as_table(found)}" for name, found in measured.items()})


def record(reports: Mapping[str, str]) -> None:
    """Puts the reports between the marks in the documentation; those of other measurements stay."""
    before, begin, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    recorded, end, after = rest.partition(END)
    if not (begin and end):
        raise SystemExit(f"{PAGE} has lost its marks, {BEGIN} and {END}; put them where the figures belong")
    _, *sections = recorded.split(HEADING)
    known = {name: text.strip() for name, _, text in (section.partition("\n") for section in sections)} | dict(reports)
    shown = [f"{HEADING}{name}\n\n{known[name]}\n\n" for name in MEASUREMENTS + ON_REQUEST if name in known]
    PAGE.write_text(f"{before}{BEGIN}\n\n{''.join(shown)}{END}{after}", encoding="utf-8")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure throughput; prints a table with targets and the machine.")
    parser.add_argument(
        "--only", nargs="+", choices=MEASUREMENTS + ON_REQUEST, help="measure just these (default: all but core)"
    )
    parser.add_argument("--records", type=int, default=1_000_000, help="records a round, 1000 or more")
    parser.add_argument("--rounds", type=int, default=3, help="rounds whose median is taken")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long latency and idle consumers are watched")
    parser.add_argument("--gpus", type=int, default=10_000, help="GPUs of the fleet that the API is asked about")
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of the dump")
    parser.add_argument(
        "--store-hours", type=float, default=2.4, help="hours of a fleet's telemetry that the store is asked about"
    )
    parser.add_argument("--folder", type=Path, help="where data is written and removed (default: the temporary folder)")
    parser.add_argument(
        "--json", nargs="?", const="-", metavar="FILE", help="JSON lines, into FILE or instead of the table"
    )
    parser.add_argument("--record", action="store_true", help="put what was measured into docs/benchmarks.md")
    options = parser.parse_args()
    if options.records < 1000 or options.rounds < 1 or options.rows < 1 or options.seconds < 1:
        parser.error("--records starts at 1000, --rounds, --seconds and --rows at 1")
    if not 1.5 <= options.store_hours <= 24:
        parser.error("--store-hours is from 1.5 to 24")
    return options


if __name__ == "__main__":
    main()
