"""A stored row as samples: one for each of its values, with the labels that dcgm-exporter would write."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from telemetry_services.store.base import Sample

# How a tag is named in labels_raw, where that differs.
_LABELS: Final = {"hostname": "Hostname", "uuid": "UUID", "model": "modelName"}
_METRIC_LABEL: Final = "__name__"
_ESCAPES: Final = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})


def unpivot(
    time_ns: int, tags: dict[str, str], metrics: Sequence[str], values: Sequence[float | None]
) -> Iterator[Sample]:
    """Give the samples of one row, by metric.

    Args:
        tags: those that the row has.
        values: one for each of `metrics`; None: no value.
    """
    labels = sorted((_LABELS.get(name, name), value) for name, value in tags.items())
    before = "".join(f"{_label(name, value)}," for name, value in labels if name < _METRIC_LABEL)
    after = "".join(f",{_label(name, value)}" for name, value in labels if name > _METRIC_LABEL)
    for metric, value in sorted(zip(metrics, values, strict=True)):
        if value is not None:
            yield Sample(
                device_id=tags.get("device", ""),
                metric=metric,
                value=value,
                time_ns=time_ns,
                gpu_id=tags.get("gpu", ""),
                uuid=tags.get("uuid", ""),
                model_name=tags.get("model", ""),
                hostname=tags.get("hostname", ""),
                container=tags.get("container", ""),
                pod=tags.get("pod", ""),
                namespace=tags.get("namespace", ""),
                labels_raw=f"{before}{_label(_METRIC_LABEL, metric)}{after}",
            )


def _label(name: str, value: str) -> str:
    return f'{name}="{value.translate(_ESCAPES)}"'
