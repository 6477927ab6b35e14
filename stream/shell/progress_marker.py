"""What a worker is about to process, noted in a file before it does: what ends the process without a word is found by it.

A record that raises, or hangs where threads may run, is noted on Kafka. One that hangs in C code leaves no chance for that:
the interpreter's own timer ends the process, and leaves a trace in a file. So each chunk of records is marked before it is
processed, which costs next to nothing. A worker that starts on this machine and finds a mark processes that chunk with a mark
for each record. Where it finds that trace as well, the record that is marked counts as tried; a worker that was killed has
not failed.
"""

from __future__ import annotations

import hashlib
import logging
import mmap
import os
import struct
import tempfile
from pathlib import Path
from typing import IO, Final, NamedTuple

from faust.types import TP

from stepstream.schemas.settings import Settings

log = logging.getLogger("stepstream.worker")

NOBODY: Final = -1
_FIELDS: Final = struct.Struct("<qqqq")


class Left(NamedTuple):
    """What was under way when a worker ended: the offsets of a chunk, and the record where that is known, else -1."""

    first: int
    last: int
    offset: int
    time_ms: int


class Mark:
    """The mark of one partition. Where no file can be written it marks nothing."""

    def __init__(self, path: Path) -> None:
        self.left: Left | None = None
        """What was found when it was opened."""
        self.is_blamed = False
        """Whether a worker has hung here since: the marked record counts as tried."""
        self._map: mmap.mmap | None = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            place = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600)
            try:
                is_new = os.fstat(place).st_size != _FIELDS.size
                os.ftruncate(place, _FIELDS.size)
                self._map = mmap.mmap(place, _FIELDS.size)
            finally:
                os.close(place)
        except OSError as error:
            log.warning("what is processed cannot be marked at %s: %s", path, error)
            return
        if is_new:
            self.clear()
        found = Left(*_FIELDS.unpack_from(self._map))
        self.left = found if 0 <= found.first <= found.last else None

    def begin(self, first: int, last: int, time_ms: int) -> None:
        """A chunk is about to be processed."""
        if self._map is not None:
            _FIELDS.pack_into(self._map, 0, first, last, NOBODY, time_ms)

    def record(self, first: int, last: int, offset: int, time_ms: int) -> None:
        """One record of a chunk is about to be processed."""
        if self._map is not None:
            _FIELDS.pack_into(self._map, 0, first, last, offset, time_ms)

    def clear(self) -> None:
        """It was processed."""
        if self._map is not None:
            _FIELDS.pack_into(self._map, 0, NOBODY, NOBODY, NOBODY, 0)


def marks_folder(settings: Settings) -> Path:
    """Where the workers of one group on this machine leave their marks."""
    names = (settings.kafka_brokers, settings.topic_prefix, settings.worker_group)
    whose = hashlib.sha256("\0".join(names).encode()).hexdigest()[:16]
    user = os.getuid() if hasattr(os, "getuid") else 0
    return Path(tempfile.gettempdir()) / f"stepstream-worker-{user}" / whose


def mark_of(folder: Path, tp: TP) -> Mark:
    """The mark of a partition."""
    return Mark(folder / f"{tp.topic}-{tp.partition}.mark")


class Traces:
    """What the interpreter's timer writes as it ends a process that hangs in C code."""

    def __init__(self, folder: Path) -> None:
        self.left = ""
        """What workers that have ended have left."""
        self._path = folder
        self.file: IO[str] | None = None
        """Where this one's would go; None where no file can be written."""
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            for path in folder.glob("hang-*"):
                if not _is_alive(int(path.name.partition("-")[2])):
                    self.left += path.read_text(errors="replace")[:20_000]
                    path.unlink()
            self._path = folder / f"hang-{os.getpid()}"
            self.file = self._path.open("w")
        except (OSError, ValueError) as error:
            log.warning("a hang in C code cannot be told from being killed: %s", error)

    def close(self) -> None:
        """The process ends in good order."""
        if self.file is not None:
            self.file.close()
            self._path.unlink(missing_ok=True)


def _is_alive(pid: int) -> bool:
    if pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
