"""Gives back what the start needed and the work does not."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

# chdb looks for these to exchange data frames within a process; a server has no use for them, and
# they weigh 20 MB.
UNUSED_MODULES = ("numpy", "pandas", "pyarrow", "torch")
_MAPPING = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (\S+) \S+ \S+ \S+ +(\S.*)?")
_DONTNEED = 4


def leave_out_data_frames() -> None:
    """Before chdb is imported, in a process of its own: make imports of what it would only look for
    fail."""
    for name in UNUSED_MODULES:
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]


def drop_startup_pages(library: str = "_chdb") -> int:
    """Unmap the pages of the engine's program text; those still needed come back from the page
    cache. Returns bytes.

    The engine's 373 MB of text are touched all over while it starts. Linux only; elsewhere nothing
    happens.
    """
    if sys.platform != "linux":
        return 0
    import ctypes

    madvise = ctypes.CDLL(None).madvise
    dropped = 0
    with contextlib.suppress(OSError):
        for begin, size in _clean_text(library):
            if madvise(ctypes.c_void_p(begin), ctypes.c_size_t(size), _DONTNEED) == 0:
                dropped += size
    return dropped


def _clean_text(library: str) -> Iterator[tuple[int, int]]:
    """Mappings of executable text without a single changed page: only those can be read again from
    the file."""
    begin = size = 0
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if found := _MAPPING.match(line):
            begin = int(found[1], 16)
            wanted = found[3] == "r-xp" and library in (found[4] or "")
            size = int(found[2], 16) - begin if wanted else 0
        elif line.startswith("Private_Dirty:") and size and line.split()[1] == "0":
            yield begin, size
