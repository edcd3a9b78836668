"""The Delta store: writing, upkeep, size and the questions of dashboards, on a day of a fleet.

The samples are made here: walks rounded as DCGM gives its fields, utilisation that jumps, counters that rise, error
counts that stay. `--store-hours 24` is the day that the targets are for; less is quicker.
"""

import gc
import random
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.results import Result
from benchmarks.workload import Workload
from telemetry_services.store import Filters, Retention, SeriesQuery
from telemetry_services.store.delta import DeltaStore

GPUS = 1000
GPUS_PER_HOST = 8
SECONDS = 10
"""Between two samples of a field."""
ROWS_A_COMMIT = 100_000
QUESTIONS = 40
"""Of each kind; the 95th percentile is told."""
NS = pa.timestamp("ns", tz="UTC")
HOUR_NS = 3600 * 10**9

JUMPING = {f"DCGM_FI_DEV_{name}": 0 for name in ("GPU_UTIL", "MEM_COPY_UTIL", "ENC_UTIL", "DEC_UTIL")}
"""Anything from 0 to 100, with this many digits behind the point; half of the time nothing changes."""
RATIOS = {f"DCGM_FI_PROF_{name}": 6 for name in ("GR_ENGINE_ACTIVE", "PIPE_TENSOR_ACTIVE", "DRAM_ACTIVE", "SM_ACTIVE")}
WALKING = {
    "DCGM_FI_DEV_GPU_TEMP": (40, 85, 1, 0),
    "DCGM_FI_DEV_MEMORY_TEMP": (40, 95, 1, 0),
    "DCGM_FI_DEV_POWER_USAGE": (70, 700, 9, 3),
    "DCGM_FI_DEV_SM_CLOCK": (1200, 1980, 15, 0),
    "DCGM_FI_DEV_MEM_CLOCK": (2600, 2620, 0.1, 0),
    "DCGM_FI_DEV_FB_USED": (500, 80_000, 30, 0),
    "DCGM_FI_DEV_FB_FREE": (500, 80_000, 30, 0),
    "DCGM_FI_DEV_FB_RESERVED": (600, 610, 0.01, 0),
}
"""From, to, largest step, digits behind the point."""
RISING = {
    "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION": 7_000_000,
    "DCGM_FI_PROF_PCIE_TX_BYTES": 30_000_000,
    "DCGM_FI_PROF_PCIE_RX_BYTES": 30_000_000,
    "DCGM_FI_DEV_NVLINK_BANDWIDTH_TOTAL": 900_000,
}
"""The most that is added between two samples."""
STEADY = [
    f"DCGM_FI_DEV_{name}"
    for name in (
        "XID_ERRORS",
        "PCIE_REPLAY_COUNTER",
        "VGPU_LICENSE_STATUS",
        "UNCORRECTABLE_REMAPPED_ROWS",
        "CORRECTABLE_REMAPPED_ROWS",
        "ROW_REMAP_FAILURE",
        "ECC_SBE_VOL_TOTAL",
        "ECC_DBE_VOL_TOTAL",
        "ECC_SBE_AGG_TOTAL",
        "ECC_DBE_AGG_TOTAL",
    )
]
METRICS = [*JUMPING, *RATIOS, *WALKING, *RISING, *STEADY]


