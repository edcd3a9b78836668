"""What goes over the REST API."""

import math
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field

from telemetry_broker import _core
from telemetry_broker.errors import InvalidArgumentError
from telemetry_services.api.catalogue import Metric
from telemetry_services.api.times import format_time, parse_time
from telemetry_services.store import Gpu, HostCount, NamespaceCount, Sample


def _check_time(text: str) -> str:
    parse_time(text)
    return text


def _text(value: Any) -> Any:
    # Clients in the field send a GPU's number as a number.
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError("expected a finite number; leave the point out when there is no value")
    return value


def _storable(name: str) -> str:
    try:
        _core.check_name(name)
    except InvalidArgumentError as error:
        raise ValueError(error.message) from error
    return name


Text = Annotated[str, BeforeValidator(_text)]
Time = Annotated[str, AfterValidator(_check_time)]


class TelemetryPoint(BaseModel):
    """One value of one metric of one GPU, as it is posted."""

    model_config = ConfigDict(
        extra="ignore",
        json_schema_extra={
            "example": {
                "device_id": "nvidia0",
                "metric": "DCGM_FI_DEV_GPU_UTIL",
                "value": 87,
                "time": "2025-07-18T20:42:34Z",
                "gpu_id": "0",
                "uuid": "GPU-5fd4f087-86f3-7a43-b711-4771313afc50",
                "model_name": "NVIDIA H100 80GB HBM3",
                "hostname": "mtv5-dgx1-hgpu-031",
            }
        },
    )

    device_id: Text = Field("", description="Name of the device in its host, such as nvidia0.")
    metric: Annotated[str, AfterValidator(_storable)] = Field(
        min_length=1, max_length=256, description="Name of the metric; not one of the columns that every table has."
    )
    value: Annotated[float, AfterValidator(_finite)] = Field(description="A finite number.")
    time: Time | None = Field(None, description="RFC 3339, up to nanoseconds; default: now.")
    gpu_id: Text = Field("", description="Number of the GPU in its host.")
    uuid: Text = Field("", description="Identity of the GPU; default: device_id.")
    model_name: str = Field(
        "", validation_alias=AliasChoices("model_name", "modelName"), description="Model of the GPU."
    )
    hostname: str = Field("", validation_alias=AliasChoices("hostname", "Hostname"), description="Its host.")
    container: str = Field("", description="Container that uses the GPU.")
    pod: str = Field("", description="Pod that uses the GPU.")
    namespace: str = Field("", description="Namespace of the pod.")
    labels_raw: str = Field("", description='More labels: `key="value"` pairs, comma separated.')


class Accepted(BaseModel):
    """How many points the broker has stored."""

    accepted: int = Field(description="Points that the broker has stored; the collector stores them soon after.")
    status: str = Field("accepted")


def gpu_fields(gpu: Gpu) -> dict[str, str]:
    """What a GPU's JSON has before `last_seen`."""
    fields = {
        "device_id": gpu.device_id,
        "gpu_id": gpu.gpu_id,
        "uuid": gpu.uuid,
        "model_name": gpu.model_name,
        "hostname": gpu.hostname,
        "container": gpu.container,
        "pod": gpu.pod,
        "namespace": gpu.namespace,
    }
    return {**fields, "gpu_instance_id": gpu.instance_id} if gpu.instance_id else fields


class GpuOut(BaseModel):
    """A GPU with its newest known tags."""

    device_id: str
    gpu_id: str
    uuid: str
    model_name: str
    hostname: str
    container: str
    pod: str
    namespace: str
    gpu_instance_id: str | None = Field(None, description="GPU_I_ID of a MIG slice; left out for a whole GPU.")
    last_seen: str = Field(description="Time of its newest sample, RFC 3339.")

    @classmethod
    def fields_of(cls, gpu: Gpu) -> dict[str, Any]:
        """Of a GPU as the store has it."""
        return {**gpu_fields(gpu), "last_seen": format_time(gpu.last_seen_ns)}


