"""Disks whose syncs take as long as is said, once it is said: of real processes, by a library that they load first."""

import subprocess
from pathlib import Path

from tests.conftest import require_tool


def compiled(folder: Path) -> Path:
    """The library."""
    compiler = require_tool("cc", "apt-get install -y gcc libc6-dev")
    library = folder / "slow_disk.so"
    source = Path(__file__).with_name("slow_disk.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return library


class SlowDisk:
    """The disk of one process, which is started with this environment."""

    def __init__(self, library: Path, switch: Path) -> None:
        """``switch``: a file that is there while the disk is slow."""
        self.environment = {"LD_PRELOAD": str(library), "SLOW_DISK": str(switch)}
        self._switch = switch

    def sync_takes(self, seconds: float) -> None:
        """From now on, each."""
        self._switch.write_text(str(round(seconds * 1000)))

    def is_fast(self) -> None:
        """Again."""
        self._switch.unlink(missing_ok=True)