class Fleet:
    """A fleet whose values go on from where they were."""

    def __init__(self) -> None:
        hosts = [f"dgx-{gpu // GPUS_PER_HOST:04}" for gpu in range(GPUS)]
        rng = random.Random(7)
        self.uuids = [f"GPU-{rng.getrandbits(128):032x}" for _ in range(GPUS)]
        self.tags = {
            "hostname": pa.array(hosts),
            "uuid": pa.array(self.uuids),
            "gpu": pa.array([str(gpu % GPUS_PER_HOST) for gpu in range(GPUS)]),
            "device": pa.array([f"nvidia{gpu % GPUS_PER_HOST}" for gpu in range(GPUS)]),
            "model": pa.array(["NVIDIA H100 80GB HBM3"] * GPUS),
            "namespace": pa.array([f"team-{gpu % 12}" for gpu in range(GPUS)]),
            "pod": pa.array([f"train-{gpu // 16:03}" for gpu in range(GPUS)]),
        }
        self.values = {name: pc.multiply(pc.random(GPUS), 100.0) for name in JUMPING}
        self.values |= {name: pc.random(GPUS) for name in RATIOS}
        self.values |= {
            name: pc.add(pc.multiply(pc.random(GPUS), float(high - low)), float(low))
            for name, (low, high, _, _) in WALKING.items()
        }
        self.values |= {name: pc.multiply(pc.random(GPUS), 1e12) for name in RISING}
        self.values |= {name: pa.array([0.0] * GPUS) for name in STEADY}

    def rows(self, first_ns: int, steps: int) -> pa.Table:
        """All GPUs at so many times, in the order of time."""
        columns: dict[str, list[pa.Array]] = {name: [] for name in METRICS}
        for _ in range(steps):
            for name, value in self._next().items():
                columns[name].append(value)
        times = pa.array([first_ns + step * SECONDS * 10**9 for step in range(steps) for _ in range(GPUS)], NS)
        tags = {name: pa.chunked_array([tag] * steps) for name, tag in self.tags.items()}
        return pa.table({"time": times, **tags, **{name: pa.chunked_array(pieces) for name, pieces in columns.items()}})

    def _next(self) -> dict[str, pa.Array]:
        """The next values of every field, rounded as they are told."""
        told: dict[str, pa.Array] = {}
        for name, value in self.values.items():
            new = value
            if name in JUMPING or name in RATIOS:
                scale, digits = (100.0, JUMPING[name]) if name in JUMPING else (1.0, RATIOS[name])
                stays = pc.less(pc.random(GPUS), 0.5)
                new = pc.if_else(stays, value, pc.multiply(pc.random(GPUS), scale))
                told[name] = pc.round(new, digits)
            elif name in WALKING:
                low, high, step, digits = WALKING[name]
                change = pc.multiply(pc.subtract(pc.random(GPUS), 0.5), 2.0 * step)
                new = pc.min_element_wise(pc.max_element_wise(pc.add(value, change), float(low)), float(high))
                told[name] = pc.round(new, digits)
            elif name in RISING:
                new = pc.add(value, pc.multiply(pc.random(GPUS), float(RISING[name])))
                told[name] = pc.round(new, 0)
            else:
                told[name] = value
            self.values[name] = new
        return told


@dataclass(frozen=True, slots=True)
class Day:
    """A store that holds some hours of a fleet, and what it took to get there."""

    store: DeltaStore
    fleet: Fleet
    folder: Path
    begin_ns: int
    end_ns: int
    samples: int
    write_seconds: float
    upkeep_seconds: float


def measure_store(workload: Workload, hours: float) -> Iterator[Result]:
    with workload.scratch() as folder:
        day = filled(folder / "store", hours)
        yield from writing(day)
        yield from sizes(day)
        yield from questions(day)
        day.store.close()


