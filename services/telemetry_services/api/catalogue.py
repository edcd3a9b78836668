"""What is known about metrics: a name for people, the unit, and the range that a scale of it has.

Any metric can be stored and asked for; those that are not listed are shown by their own name, without a unit.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric.

    Attributes:
        unit: as it is written behind a number; empty: a plain number, or not known.
        scale: the lowest and the highest value that are usual, for colours; None: those that there are.
    """

    name: str
    title: str = ""
    unit: str = ""
    scale: tuple[float, float] | None = None
    help: str = ""


_KNOWN: Final = {
    metric.name: metric
    for metric in (
        Metric("DCGM_FI_DEV_GPU_UTIL", "GPU utilisation", "%", (0, 100), "Share of time in which a kernel ran."),
        Metric("DCGM_FI_DEV_GPU_TEMP", "GPU temperature", "°C", (25, 90), "Temperature of the die."),
        Metric("DCGM_FI_DEV_MEMORY_TEMP", "Memory temperature", "°C", (25, 100), "Temperature of the memory."),
        Metric("DCGM_FI_DEV_POWER_USAGE", "Power", "W", (50, 700), "Power that the board draws."),
        Metric("DCGM_FI_DEV_FB_USED", "Memory used", "MiB", (0, 81_920), "Frame buffer in use."),
        Metric("DCGM_FI_DEV_FB_FREE", "Memory free", "MiB", (0, 81_920), "Frame buffer that is free."),
        Metric("DCGM_FI_DEV_MEM_COPY_UTIL", "Memory bandwidth", "%", (0, 100), "Share of time memory was accessed in."),
        Metric("DCGM_FI_DEV_ENC_UTIL", "Encoder", "%", (0, 100), "Utilisation of the video encoder."),
        Metric("DCGM_FI_DEV_DEC_UTIL", "Decoder", "%", (0, 100), "Utilisation of the video decoder."),
        Metric("DCGM_FI_DEV_SM_CLOCK", "SM clock", "MHz", (0, 2000), "Clock of the streaming multiprocessors."),
        Metric("DCGM_FI_DEV_MEM_CLOCK", "Memory clock", "MHz", (0, 2700), "Clock of the memory."),
        Metric("DCGM_FI_DEV_XID_ERRORS", "Last XID error", "", None, "Number of the newest XID error; 0: none."),
        Metric("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", "Energy", "mJ", None, "Energy since the driver was loaded."),
        Metric("DCGM_FI_DEV_PCIE_REPLAY_COUNTER", "PCIe replays", "", None, "PCIe retries since the start."),
        Metric("DCGM_FI_DEV_NVLINK_BANDWIDTH_TOTAL", "NVLink bandwidth", "MB/s", None, "Of all links together."),
        Metric("DCGM_FI_PROF_GR_ENGINE_ACTIVE", "Graphics engine active", "", (0, 1), "Share of time, 0 to 1."),
        Metric("DCGM_FI_PROF_PIPE_TENSOR_ACTIVE", "Tensor cores active", "", (0, 1), "Share of cycles, 0 to 1."),
        Metric("DCGM_FI_PROF_DRAM_ACTIVE", "DRAM active", "", (0, 1), "Share of cycles, 0 to 1."),
    )
}


def describe_metric(name: str) -> Metric:
    """What is known about a metric."""
    return _KNOWN.get(name) or Metric(name, title=name)


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that looks most like this one, its case left aside; None: there is none like it."""
    spelled = {other.casefold(): other for other in known}
    wanted = name.casefold()
    within = [other for folded, other in spelled.items() if wanted and wanted in folded]
    found = get_close_matches(wanted, spelled, n=1, cutoff=0.6)
    if found:
        return spelled[found[0]]
    return min(within, key=len) if within else None
