"""A lock file per data folder, which the operating system releases when the process ends."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

from stepstream.local.embedded.errors import FolderInUse

# Windows locks are mandatory: a byte beyond any content is locked, so that the pid stays readable.
_BYTE = 1 << 30


class FolderLock:
    """Locks ``folder/lock`` from ``acquire`` to ``release``."""

    def __init__(self, folder: Path, what: str) -> None:
        self._path = folder / "lock"
        self._what = what
        self._file: int | None = None

    def acquire(self) -> None:
        """Take the lock, or raise ``FolderInUse`` with the pid of the process that has it."""
        # The contents of agents are stored here: for this user alone.
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            _lock(handle)
        except OSError:
            owner = os.read(handle, 32).decode(errors="replace").strip()
            os.close(handle)
            raise FolderInUse(
                f"{self._what} already works on {self._path.parent} (process "
                f"{owner or 'unknown'}): "
                f"stop that one, or choose another data folder"
            ) from None
        # Written under the lock, so that it is never the pid of a process that did not get it.
        os.ftruncate(handle, 0)
        os.write(handle, f"{os.getpid()}\n".encode())
        self._file = handle

    def release(self) -> None:
        if self._file is not None:
            handle, self._file = self._file, None
            with contextlib.suppress(OSError):
                _unlock(handle)
            os.close(handle)


if sys.platform == "win32":
    import msvcrt

    def _lock(handle: int) -> None:
        os.lseek(handle, _BYTE, os.SEEK_SET)
        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        finally:
            os.lseek(handle, 0, os.SEEK_SET)

    def _unlock(handle: int) -> None:
        os.lseek(handle, _BYTE, os.SEEK_SET)
        msvcrt.locking(handle, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _lock(handle: int) -> None:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _unlock(handle: int) -> None:
        fcntl.flock(handle, fcntl.LOCK_UN)
