"""What the API and the page hold for a large fleet: `telemetry up` with GPUs that each send 10 metrics.

Requests are measured while they send every 10 s, as a fleet does; live viewers and the page while they do each second.

The fleet is written by this process through the library, a record a GPU; each record says when it was made, so that
a page that paints it can be held against the clock.
"""

import contextlib
import json
import random
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx

import telemetry_broker as tb
from benchmarks.latency import send_and_flush
from benchmarks.processes import free_port, started
from benchmarks.results import Result

KEY = "the-key-of-the-benchmark"
METRICS = (
    "DCGM_FI_DEV_GPU_UTIL", "DCGM_FI_DEV_GPU_TEMP", "DCGM_FI_DEV_POWER_USAGE", "DCGM_FI_DEV_FB_USED",
    "DCGM_FI_DEV_FB_FREE", "DCGM_FI_DEV_MEM_COPY_UTIL", "DCGM_FI_DEV_SM_CLOCK", "DCGM_FI_DEV_MEM_CLOCK",
    "DCGM_FI_DEV_ENC_UTIL", "DCGM_FI_DEV_DEC_UTIL",
)  # fmt: skip
MIXED_PER_SECOND = 300
USUAL_INTERVAL = 10.0
LIVE_INTERVAL = 1.0
"""Seconds between two values of a metric."""
VIEWERS = 200
START_SECONDS = 90.0
_MAIN = "from telemetry_services.cli import main; main()"
_VIEWERS = Path(__file__).with_name("viewers.py")


@dataclass(frozen=True)
class Fleet:
    url: str
    grpc: str
    gpus: int

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, headers={"X-API-Key": KEY}, timeout=60)


def measure_api(gpus: int, seconds: float) -> Iterator[Result]:
    with running(gpus) as fleet, sending(fleet) as sent:
        with fleet.client() as client:
            _await(lambda: client.get("/api/v1/gpus?limit=1").json().get("total", 0) >= gpus, "it knows the fleet")
        time.sleep(seconds)
        yield from _measure_requests(fleet, seconds)
        sent.interval = LIVE_INTERVAL
        time.sleep(USUAL_INTERVAL)
        # Longer, so that a percentile is not told by a handful: a record each 10 ms, and one or two frames a second.
        yield from _measure_viewers(fleet, 2 * seconds)
        yield from _measure_page(fleet, 4 * seconds)


@contextlib.contextmanager
def running(gpus: int) -> Iterator[Fleet]:
    port, grpc_port = free_port(), free_port()
    with TemporaryDirectory(prefix="telemetry-bench-") as name:
        folder = Path(name)
        command = [sys.executable, "-c", _MAIN, "up", "--data", str(folder / "data"), "--no-csv"]
        command += ["--port", str(port), "--grpc-port", str(grpc_port)]
        environment = {"API_KEY": KEY, "API_RATE_LIMIT": "100000/second"}
        with started("up", command, port, folder, environment):
            fleet = Fleet(f"http://127.0.0.1:{port}", f"127.0.0.1:{grpc_port}", gpus)
            _await(lambda: httpx.get(f"{fleet.url}/ready", timeout=60).status_code == 200, "it is ready")
            yield fleet


@dataclass(slots=True)
class Rounds:
    """Values of the whole fleet, sent again and again.

    Attributes:
        interval: seconds between two rounds.
    """

    interval: float = USUAL_INTERVAL


@contextlib.contextmanager
def sending(fleet: Fleet) -> Iterator[Rounds]:
    """Sends rounds inside the block."""
    stop = threading.Event()
    rounds = Rounds()
    sender = threading.Thread(target=_send, args=(fleet, stop, rounds))
    sender.start()
    try:
        yield rounds
    finally:
        stop.set()
        sender.join()


def _send(fleet: Fleet, stop: threading.Event, rounds: Rounds) -> None:
    heads = [
        f"gpu,device=nvidia{gpu % 8},gpu={gpu % 8},hostname=host-{gpu // 8:05d},model=H100,namespace=n{gpu // 512},"
        f"pod=p{gpu // 64},uuid=GPU-{gpu:06d} "
        for gpu in range(fleet.gpus)
    ]
    keys = [f"GPU-{gpu:06d}".encode() for gpu in range(fleet.gpus)]
    values = random.Random(7)
    with tb.connect(f"grpc://{fleet.grpc}") as broker, broker.producer("telemetry") as producer:
        due = time.monotonic()
        while not stop.wait(max(0.0, due - time.monotonic())):
            due += rounds.interval
            now = time.time_ns()
            util = values.randrange(100)
            tail = ",".join(f"{metric}={(util + at * 7) % 100}" for at, metric in enumerate(METRICS))
            for gpu, head in enumerate(heads):
                producer.send(f"{head}{tail} {now + gpu}".encode(), key=keys[gpu])
            producer.flush()


