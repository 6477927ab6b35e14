"""The SDK's clocks: wall-clock time for the start of a step, a steady clock for its duration."""

from __future__ import annotations

import time
from typing import Final, Protocol


class Clock(Protocol):
    """Wall-clock time, and a steady clock that never goes backwards."""

    def now_us(self) -> int:
        """Microseconds since 1970-01-01 UTC."""

    def steady_ns(self) -> int:
        """Nanoseconds since an arbitrary moment."""


class SystemClock:
    """The machine's clocks."""

    def now_us(self) -> int:
        return time.time_ns() // 1_000

    # The function itself and not a method around it: every step asks twice.
    steady_ns = staticmethod(time.perf_counter_ns)


SYSTEM_CLOCK: Final = SystemClock()
