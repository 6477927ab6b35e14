"""Keeps the memory of a process that builds large batches in several threads near what is in use.

``python -m benchmarks.sink_memory`` measures each step with and without.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
from typing import Final

from clickhouse_connect.driver import options

YOUNG_OBJECTS: Final = 200_000
"""Allocations between runs of the collector; Python's default is 700."""


def tune() -> None:
    """Call once per process, when everything is imported."""
    _leave_frames_out()
    # A batch is many objects without cycles, so the collector finds nothing in them: with the
    # default threshold building and encoding rows takes 7 % more CPU, for the same memory
    # ("collector").
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, 10, 10)


def _leave_frames_out() -> None:
    """Keep clickhouse_connect from importing numpy, pandas and pyarrow, where they are
    installed.
    """
    # It imports them to find out whether it was given a data frame, which never happens here: 55
    # instead of 6 MiB, and 0.17 s of CPU ("no_data_frames").
    for name in ("np", "pd", "pd_time_test", "arrow", "pl"):
        setattr(options, name, None)


def give_back() -> None:
    """Give free memory back to the system; call it when nothing is pending after much work."""
    gc.collect()
    with contextlib.suppress(AttributeError, OSError):  # without glibc
        ctypes.CDLL(None).malloc_trim(0)
