"""Marks on disk what a worker is about to process, so that what ends the process without an
exception can be found.

A record that raises, or that hangs where other threads can run, is noted on Kafka. One that hangs
in C code without releasing the interpreter lock leaves no chance for that: the interpreter's own
timer ends the process and writes a stack trace to a file. So each chunk of records is marked before
it is processed, which costs two writes to mapped memory. A worker that starts on this machine and
finds a mark processes that chunk with a mark for each record. If it finds a stack trace as well,
the marked record counts as tried; a worker that was killed from outside leaves a mark but no trace,
and blames no record.
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

NO_OFFSET: Final = -1
_FIELDS: Final = struct.Struct("<qqqq")


class Unfinished(NamedTuple):
    """What was processed when a worker ended: the first and last offset of a chunk, and the
    record's, if known, else -1.
    """

    first: int
    last: int
    offset: int
    time_ms: int


class ProgressMarker:
    """The mark of one partition. Where no file can be written it marks nothing."""

    def __init__(self, path: Path) -> None:
        self.unfinished: Unfinished | None = None
        """The mark that was found in the file."""
        self.has_hung = False
        """Whether a worker has hung in C code since: the marked record counts as tried."""
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
            log.warning("progress cannot be marked in %s: %s", path, error)
            return
        if is_new:
            self.clear()
        found = Unfinished(*_FIELDS.unpack_from(self._map))
        self.unfinished = found if 0 <= found.first <= found.last else None

    def begin(self, first: int, last: int, time_ms: int) -> None:
        """A chunk is about to be processed."""
        if self._map is not None:
            _FIELDS.pack_into(self._map, 0, first, last, NO_OFFSET, time_ms)

    def record(self, first: int, last: int, offset: int, time_ms: int) -> None:
        """One record of a chunk is about to be processed."""
        if self._map is not None:
            _FIELDS.pack_into(self._map, 0, first, last, offset, time_ms)

    def clear(self) -> None:
        """The chunk was processed."""
        if self._map is not None:
            _FIELDS.pack_into(self._map, 0, NO_OFFSET, NO_OFFSET, NO_OFFSET, 0)


def marker_folder(settings: Settings) -> Path:
    """The folder for the marks of one group's workers on this machine."""
    names = (settings.kafka_brokers, settings.topic_prefix, settings.worker_group)
    group = hashlib.sha256("\0".join(names).encode()).hexdigest()[:16]
    user = os.getuid() if hasattr(os, "getuid") else 0
    return Path(tempfile.gettempdir()) / f"stepstream-worker-{user}" / group


def marker_of(folder: Path, tp: TP) -> ProgressMarker:
    """The marker of a partition."""
    return ProgressMarker(folder / f"{tp.topic}-{tp.partition}.mark")


class HangTraces:
    """The files that the interpreter's timer writes as it ends a process that hangs in C code."""

    def __init__(self, folder: Path) -> None:
        self.found = ""
        """The stack traces of workers that have ended."""
        self._path = folder
        self.file: IO[str] | None = None
        """For the trace of this process; None where no file can be written."""
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            for path in folder.glob("hang-*"):
                if not _is_alive(int(path.name.partition("-")[2])):
                    self.found += path.read_text(errors="replace")[:20_000]
                    path.unlink()
            self._path = folder / f"hang-{os.getpid()}"
            self.file = self._path.open("w")
        except (OSError, ValueError) as error:
            log.warning("a hang in C code will look like a kill from outside: %s", error)

    def close(self) -> None:
        """The process ends regularly: remove its file."""
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
