"""The collector: from a topic into a store, wide points of 30 fields; and how soon a sample can be asked for."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import grpc

import telemetry_broker as tb
from benchmarks.broker import TELEMETRY, broker_process
from benchmarks.load import percentile
from benchmarks.processes import HOST, free_port, resident_bytes, started
from benchmarks.results import ROOT, Result
from benchmarks.workload import Workload
from telemetry_broker import _core
from telemetry_broker.v1 import collector_pb2 as pb
from telemetry_broker.v1.collector_pb2_grpc import CollectorServiceStub
from telemetry_services.store import open_store

FIELDS = 30
GPUS = 1000
POINTS = 400_000
DECODED = 60_000
LIVE_SAMPLES_PER_SECOND = 100_000
LIVE_ROUND_SECONDS = 0.05
GROUP = "telemetry_group"
TARGETS = {"influxdb": 3_000_000, "delta": 4_000_000}
DECODE_TARGET = 10e6
RSS_TARGET_MB = 300
QUERYABLE_TARGETS = {50.0: 0.6, 99.0: 1.5}


def wide_points(time_ns: int, first: int = 0, count: int = GPUS) -> list[bytes]:
    """A point of each of some GPUs, as dcgm-exporter names things."""
    points = []
    for gpu in range(first, first + count):
        fields = ",".join(f"DCGM_FI_DEV_METRIC_{n:02}={(gpu * 31 + n * 7 + time_ns) % 1000}" for n in range(FIELDS))
        points.append(
            f"gpu,device=nvidia{gpu % 8},gpu={gpu % 8},hostname=mtv5-dgx1-hgpu-{gpu // 8:03},"
            f"model=NVIDIA\\ H100\\ 80GB\\ HBM3,uuid=GPU-{gpu:08x}-86f3-7a43-b711-4771313afc50 "
            f"{fields} {time_ns}".encode()
        )
    return points


def measure_collector(workload: Workload, seconds: float) -> Iterator[Result]:
    """Decoding alone, both stores at full speed, and the delay under a steady load."""
    yield from measure_decoding()
    for store in ("influxdb", "delta"):
        with workload.scratch() as folder:
            yield from measure_store(folder, store)
    with workload.scratch() as folder:
        yield from measure_delay(folder, seconds)


def measure_decoding() -> Iterator[Result]:
    """Line protocol to columns, and to lines again, in one thread, by its CPU time."""
    points = [point for second in range(DECODED // GPUS) for point in wide_points(second)]
    for builder, into in ((_core.ColumnBuilder, "Arrow columns"), (_core.LineBuilder, "checked lines")):
        rates = []
        for _ in range(3):
            decoder = builder("gpu")
            before = time.thread_time()
            decoder.append_values(points)
            decoder.finish()
            rates.append(len(points) * FIELDS / (time.thread_time() - before))
        target = DECODE_TARGET if into == "Arrow columns" else None
        size = len(points[0])
        yield Result(f"line protocol to {into}", max(rates), "fields/s a core", "in Rust", size, target=target)


def measure_store(folder: Path, store: str) -> Iterator[Result]:
    """What lies in a topic into a store, by a collector process of its own."""
    with broker_process(folder) as url, stored_in(store, folder) as store_url:
        points = wide_points(1_752_871_354_000_000_000)
        with tb.connect(url) as broker:
            broker.create_topic("telemetry", partitions=4)
            with broker.producer("telemetry") as producer:
                for _ in range(POINTS // GPUS):
                    for point in points:
                        producer.send(point)
        with collector_process(folder, url, store_url) as (pid, stub):
            rate, peak = watch(stub, pid)
    name = "InfluxDB (stand-in that counts)" if store == "influxdb" else "Delta Lake"
    client = "grpc:// broker with 4 partitions, one telemetry collector, 30 fields a point"
    size = len(points[0])
    yield Result(f"broker to {name}", rate, "samples/s", client, size, "os", TARGETS[store])
    yield Result(
        f"broker to {name}: peak RSS", peak / 1e6, "MB", client, size, "os", RSS_TARGET_MB, lower_is_better=True
    )


def watch(stub: CollectorServiceStub, pid: int) -> tuple[float, int]:
    """Samples a second from the first commit to the last, and the most memory that was seen."""
    first: tuple[float, int] | None = None
    peak = 0
    while True:
        status = stub.GetStatus(pb.GetStatusRequest())
        now = time.perf_counter()
        peak = max(peak, resident_bytes(pid))
        if status.samples_stored and first is None:
            first = now, status.samples_stored
        if first is not None and status.samples_stored >= POINTS * FIELDS:
            return (status.samples_stored - first[1]) / (now - first[0]), peak
        time.sleep(0.01)


def measure_delay(folder: Path, seconds: float) -> Iterator[Result]:
    """From `send` to the answer of a query, into Delta Lake, while samples come at an even pace."""
    a_round = round(LIVE_SAMPLES_PER_SECOND * LIVE_ROUND_SECONDS / FIELDS)
    delays: list[float] = []
    with broker_process(folder) as url, tb.connect(url) as broker:
        broker.create_topic("telemetry", partitions=4)
        store_url = f"delta://{folder / 'store'}"
        with collector_process(folder, url, store_url):
            stop = threading.Event()
            asking = threading.Thread(target=ask_for_newest, args=(store_url, stop, delays))
            asking.start()
            begin = time.perf_counter()
            with broker.producer("telemetry") as producer:
                for number in range(round(seconds / LIVE_ROUND_SECONDS)):
                    time.sleep(max(0.0, begin + number * LIVE_ROUND_SECONDS - time.perf_counter()))
                    for point in wide_points(time.time_ns(), number * a_round % GPUS, a_round):
                        producer.send(point)
                    producer.send(b"gpu,uuid=probe,hostname=probe probed=%d %d" % (number, time.time_ns()))
            while broker.describe_group("telemetry", GROUP).lag:
                time.sleep(0.05)
            stop.set()
            asking.join()
    for percent, target in QUERYABLE_TARGETS.items():
        yield Result(
            f"produced to queryable, p{percent:.0f}",
            percentile(delays[len(delays) // 5 :], percent),
            "s",
            f"{LIVE_SAMPLES_PER_SECOND:,} samples/s, telemetry collector with default settings, Delta Lake, a query "
            "for one GPU",
            len(wide_points(0, 0, 1)[0]),
            "os",
            target,
            lower_is_better=True,
        )


def ask_for_newest(store_url: str, stop: threading.Event, delays: list[float]) -> None:
    """Asks for the probe's samples again and again, and notes how old each was when an answer had it."""
    store = open_store(store_url)
    newest = 0
    while not stop.is_set():
        found = [sample.time_ns for sample in store.telemetry("probe", limit=50) if sample.time_ns > newest]
        now = time.time_ns()
        delays += sorted((now - time_ns) / 1e9 for time_ns in found)
        newest = max([newest, *found])
        stop.wait(0.02)
    store.close()


@contextmanager
def collector_process(folder: Path, broker: str, store: str) -> Iterator[tuple[int, CollectorServiceStub]]:
    """`telemetry collector` with default settings: its process id, and what looks into it."""
    port = free_port()
    data = str(folder / "collector")
    command: list[str | Path] = [TELEMETRY, "collector", "--port", "0", "--grpc-port", str(port), "--data", data]
    environment = {"BROKER_URL": broker, "STORE": store, "LOG_LEVEL": "WARNING"}
    with (
        started("collector", command, port, folder, environment) as pid,
        grpc.insecure_channel(f"{HOST}:{port}") as channel,
    ):
        yield pid, CollectorServiceStub(channel)


def stored_in(store: str, folder: Path) -> AbstractContextManager[str]:
    """The URL of an empty store."""
    return counting_influxdb() if store == "influxdb" else nullcontext(f"delta://{folder / 'store'}")


@contextmanager
def counting_influxdb() -> Iterator[str]:
    """A server of InfluxDB's protocol that counts lines and keeps none."""
    command = [sys.executable, "-m", "tests.influxdb3", "--counting"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        address = process.stdout.readline().split()[-1]
        yield f"influxdb://{address}/telemetry"
        process.stdin.close()