def filled(folder: Path, hours: float) -> Day:
    store, fleet = DeltaStore(folder), Fleet()
    store.positions([])
    steps = ROWS_A_COMMIT // GPUS
    begin_ns = (time.time_ns() // HOUR_NS - 24) * HOUR_NS
    end_ns = begin_ns + int(hours * HOUR_NS)
    at_ns, samples, write_seconds = begin_ns, 0, 0.0
    while at_ns < end_ns:
        rows = fleet.rows(at_ns, steps)
        started = time.perf_counter()
        store.write([rows], {})
        write_seconds += time.perf_counter() - started
        samples += rows.num_rows * len(METRICS)
        at_ns += steps * SECONDS * 10**9
    started = time.perf_counter()
    while store.maintain(Retention(), now_ms=time.time_ns() // 10**6 + 2 * 3_600_000):
        pass
    return Day(store, fleet, folder, begin_ns, at_ns, samples, write_seconds, time.perf_counter() - started)


def writing(day: Day) -> Iterator[Result]:
    yield Result(
        name="Delta store: write",
        value=day.samples / day.write_seconds,
        unit="samples/s",
        client=f"store.write, {ROWS_A_COMMIT:,} rows of {len(METRICS)} metrics a commit",
        durability="fsync",
        target=4_000_000,
    )
    yield Result(
        name="Delta store: upkeep (sorted, sealed, rolled up)",
        value=day.samples / day.upkeep_seconds,
        unit="samples/s",
        client="store.maintain, in one thread",
        durability="fsync",
    )


def sizes(day: Day) -> Iterator[Result]:
    snapshot = day.store._snapshot(rollups=True)  # noqa: SLF001 (sizes are told to nobody else)
    parts, rollups = snapshot.parts, {rollup.name: rollup.parts for rollup in snapshot.rollups}
    yield Result(
        name="Delta store: size of a sample",
        value=sum(part.size_bytes for part in parts) / day.samples,
        unit="bytes",
        client=f"{day.samples:,} samples in {len(parts)} files",
        target=1.5,
        lower_is_better=True,
    )
    for name, of_rollup in rollups.items():
        yield Result(
            name=f"Delta store: rollup {name}",
            value=sum(part.size_bytes for part in of_rollup) / day.samples,
            unit="bytes a sample",
            client=f"{len(of_rollup)} files",
        )


def questions(day: Day) -> Iterator[Result]:
    rng = random.Random(11)
    metrics = [*JUMPING, *RATIOS, *WALKING]

    def one_gpu_an_hour() -> int:
        start = rng.randrange(day.begin_ns, max(day.end_ns - HOUR_NS, day.begin_ns + 1))
        chosen = Filters(gpus=[rng.choice(day.fleet.uuids)])
        query = SeriesQuery([rng.choice(metrics)], chosen, start_ns=start, end_ns=start + HOUR_NS)
        return int(day.store.series(query).read_all().num_rows)

    def hourly_means() -> int:
        query = SeriesQuery([rng.choice(metrics)], start_ns=day.begin_ns, end_ns=day.end_ns, window_ns=HOUR_NS)
        return int(day.store.series(query).read_all().num_rows)

    def five_minute_p95() -> int:
        query = SeriesQuery(
            [rng.choice(metrics)], start_ns=day.end_ns - HOUR_NS, end_ns=day.end_ns, window_ns=300 * 10**9,
            aggregate="p95", group_by="host",
        )  # fmt: skip
        return int(day.store.series(query).read_all().num_rows)

    def latest() -> int:
        return int(day.store.latest().num_rows)

    def latest_after_a_restart() -> int:
        store = DeltaStore(day.folder)
        rows = int(store.latest().num_rows)
        store.close()
        return rows

    yield answered("one GPU and metric over an hour", one_gpu_an_hour, 50)
    yield answered("latest values of the fleet", latest, 50)
    yield answered("latest values of the fleet, in a process that begins", latest_after_a_restart, None)
    yield answered("hourly means of one metric, all GPUs, whole range", hourly_means, 1000)
    yield answered("p95 of 5 minutes of a metric by host, an hour", five_minute_p95, None)


def answered(name: str, ask: Callable[[], int], target_ms: float | None) -> Result:
    """Ask often, and tell the 95th percentile."""
    rows = ask()
    if not rows:
        raise SystemExit(f"{name}: no rows were found")
    gc.collect()
    took = []
    for _ in range(QUESTIONS):
        started = time.perf_counter()
        ask()
        took.append((time.perf_counter() - started) * 1000)
    return Result(
        name=f"Delta store: {name}",
        value=statistics.quantiles(took, n=20)[-1],
        unit="ms p95",
        client=f"{QUESTIONS} questions one after the other, {rows:,} rows; median {statistics.median(took):.1f} ms",
        target=target_ms,
        lower_is_better=True,
    )
