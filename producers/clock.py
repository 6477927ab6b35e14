"""Time, as the SDK reads it: the wall clock once, where a step starts, and a steady one for how long it took."""

from __future__ import annotations

import time
from typing import Final, Protocol


class Clock(Protocol):
    """Two clocks in one: what time it is, and a steady count that never goes backwards."""

    def now_us(self) -> int:
        """Microseconds since 1970-01-01 UTC."""

    def steady_ns(self) -> int:
        """Nanoseconds from some fixed moment."""


class SystemClock:
    """The machine's clocks."""

    def now_us(self) -> int:
        return time.time_ns() // 1_000

    def steady_ns(self) -> int:
        return time.perf_counter_ns()


SYSTEM_CLOCK: Final = SystemClock()
