"""Recordings: files of step events, one JSON object on each line; gzipped if named ``*.gz``."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

from stepstream.schemas.accept import ANY_TIME, Accepted, accept_value
from stepstream.schemas.step import happened_us


class FreshIds:
    """New ids for a replay, derived from the old ones by a hash with a random key.

    The same old id gives the same new id within one replay, without a table.
    """

    def __init__(self, salt: bytes) -> None:
        self._salt = salt

    def trace(self, old: str) -> str:
        return hashlib.blake2b(old.encode(), key=self._salt, digest_size=16).hexdigest()

    def step(self, old: str) -> str:
        return hashlib.blake2b(old.encode(), key=self._salt, digest_size=8).hexdigest()


def extent(file: Path) -> tuple[int, int]:
    """The earliest time at which a valid event happened, and the latest time in one; else zeros.

    The latest time includes the end that a start may name: shifted times must not be in the future.
    Times in another unit than most events' do not count, else one line in milliseconds would shift
    all others by decades, and they would be reported instead of it.
    """
    # By number of digits: seconds have 10, milliseconds 13, microseconds 16, nanoseconds 19.
    found: dict[int, list[int]] = {}
    # A pass of its own: the shift of the times depends on the last event of the file.
    for line, _ in lines(file):
        accepted = accept_value(line, timestamp_us=0, limits=ANY_TIME) if line else None
        if isinstance(accepted, Accepted):
            at = happened_us(accepted.step)
            latest = max(accepted.step.start_time, accepted.step.end_time or 0)
            count, first, last = found.get(_magnitude(at), (0, at, latest))
            found[_magnitude(at)] = [count + 1, min(first, at), max(last, latest)]
    if not found:
        return 0, 0
    _, first, last = max(found.values())
    return first, last


def _magnitude(time_us: int) -> int:
    """Equal for times in the same unit, as long as they are from 1971 to 2255."""
    return (len(str(abs(time_us))) + 2) // 3


def lines(file: Path) -> Iterator[tuple[bytes, int]]:
    """Each line without its line end, and the bytes of the file read so far."""
    with contextlib.ExitStack() as open_files:
        raw = open_files.enter_context(file.open("rb"))
        opened: IO[bytes] = raw
        if file.suffix == ".gz":
            opened = cast(IO[bytes], open_files.enter_context(gzip.open(raw)))
        for line in opened:
            yield line.strip(), raw.tell()
