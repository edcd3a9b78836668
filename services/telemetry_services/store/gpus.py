"""What follows from the list of GPUs, whichever store it comes from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from typing import Final

from telemetry_services.store.base import Gpu, HostCount, NamespaceCount

NO_GPU: Final = ()
"""The identity of rows that name neither a uuid nor a device."""


def identity(uuid: str, hostname: str, device: str, instance: str) -> tuple[str, ...]:
    """Tell a GPU, or a slice of one, from all others; one without a uuid by its place."""
    if uuid:
        return (uuid, instance)
    return (hostname, device, instance) if device else NO_GPU


class FromGpus(ABC):
    """The questions of a `Store` that its list of GPUs answers."""

    @abstractmethod
    def gpus(self) -> list[Gpu]: ...

    def gpu(self, gpu: str, *, hostname: str | None = None) -> list[Gpu]:
        return [
            found
            for found in self.gpus()
            if gpu in (found.uuid, found.device_id) and gpu and hostname in (None, found.hostname)
        ]

    def hosts(self) -> list[HostCount]:
        counts = Counter(gpu.hostname for gpu in self.gpus() if gpu.hostname)
        return [HostCount(name, count) for name, count in sorted(counts.items())]

    def namespaces(self) -> list[NamespaceCount]:
        counts = Counter(gpu.namespace for gpu in self.gpus() if gpu.namespace)
        return [NamespaceCount(name, count) for name, count in sorted(counts.items())]
