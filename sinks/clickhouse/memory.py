"""Memory of a process that builds large batches in several threads: kept near what is in use."""

from __future__ import annotations

import contextlib
import ctypes
import gc
from typing import Final

from clickhouse_connect.driver import options

YOUNG_OBJECTS: Final = 200_000
"""A batch is many objects without cycles: looking for cycles as often as usual costs more than making its rows."""

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
_MIB: Final = 1 << 20


def tune() -> None:
    """For this process, once: fewer searches for cycles; with glibc, large buffers of their own and few arenas."""
    _leave_frames_out()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, 10, 10)
    with contextlib.suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MMAP_THRESHOLD, _MIB)
        mallopt(
            _TRIM_THRESHOLD, 128 * _MIB
        )  # what a batch gives back the next one takes: ``give_back`` ends that
        mallopt(_ARENA_MAX, 2)


def _leave_frames_out() -> None:
    """No data frame is inserted here, and asking whether one is given would import pandas and pyarrow: 60 MB."""
    for name in ("np", "pd", "pd_time_test", "arrow", "pl"):
        setattr(options, name, None)


def give_back() -> None:
    """After much work: let the system have what is free."""
    gc.collect()
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
