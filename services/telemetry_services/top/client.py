"""The fleet as `/api/v1/fleet` tells it."""

import json
import math
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

from telemetry_broker.errors import UnauthenticatedError, UnavailableError
from telemetry_services.errors import ConfigError

METRICS: Final = {
    "util": "DCGM_FI_DEV_GPU_UTIL",
    "temp": "DCGM_FI_DEV_GPU_TEMP",
    "power": "DCGM_FI_DEV_POWER_USAGE",
    "memory": "DCGM_FI_DEV_FB_USED",
}
_SECONDS: Final = 10.0
_MAX_BYTES: Final = 256 << 20


@dataclass(frozen=True, slots=True)
class GpuLine:
    """A GPU and its newest values; NaN: none."""

    name: str
    host: str
    job: str
    model: str
    util: float
    temp: float
    power: float
    memory: float
    silent_seconds: float
    """Since its last sample, where that is too long ago; else 0."""


@dataclass(frozen=True, slots=True)
class FleetNow:
    """All GPUs of one moment."""

    gpus: list[GpuLine]
    time_ms: int


def obtain_key(key_file: str | None, data: str, environment: Mapping[str, str]) -> str:
    """The API key: of the file, of API_KEY or API_KEY_FILE, or the one that `telemetry up` made here.

    Raises:
        ConfigError: there is none, or its file cannot be read.
    """
    if key_file is None and (given := environment.get("API_KEY")):
        return given.replace(",", " ").split()[0]
    made = Path(data) / "api-key"
    path = Path(key_file or environment.get("API_KEY_FILE") or made)
    try:
        keys = path.read_text(encoding="utf-8").replace(",", " ").split()
    except OSError as error:
        remedy = "give the key in API_KEY, its file in --key-file, or the folder of `telemetry up` in --data"
        raise ConfigError(f"{path}: there is no API key ({error.strerror}); {remedy}") from error
    if not keys:
        raise ConfigError(f"{path}: the file is empty; it should hold the API key")
    return keys[0]


class FleetClient:
    """Asks the API."""

    def __init__(self, url: str, key: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"--url is {url!r}: expected the API's address, such as http://127.0.0.1:8080")
        self.url = url.rstrip("/")
        self._key = key

    def fetch(self) -> FleetNow:
        """The fleet now. Blocks, up to 10 s.

        Raises:
            UnauthenticatedError: the key is not valid.
            UnavailableError: the API does not answer, or not as expected.
        """
        query = urlencode([("metric", metric) for metric in METRICS.values()])
        request = urllib.request.Request(f"{self.url}/api/v1/fleet?{query}", headers={"X-API-Key": self._key})  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=_SECONDS) as answer:  # noqa: S310 (the scheme was checked)
                body = json.loads(answer.read(_MAX_BYTES))
        except urllib.error.HTTPError as error:
            if error.code == 401:
                raise UnauthenticatedError(f"{self.url}: the API key is not valid; give another one") from error
            raise UnavailableError(f"{self.url} answered {error.code} {error.reason}") from error
        except (OSError, ValueError) as error:
            why = getattr(error, "reason", error)
            raise UnavailableError(f"{self.url} does not answer ({why}); is the API there? --url says where") from error
        return FleetNow(list(_lines(body)), body["time_ms"])


def _lines(body: dict[str, Any]) -> Iterator[GpuLine]:
    def texts(name: str) -> list[str]:
        return [body[name]["names"][at] for at in body[name]["at"]]

    columns = zip(
        texts("hostname"), texts("device_id"), body["uuid"], texts("namespace"), texts("pod"), texts("model_name"),
        body["seen_ms"], *(body["values"][metric] for metric in METRICS.values()), strict=True,
    )  # fmt: skip
    for host, device, uuid, namespace, pod, model, seen_ms, *values in columns:
        silent = (body["time_ms"] - seen_ms) / 1000
        util, temp, power, memory = (math.nan if value is None else float(value) for value in values)
        yield GpuLine(
            name=f"{host} {device or uuid}".strip(),
            host=host or "-",
            job=" / ".join(filter(None, (namespace, pod))),
            model=model,
            util=util,
            temp=temp,
            power=power,
            memory=memory,
            silent_seconds=silent if silent > body["silent_after_seconds"] else 0.0,
        )
