"""The steady clock of leases, the same in all processes of one machine."""

from __future__ import annotations

import time


def steady_s() -> float:
    """Seconds since the machine was started, whatever is done to its wall clock."""
    # Linux stops CLOCK_MONOTONIC while the machine sleeps, and the scheduler's time goes on.
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()