class Gpus(BaseModel):
    """GPUs: all of them, or a page."""

    count: int = Field(description="GPUs in this answer.")
    total: int | None = Field(None, description="GPUs on all pages; left out where there is one.")
    next_cursor: str | None = Field(None, description="Send it as `cursor` for the next page.")
    gpus: list[GpuOut]


class SampleOut(BaseModel):
    """One value of one metric of one GPU."""

    device_id: str
    metric: str
    value: float
    time: str
    gpu_id: str
    uuid: str
    model_name: str
    hostname: str
    container: str
    pod: str
    namespace: str
    labels_raw: str

    @classmethod
    def of(cls, sample: Sample) -> "SampleOut":
        """As the store has it."""
        return cls(
            device_id=sample.device_id,
            metric=sample.metric,
            value=sample.value,
            time=format_time(sample.time_ns),
            gpu_id=sample.gpu_id,
            uuid=sample.uuid,
            model_name=sample.model_name,
            hostname=sample.hostname,
            container=sample.container,
            pod=sample.pod,
            namespace=sample.namespace,
            labels_raw=sample.labels_raw,
        )


class Telemetry(BaseModel):
    """Samples of a GPU."""

    gpu_id: str = Field(description="As it was asked for.")
    count: int
    data: list[SampleOut]
    next_cursor: str | None = Field(None, description="Send it as `cursor` for the next page; left out: there is none.")


class LatestValue(BaseModel):
    """The newest value of a metric."""

    metric: str
    value: float
    unit: str = Field(description="Empty: a plain number, or not known.")
    time: str


class GpuState(GpuOut):
    """A GPU, and how it is."""

    state: Literal["reporting", "silent"] = Field(description="Silent: no sample for a minute.")
    latest: list[LatestValue] = Field(description="By the metric's name.")


class GpuDetails(BaseModel):
    """The GPUs that a name means."""

    gpu_id: str = Field(description="As it was asked for.")
    count: int
    gpus: list[GpuState]


class MetricOut(BaseModel):
    """A metric."""

    name: str
    title: str = Field(description="For people.")
    unit: str = Field(description="Empty: a plain number, or not known.")
    scale: tuple[float, float] | None = Field(description="The values that are usual; null: not known.")
    help: str

    @classmethod
    def of(cls, metric: Metric) -> "MetricOut":
        """As the catalogue has it."""
        return cls(name=metric.name, title=metric.title, unit=metric.unit, scale=metric.scale, help=metric.help)


class Metrics(BaseModel):
    """All metrics."""

    count: int
    metrics: list[MetricOut]


class Series(BaseModel):
    """Values over time."""

    count: int = Field(description="Rows.")
    columns: dict[str, list[str | float | None]] = Field(
        description="`time` (RFC 3339), the names of whose values they are, and a column a metric; null: no value."
    )
    next_cursor: str | None = Field(description="Send it as `cursor` for the next page; null: there is none.")


class Host(BaseModel):
    """A host."""

    hostname: str
    gpu_count: int


class Hosts(BaseModel):
    """All hosts."""

    count: int
    hosts: list[Host]

    @classmethod
    def of(cls, counts: list[HostCount]) -> "Hosts":
        """As the store has them."""
        hosts = [Host(hostname=count.hostname, gpu_count=count.gpu_count) for count in counts]
        return cls(count=len(hosts), hosts=hosts)


class Namespace(BaseModel):
    """A Kubernetes namespace."""

    namespace: str
    gpu_count: int


class Namespaces(BaseModel):
    """All namespaces."""

    count: int
    namespaces: list[Namespace]

    @classmethod
    def of(cls, counts: list[NamespaceCount]) -> "Namespaces":
        """As the store has them."""
        namespaces = [Namespace(namespace=count.namespace, gpu_count=count.gpu_count) for count in counts]
        return cls(count=len(namespaces), namespaces=namespaces)


class Problem(BaseModel):
    """An error: problem details as RFC 9457 has them, with the fields that older clients read."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    error: str = Field(description="Stable code.")
    message: str = Field(description="The same as `detail`.")
