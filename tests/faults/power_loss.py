"""A machine of which only what was fsynced is left, for one `telemetry` process.

    python power_loss.py FOLDER KEPT CRASH_AT telemetry's arguments...

Runs the command, and notes in KEPT what of FOLDER would survive a power loss: of a file the bytes of its last fsync, of
a folder the names of its last one. In place of fsync number CRASH_AT (1 is the first) the power goes: the process kills
itself. `restore` makes a folder of what is left then. It is the harshest disk there may be: nothing is on it a moment
before it has to be.
"""

import os
import shutil
import signal
import stat
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from _typeshed import FileDescriptorLike

_NAMES: Final = "names"
_BYTES: Final = "bytes"


class Kept:
    """What is on the disk, as files of a folder: `names/INODE` lists a folder, `bytes/INODE` is a file's content."""

    def __init__(self, folder: Path, kept: Path, crash_at: int) -> None:
        self._folder = folder
        self._kept = kept
        self._left = crash_at
        self._lock = threading.Lock()
        self._open: list[int] = []
        for kind in (_NAMES, _BYTES):
            (kept / kind).mkdir(parents=True, exist_ok=True)

    def fsync(self, fd: "FileDescriptorLike") -> None:
        """In place of `os.fsync`."""
        descriptor = fd if isinstance(fd, int) else fd.fileno()
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        if not path.is_relative_to(self._folder):
            return
        with self._lock:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            # While it is open, no other file gets its inode.
            self._open.append(os.dup(descriptor))
            about = os.fstat(descriptor)
            if stat.S_ISDIR(about.st_mode):
                names = [f"{entry.inode()} {entry.is_dir():d} {entry.name}\n" for entry in os.scandir(path)]
                self._write(_NAMES, about.st_ino, "".join(names).encode())
            else:
                self._write(_BYTES, about.st_ino, Path(f"/proc/self/fd/{descriptor}").read_bytes())

    def _write(self, kind: str, inode: int, content: bytes) -> None:
        partial = self._kept / "partial"
        partial.write_bytes(content)
        partial.replace(self._kept / kind / str(inode))


def restore(folder: Path, kept: Path) -> None:
    """Makes `folder` what a power loss left of it, and forgets what was kept, for its inodes are others now."""
    left = folder.with_name(f"{folder.name}.left")
    _restore(folder.stat().st_ino, left, kept)
    shutil.rmtree(folder)
    left.rename(folder)
    shutil.rmtree(kept)


def _restore(inode: int, to: Path, kept: Path) -> None:
    to.mkdir()
    names = kept / _NAMES / str(inode)
    for line in names.read_text().splitlines() if names.exists() else ():
        number, is_folder, name = line.split(" ", 2)
        if is_folder == "1":
            _restore(int(number), to / name, kept)
        else:
            content = kept / _BYTES / number
            # The name is on the disk, the bytes are not: an empty file.
            (to / name).write_bytes(content.read_bytes() if content.exists() else b"")


def note_all(folder: Path, kept: Path) -> None:
    """Notes a whole folder as being on the disk: what is there before the process starts."""
    disk = Kept(folder, kept, 0)
    for path in (folder, *folder.rglob("*")):
        descriptor = os.open(path, os.O_RDONLY)
        disk.fsync(descriptor)
        os.close(descriptor)


def main(folder: str, kept: str, crash_at: str, *arguments: str) -> None:
    note_all(Path(folder), Path(kept))
    os.fsync = Kept(Path(folder), Path(kept), int(crash_at)).fsync
    sys.argv[1:] = arguments

    from telemetry_services.cli import main as telemetry

    telemetry()


if __name__ == "__main__":
    main(*sys.argv[1:])
