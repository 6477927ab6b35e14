"""Space on the data folder's disk, and the guard that refuses new events before it runs out."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from stepstream.local.embedded.errors import DiskNearlyFull, FolderUnusable

# Kafka and ClickHouse end hard on a full disk; a segment, a merge and the system's own needs fit
# into this.
MIN_FREE_BYTES = 1 << 30
# Below this not even a start is safe.
START_FREE_BYTES = 256 << 20

State = Literal["open", "closed", "stopped"]


def free_bytes(folder: Path) -> int:
    """What an unprivileged program may still write on the folder's disk; the folder need not exist
    yet."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def require_folder(folder: Path, setting: str = "data_dir") -> None:
    """Make the folder where it is missing, for this user alone.

    Raises ``FolderUnusable`` where nothing can be written.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=folder, prefix=".writable-")
        os.close(handle)
        os.unlink(name)
    except OSError as error:
        raise FolderUnusable(folder, _why(folder, error), setting) from None


def _why(folder: Path, error: OSError) -> str:
    above = next((part for part in (folder, *folder.parents) if part.exists()), folder)
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        return f"{above} is a file, not a folder"
    if error.errno == errno.EROFS:
        return f"the file system of {above} is read-only"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"this user may not write to {above}"
    if error.errno == errno.ENOSPC:
        return f"no space is left on the disk of {above}"
    return f"nothing can be made in {above} ({(error.strerror or str(error)).lower()})"


def require_space(folder: Path, need: int = START_FREE_BYTES, free: int | None = None) -> None:
    """Raise DiskNearlyFull when less than ``need`` bytes are left."""
    left = free_bytes(folder) if free is None else free
    if left < need:
        raise DiskNearlyFull(
            f"only {left >> 20} MiB are free on the disk of {folder}, at least {need >> 20} MiB "
            "are needed to start: "
            f"make space, or choose another data folder"
        )


class DiskGuard:
    """Refuses new events while the disk is nearly full.

    The owner of the engines calls ``check`` every second or two. Below ``min_free_bytes`` it calls
    ``close``, and ``open`` when a quarter more than that is free again. Below a quarter of it,
    where closing has not helped, it calls ``stop``, once. A call that raises is repeated at the
    next check.
    """

    def __init__(
        self,
        folder: Path,
        *,
        close: Callable[[], None],
        open: Callable[[], None],
        stop: Callable[[], None],
        log: Callable[[str], None],
        min_free_bytes: int = MIN_FREE_BYTES,
        free: Callable[[Path], int] = free_bytes,
    ) -> None:
        self._folder = folder
        self._close, self._open, self._stop, self._log = close, open, stop, log
        self._min = min_free_bytes
        self._free = free
        self.state: State = "open"

    def check(self) -> State:
        """Compare the free space with the limits, act where needed, and return the state."""
        if self.state == "stopped":
            return self.state
        free = self._free(self._folder)
        wanted = next_state(self.state, free, self._min)
        if wanted != self.state:
            {"open": self._open, "closed": self._close, "stopped": self._stop}[wanted]()
            self.state = wanted
            self._log(self._sentence(free))
        return self.state

    def _sentence(self, free: int) -> str:
        disk = f"{free >> 20} MiB are free on the disk of {self._folder}"
        if self.state == "open":
            return f"{disk}: Kafka accepts events again"
        if self.state == "closed":
            return (
                f"{disk}, less than {self._min >> 20} MiB: Kafka accepts no more events until "
                "there is room; "
                f"what was accepted is kept and can be read"
            )
        return f"{disk}: Kafka was stopped so that its log stays whole; make room and start again"


def next_state(state: State, free: int, min_free: int) -> State:
    """The state with so much free space; opening again needs a quarter more than staying open."""
    if free < min_free // 4:
        return "stopped"
    if free < min_free:
        return "closed"
    return "open" if state == "open" or free >= min_free + min_free // 4 else "closed"