def _await(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + START_SECONDS
    while not condition():
        if time.monotonic() > end:
            raise SystemExit(f"telemetry up: {what} was not true within {START_SECONDS:g} s")
        time.sleep(0.5)


def _measure_requests(fleet: Fleet, seconds: float) -> Iterator[Result]:
    with fleet.client() as client:
        listing = _times(client, ["/api/v1/gpus"] * 40)
        hour = [f"/api/v1/query?id=GPU-{gpu:06d}&start=-1h&window=10s&limit=20000" for gpu in range(40)]
        series = _times(client, hour)
    work = f"httpx, one by one; {fleet.gpus:,} GPUs send {len(METRICS)} metrics each every {USUAL_INTERVAL:g} s"
    yield Result("GET /api/v1/gpus, p95", _percentile(listing, 95) * 1e3, "ms", work, target=60, lower_is_better=True)
    yield Result(
        "a GPU's hour of 10 metrics, p95", _percentile(series, 95) * 1e3, "ms", work, target=60, lower_is_better=True
    )
    mixed = _mixed(fleet, seconds)
    yield Result(
        f"{MIXED_PER_SECOND} requests/s of mixed reads, p99",
        _percentile(mixed, 99) * 1e3,
        "ms",
        f"httpx, 16 connections: a GPU, hosts, a page of GPUs, pipeline; of {len(mixed):,}",
        target=250,
        lower_is_better=True,
    )


def _times(client: httpx.Client, paths: Sequence[str]) -> list[float]:
    spent = []
    for path in paths:
        begun = time.perf_counter()
        client.get(path).raise_for_status()
        spent.append(time.perf_counter() - begun)
    return spent


def _mixed(fleet: Fleet, seconds: float) -> list[float]:
    paths = ["/api/v1/gpus/GPU-000001", "/api/v1/hosts", "/api/v1/gpus?hostname=host-00003", "/api/v1/metrics"]
    begin = time.monotonic()

    def ask(number: int) -> float:
        due = begin + number / MIXED_PER_SECOND
        time.sleep(max(0.0, due - time.monotonic()))
        client.get(paths[number % len(paths)]).raise_for_status()
        return time.monotonic() - due  # from when it should have been sent: a queue counts

    with fleet.client() as client, ThreadPoolExecutor(16) as pool:
        return list(pool.map(ask, range(round(seconds * MIXED_PER_SECOND))))


def _measure_viewers(fleet: Fleet, seconds: float) -> Iterator[Result]:
    before = _produce(fleet, "alone", seconds)
    url = f"{fleet.url}/api/v1/fleet/live?metric={METRICS[0]}"
    command = [sys.executable, str(_VIEWERS), url, KEY, str(VIEWERS)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as viewers:
        assert viewers.stdout is not None
        viewers.stdout.readline()  # all are there
        after = _produce(fleet, "watched", seconds)
        told, _ = viewers.communicate()
    lags = json.loads(told)
    work = f"{VIEWERS} x /api/v1/fleet/live of one metric, read by one process on the same cores"
    yield Result(f"lag of {VIEWERS} viewers, median", statistics.median(lags) * 1e3, "ms", work)
    yield Result(f"lag of {VIEWERS} viewers, last over first third", _drift(lags), "x", work)
    ratio = _percentile(after, 99) / _percentile(before, 99)
    yield Result("produce p99, with the viewers over without", ratio, "x", work, target=1.2, lower_is_better=True)


def _produce(fleet: Fleet, topic: str, seconds: float) -> list[float]:
    """Stores a record every 10 ms in a new topic, which nobody reads; gives the seconds that each took."""
    spent = []
    with tb.connect(f"grpc://{fleet.grpc}") as broker:
        broker.create_topic(topic, partitions=1)
        with broker.producer(topic, linger=0) as producer:
            produce = send_and_flush(producer).call
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                begun = time.perf_counter()
                produce()
                spent.append(time.perf_counter() - begun)
                time.sleep(0.01)
    return spent


def _drift(lags: Sequence[float]) -> float:
    third = max(1, len(lags) // 3)
    return statistics.median(lags[-third:]) / statistics.median(lags[:third])


def _measure_page(fleet: Fleet, seconds: float) -> Iterator[Result]:
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium")
    if chromium is None:
        print("no chromium: the page is not measured", file=sys.stderr)
        return
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        context = browser.new_context(viewport={"width": 1440, "height": 900}, bypass_csp=True)  # to wait by a function
        context.add_cookies([{"name": "telemetry_key", "value": KEY, "url": fleet.url}])
        page = context.new_page()
        page.goto(fleet.url)
        page.wait_for_function("performance.getEntriesByName('fleet-painted').length > 0", timeout=60_000)
        first = page.evaluate("performance.getEntriesByName('fleet-painted')[0].startTime")
        page.wait_for_timeout(seconds * 1000)
        frames = page.evaluate("performance.getEntriesByName('frame').map((entry) => entry.duration)")
        painted = page.evaluate("performance.getEntriesByName('sample-painted').map((entry) => entry.detail)")
        browser.close()
    work = f"Chromium, software rendering, 1440 x 900, {fleet.gpus:,} GPUs"
    yield Result("first view of the fleet", first, "ms", work, target=1500, lower_is_better=True)
    yield Result(
        "an update of all cells, p95", _percentile(frames, 95), "ms of the main thread", work, target=50,
        lower_is_better=True,
    )  # fmt: skip
    work = f"{work}; of {len(painted)} frames"
    yield Result("record made to painted, p95", _percentile(painted, 95), "ms", work, target=1000, lower_is_better=True)


def _percentile(values: Sequence[float], percent: int) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]
