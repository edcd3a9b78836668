"""Posted points into the broker, as line protocol, keyed by the GPU."""

import asyncio
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from telemetry_broker import Broker, Producer, _core
from telemetry_broker.errors import BrokerError, InvalidArgumentError
from telemetry_services.api.known_names import METRIC, TAG, KnownNames
from telemetry_services.api.models import TelemetryPoint
from telemetry_services.api.times import parse_time
from telemetry_services.observability import metrics
from telemetry_services.store import Store
from telemetry_services.streamer.csv_streamer import make_topic

MEASUREMENT: Final = "gpu"
_LABEL: Final = re.compile(r'\s*([^=,\s"]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^,"]*))\s*(?:,|$)')
_ESCAPED: Final = re.compile(r"\\(.)", flags=re.DOTALL)
_REPEATED: Final = {"modelname": "model"}


def parse_labels(text: str) -> dict[str, str]:
    """Labels from `key="value"` pairs; values may also stand without quotes.

    Raises:
        InvalidArgumentError: anything else.
    """
    labels: dict[str, str] = {}
    at = 0
    while at < len(text):
        match = _LABEL.match(text, at)
        if match is None:
            raise InvalidArgumentError(f'labels_raw at character {at}: expected key="value" pairs, comma separated')
        name, quoted, bare = match.groups()
        labels[name] = _ESCAPED.sub(_unescape, quoted) if quoted is not None else bare.strip()
        at = match.end()
    return labels


def _unescape(match: re.Match[str]) -> str:
    return {"n": "\n"}.get(match.group(1), match.group(1))


def tags_of(point: TelemetryPoint) -> dict[str, str]:
    """The tags of a point: its columns, and the labels that do not repeat one; empty ones are left out.

    Raises:
        InvalidArgumentError: it names no GPU, its labels are malformed, or no table can have one of their names.
    """
    tags = {
        "container": point.container,
        "device": point.device_id,
        "gpu": point.gpu_id,
        "hostname": point.hostname,
        "model": point.model_name,
        "namespace": point.namespace,
        "pod": point.pod,
        "uuid": point.uuid or point.device_id,
    }
    labels: dict[str, str] = {}
    for name, value in parse_labels(point.labels_raw).items():
        column = _REPEATED.get(name.lower(), name.lower())
        if column in tags:
            tags[column] = tags[column] or value
        elif name != "__name__":
            _core.check_name(name, tag=True)
            labels[name] = value
    if not tags["uuid"]:
        raise InvalidArgumentError("the point names no GPU: give it a uuid, or at least a device_id")
    _check_alike([point.metric, *labels])
    return {name: value for name, value in sorted((tags | labels).items()) if value}


def _check_alike(names: Sequence[str]) -> None:
    spelled: dict[str, str] = {}
    for name in names:
        other = spelled.setdefault(name.lower(), name)
        if other is not name:
            raise InvalidArgumentError(f"{other!r} and {name!r} would share a column: rename one of them")


def encode(point: TelemetryPoint, now_ns: int) -> tuple[bytes, bytes]:
    """A point as a line, and the key of its record: the GPU.

    Raises:
        InvalidArgumentError: as `tags_of`.
    """
    return _encode(point, tags_of(point), now_ns)


def _encode(point: TelemetryPoint, tags: Mapping[str, str], now_ns: int) -> tuple[bytes, bytes]:
    time_ns = parse_time(point.time) if point.time else now_ns
    return _core.encode_point(MEASUREMENT, tags, {point.metric: point.value}, time_ns), tags["uuid"].encode()


class Publisher:
    """Sends points to the broker; the producer is made at the first one, so that the api starts without a broker.

    Args:
        store: whose columns a point must not spell otherwise.
    """

    def __init__(
        self, connect: Callable[[], Broker], store: Store, topic: str, partitions: int, service: str = "api"
    ) -> None:
        self._connect = connect
        self._names = KnownNames(store)
        self._topic = topic
        self._partitions = partitions
        self._service = service
        self._lock = threading.Lock()
        self._broker: Broker | None = None
        self._producer: Producer | None = None

    async def publish(self, points: Sequence[TelemetryPoint]) -> int:
        """Stores points in the broker and returns how many.

        Raises:
            BrokerError: a point is malformed (then none is stored), or the broker did not take them all.
        """
        now_ns = time.time_ns()
        tags = [tags_of(point) for point in points]
        names = {(METRIC, point.metric) for point in points} | {(TAG, name) for present in tags for name in present}
        await asyncio.to_thread(self._names.check, names)
        encoded = [_encode(point, present, now_ns) for point, present in zip(points, tags, strict=True)]
        await asyncio.to_thread(self._send, encoded)
        metrics.MESSAGES_PRODUCED.labels(self._service, self._topic).inc(len(encoded))
        metrics.DATA_POINTS.labels(self._service, "accepted").inc(len(encoded))
        return len(encoded)

    def _send(self, encoded: Sequence[tuple[bytes, bytes]]) -> None:
        with self._lock:
            producer = self._producer or self._open()
            for line, key in encoded:
                producer.send(line, key=key)
            producer.flush()

    def _open(self) -> Producer:
        self._broker = self._broker or self._connect()
        make_topic(self._broker, self._topic, self._partitions)
        self._producer = self._broker.producer(self._topic, delivery_timeout=10.0, max_block=10.0)
        return self._producer

    def broker(self) -> Broker:
        """The connection, made if it is not there yet. Blocks; raises BrokerError."""
        with self._lock:
            self._broker = self._broker or self._connect()
            return self._broker

    def why_unready(self) -> str:
        """Why the broker does not answer; empty when it does."""
        try:
            self.broker().describe()
        except BrokerError as error:
            return f"the broker does not answer: {error}"
        return ""

    def close(self) -> None:
        """Ends the connection that was made."""
        if self._broker is not None:
            self._broker.close()
