"""For tests of programs that use the broker: the real broker in memory, a clock to move, and plausible GPU telemetry.

    from telemetry_broker import testing

    def test_my_handler():
        clock = testing.ManualClock()
        with testing.broker(clock=clock) as broker:
            broker.create_topic("telemetry")
            with broker.producer("telemetry") as producer:
                producer.send_many(testing.sample_points(gpus=8, scrapes=3))
            ...
            clock.advance(30)       # leases end when the test says so

Everything is made from its arguments alone, so the same call gives the same bytes.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from uuid import NAMESPACE_OID, uuid5

from telemetry_broker._core import ManualClock
from telemetry_broker.broker import Broker
from telemetry_broker.connection import connect

__all__ = [
    "CSV_COLUMNS",
    "METRICS",
    "START_NS",
    "Gpu",
    "ManualClock",
    "Sample",
    "broker",
    "csv_dump",
    "json_array",
    "json_object",
    "sample_gpus",
    "sample_points",
    "samples",
]

CSV_COLUMNS: Final = (
    "timestamp",
    "metric_name",
    "gpu_id",
    "device",
    "uuid",
    "modelName",
    "Hostname",
    "container",
    "pod",
    "namespace",
    "value",
    "labels_raw",
)
"""The columns of a fleet dump, and the order of the fields of a JSON array payload."""

METRICS: Final = (
    "DCGM_FI_DEV_GPU_UTIL",
    "DCGM_FI_DEV_MEM_COPY_UTIL",
    "DCGM_FI_DEV_POWER_USAGE",
    "DCGM_FI_DEV_GPU_TEMP",
    "DCGM_FI_DEV_FB_USED",
    "DCGM_FI_DEV_FB_FREE",
)

START_NS: Final = 1_752_871_354 * 1_000_000_000
"""2025-07-18T20:42:34Z, the time of the first scrape unless told otherwise."""

_GPUS_PER_HOST: Final = 8
_MODEL: Final = "NVIDIA H100 80GB HBM3"


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU of a fleet."""

    index: int
    """Its number on its host, from 0."""
    uuid: str
    hostname: str
    model: str = _MODEL
    container: str = ""
    pod: str = ""
    namespace: str = ""

    @property
    def device(self) -> str:
        """Such as ``nvidia0``; not unique in a fleet."""
        return f"nvidia{self.index}"

    @property
    def labels_raw(self) -> str:
        """The labels of a scrape as a dump holds them, without ``__name__``."""
        labels = {
            "DCGM_FI_DRIVER_VERSION": "535.129.03",
            "Hostname": self.hostname,
            "UUID": self.uuid,
            "device": self.device,
            "gpu": str(self.index),
            "instance": f"{self.hostname}:9400",
            "job": "dgx_dcgm_exporter",
            "modelName": self.model,
        }
        return ",".join(f'{name}="{value}"' for name, value in labels.items())


@dataclass(frozen=True, slots=True)
class Sample:
    """One metric of one GPU at one time: a row of a dump."""

    time_ns: int
    metric: str
    gpu: Gpu
    value: float

    @property
    def row(self) -> tuple[str, ...]:
        """The fields in the order of ``CSV_COLUMNS``, as text."""
        gpu = self.gpu
        return (
            _rfc3339(self.time_ns),
            self.metric,
            str(gpu.index),
            gpu.device,
            gpu.uuid,
            gpu.model,
            gpu.hostname,
            gpu.container,
            gpu.pod,
            gpu.namespace,
            f"{self.value:g}",
            f'{gpu.labels_raw},__name__="{self.metric}"',
        )


def broker(*, clock: ManualClock | None = None, visibility_timeout: float = 30.0, partitions: int = 4) -> Broker:
    """The real broker, in memory and gone when closed; see ``connect`` for the arguments."""
    return connect("mem://", clock=clock, visibility_timeout=visibility_timeout, partitions=partitions)


def sample_gpus(count: int = 8) -> list[Gpu]:
    """So many GPUs, eight a host."""
    return [
        Gpu(number % _GPUS_PER_HOST, f"GPU-{uuid5(NAMESPACE_OID, f'gpu {number}')}", f"gpu-host-{number // 8:03}")
        for number in range(count)
    ]


