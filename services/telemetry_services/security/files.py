"""Files that a running service reads again when they change. What cannot be used leaves in place what was there."""

import asyncio
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from telemetry_services.errors import ConfigError
from telemetry_services.observability.metrics import SECURITY_FILES

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 1.0
"""Between two looks at the files. Only a look tells of every way in which a mounted secret is replaced."""

_Stamp = tuple[int, int, int, int] | None


def read_bounded(path: Path, limit: int, setting: str) -> bytes:
    """The bytes of a file named by a setting.

    Raises:
        ConfigError: it cannot be read, or has more than `limit` bytes.
    """
    try:
        with path.open("rb") as file:
            found = file.read(limit + 1)
    except OSError as err:
        raise ConfigError(
            f"{setting}={path}: the file cannot be read ({err.strerror}); give one that this user may read"
        ) from err
    if len(found) > limit:
        raise ConfigError(f"{setting}={path}: the file has more than {limit:,} bytes; give the right one")
    return found


@dataclass
class Watched:
    """Files that belong together.

    Attributes:
        what: for the log and the metric, such as ``tokens``.
        load: takes up what the files hold now; raises ConfigError and changes nothing where that cannot be used.
    """

    what: str
    paths: Sequence[Path]
    load: Callable[[], None]
    _stamps: list[_Stamp] = field(init=False, default_factory=list)

    def begin(self, service: str) -> None:
        """Takes up the files for the first time; raises ConfigError."""
        self._stamps = self._look()
        self.load()
        SECURITY_FILES.labels(service, self.what).set(1)

    def look(self, service: str) -> None:
        """Takes them up again if one of them has changed."""
        stamps = self._look()
        if stamps == self._stamps:
            return
        self._stamps = stamps
        good = SECURITY_FILES.labels(service, self.what)
        try:
            self.load()
        except ConfigError as error:
            good.set(0)
            log.error("The %s changed and cannot be used, so the last good ones stay: %s", self.what, error)
        else:
            good.set(1)
            log.info("Reloaded the %s", self.what)

    def _look(self) -> list[_Stamp]:
        return [_stamp(path) for path in self.paths]


def _stamp(path: Path) -> _Stamp:
    try:
        found = os.stat(path)  # noqa: PTH116 (follows the links of which a mounted secret is made)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


async def watch(service: str, files: Sequence[Watched], looked: Callable[[], None]) -> None:
    """Looks at the files until it is cancelled; `looked` is called after each look."""
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        looked()
        for watched in files:
            watched.look(service)
