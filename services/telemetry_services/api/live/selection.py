"""Which GPUs are meant: what callers say, held against the fleet as it is."""

from collections.abc import Callable, Collection
from dataclasses import dataclass

from telemetry_services.store import Filters, Gpu


@dataclass(frozen=True, slots=True)
class Selection:
    """Every field that is given must match by one of its names; empty fields do not narrow.

    Attributes:
        gpus: uuids, or device ids such as `nvidia0`.
        text: a part, without regard to case, of any of a GPU's names.
    """

    gpus: tuple[str, ...] = ()
    hostnames: tuple[str, ...] = ()
    namespaces: tuple[str, ...] = ()
    pods: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    text: str = ""

    @property
    def is_all(self) -> bool:
        """Whether nothing is left out."""
        return self == Selection()

    def filters(self) -> Filters:
        """The same for the store, which knows no `text`."""
        return Filters(
            gpus=self.gpus, hostnames=self.hostnames, namespaces=self.namespaces, pods=self.pods, models=self.models
        )

    def matcher(self) -> Callable[[Gpu], bool]:
        """Tells whether a GPU is meant."""
        wanted: list[tuple[Callable[[Gpu], str], Collection[str]]] = [
            (get, frozenset(names))
            for get, names in (
                (lambda gpu: gpu.hostname, self.hostnames),
                (lambda gpu: gpu.namespace, self.namespaces),
                (lambda gpu: gpu.pod, self.pods),
                (lambda gpu: gpu.model_name, self.models),
            )
            if names
        ]
        ids, text = frozenset(self.gpus), self.text.casefold()

        def matches(gpu: Gpu) -> bool:
            if ids and gpu.uuid not in ids and gpu.device_id not in ids:
                return False
            if text and text not in _names(gpu):
                return False
            return all(get(gpu) in names for get, names in wanted)

        return matches


def _names(gpu: Gpu) -> str:
    names = (gpu.hostname, gpu.device_id, gpu.uuid, gpu.model_name, gpu.namespace, gpu.pod, gpu.container)
    return "\n".join(names).casefold()