def samples(
    gpus: int | Sequence[Gpu] = 8,
    *,
    scrapes: int = 1,
    metrics: Sequence[str] = METRICS,
    start_ns: int = START_NS,
    interval: float = 1.0,
) -> Iterator[Sample]:
    """Samples in the order of a dump: scrape by scrape, metric by metric, GPU by GPU.

    Args:
        gpus: GPUs, or how many.
        scrapes: how often each metric of each GPU is sampled.
        metrics: names of the metrics.
        start_ns: time of the first scrape, nanoseconds since the epoch.
        interval: seconds between scrapes.
    """
    fleet = sample_gpus(gpus) if isinstance(gpus, int) else gpus
    for scrape in range(scrapes):
        time_ns = start_ns + round(scrape * interval * 1_000_000_000)
        for place, metric in enumerate(metrics):
            for number, gpu in enumerate(fleet):
                yield Sample(time_ns, metric, gpu, float((number * 7 + scrape * 3 + place * 13) % 100))


def sample_points(
    gpus: int | Sequence[Gpu] = 8,
    *,
    scrapes: int = 1,
    metrics: Sequence[str] = METRICS,
    start_ns: int = START_NS,
    interval: float = 1.0,
) -> list[bytes]:
    """Line protocol, one wide point per GPU and scrape: what the collector reads. Arguments as for ``samples``.

    The value that ``samples`` gives for a metric, GPU and scrape is the value here.
    """
    points: dict[tuple[int, Gpu], list[str]] = {}
    for sample in samples(gpus, scrapes=scrapes, metrics=metrics, start_ns=start_ns, interval=interval):
        points.setdefault((sample.time_ns, sample.gpu), []).append(f"{sample.metric}={sample.value:g}")
    return [f"gpu,{_tags(gpu)} {','.join(fields)} {time_ns}".encode() for (time_ns, gpu), fields in points.items()]


def csv_dump(rows: Iterable[Sample]) -> bytes:
    """A dump with its header, fields quoted as real ones are, lines ended by a line feed."""
    text = io.StringIO()
    text.write(",".join(CSV_COLUMNS) + "\n")
    csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(sample.row for sample in rows)
    return text.getvalue().encode()


def json_array(sample: Sample) -> bytes:
    """The payload that older streamers send: the fields of a dump's row, in their order."""
    return json.dumps(sample.row).encode()


def json_object(sample: Sample) -> bytes:
    """The body that ``POST /telemetry`` takes."""
    gpu = sample.gpu
    return json.dumps(
        {
            "device_id": gpu.device,
            "metric": sample.metric,
            "value": sample.value,
            "time": _rfc3339(sample.time_ns),
            "gpu_id": str(gpu.index),
            "uuid": gpu.uuid,
            "model_name": gpu.model,
            "hostname": gpu.hostname,
            "container": gpu.container,
            "pod": gpu.pod,
            "namespace": gpu.namespace,
            "labels_raw": f'{gpu.labels_raw},__name__="{sample.metric}"',
        }
    ).encode()


def _tags(gpu: Gpu) -> str:
    tags = {
        "hostname": gpu.hostname,
        "gpu": str(gpu.index),
        "uuid": gpu.uuid,
        "device": gpu.device,
        "model": gpu.model,
        "namespace": gpu.namespace,
        "pod": gpu.pod,
        "container": gpu.container,
        "DCGM_FI_DRIVER_VERSION": "535.129.03",
        "instance": f"{gpu.hostname}:9400",
        "job": "dgx_dcgm_exporter",
    }
    return ",".join(f"{name}={_escape(value)}" for name, value in tags.items() if value)


def _escape(value: str) -> str:
    for sign in (",", "=", " "):
        value = value.replace(sign, f"\\{sign}")
    return value


def _rfc3339(time_ns: int) -> str:
    seconds, fraction = divmod(time_ns, 1_000_000_000)
    text = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return text + (f".{fraction:09}".rstrip("0") if fraction else "") + "Z"
