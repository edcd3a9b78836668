"""`telemetry up` as a process, with a small fleet whose values a test knows."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

import telemetry_broker as tb
from tests.integration.service_processes import Service

KEY = "key-of-the-tests-0123"
READ_KEY = "key-that-reads-0123456"
UTIL, TEMP, POWER = "DCGM_FI_DEV_GPU_UTIL", "DCGM_FI_DEV_GPU_TEMP", "DCGM_FI_DEV_POWER_USAGE"


@dataclass(frozen=True)
class Up:
    """A running `telemetry up`."""

    url: str
    grpc: str
    service: Service
    folder: Path

    def client(self, key: str | None = KEY) -> httpx.Client:
        return httpx.Client(base_url=self.url, headers={"X-API-Key": key} if key else {}, timeout=30)

    def get(self, path: str) -> httpx.Response:
        with self.client() as client:
            return client.get(path)


def line(gpu: int, util: float, time_ns: int | None = None, **tags: str) -> bytes:
    """A wide point of one GPU, eight to a host."""
    named = {
        "device": f"nvidia{gpu % 8}",
        "gpu": str(gpu % 8),
        "hostname": f"host-{gpu // 8:02d}",
        "model": "H100",
        "namespace": "training" if gpu < 8 else "inference",
        "pod": f"job-{gpu // 8}",
        "uuid": f"GPU-{gpu:04d}",
        **tags,
    }
    head = ",".join(["gpu", *(f"{name}={value}" for name, value in sorted(named.items()))])
    fields = f"{UTIL}={util},{TEMP}={30 + util / 2},{POWER}={100 + util * 5}"
    return f"{head} {fields} {time_ns or time.time_ns()}".encode()


def send(grpc: str, lines: list[bytes]) -> None:
    """Stores records in the topic, each with the key of its GPU."""
    with tb.connect(f"grpc://{grpc}") as broker, broker.producer("telemetry") as producer:
        for one in lines:
            producer.send(one, key=one.partition(b"uuid=")[2].partition(b" ")[0])


@contextmanager
def running_up(folder: Path, *arguments: object, environment: dict[str, str] | None = None) -> Iterator[Up]:
    """`telemetry up` without a dump, on free ports, with `KEY` for everything and `READ_KEY` for reading."""
    keys = folder / "keys.toml"
    keys.write_text(
        f'[[key]]\nname = "all"\nkey = "{KEY}"\nroles = ["read", "write", "admin"]\n'
        f'[[key]]\nname = "reader"\nkey = "{READ_KEY}"\nroles = ["read"]\n'
    )
    given = {"API_KEYS_FILE": str(keys), **(environment or {})}
    up = ("up", "--data", folder / "data", "--port", 0, "--grpc-port", 0, "--no-csv", "--log-level", "INFO")
    with Service(*up, *arguments, environment=given) as service:
        (url,) = service.wait_for(r"^API (\S+)").groups()
        (grpc,) = service.wait_for(r"^gRPC (\S+?)(?:,| )").groups()
        yield Up(url, grpc, service, folder)


def wait_for_gpus(up: Up, count: int, seconds: float = 30) -> None:
    """Waits until the API knows so many GPUs, and the store too."""
    end = time.monotonic() + seconds
    with up.client() as client:
        while True:
            known = client.get("/api/v1/gpus").json()["count"]
            rows = client.get("/api/v1/query", params={"metric": UTIL, "start": "-1h", "window": "1h"})
            if known >= count and rows.status_code == 200 and len(set(rows.json()["columns"]["uuid"])) >= count:
                return
            assert time.monotonic() < end, f"{known} of {count} GPUs are known, {rows.text[:500]}"
