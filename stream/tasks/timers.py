"""When something is due, in log time. Pure."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heapify, heappop, heappush
from typing import Final, Literal, NamedTuple

TimerKind = Literal[
    "due", "deadline", "lease", "timeout", "stop", "executor", "drain", "unserved", "limit"
]
_REBUILD_AT: Final = 10_000


class Timer(NamedTuple):
    """One time. ``guard`` is the fencing number of the attempt that it is about, or 0."""

    at_us: int
    number: int
    kind: TimerKind
    subject: str
    guard: int


class Timers:
    """A heap of times. They are not removed: who gets one checks whether it still applies."""

    def __init__(self, still_applies: Callable[[Timer], bool]) -> None:
        self._heap: list[Timer] = []
        self._number = 0
        self._still_applies = still_applies
        self._rebuild_at = _REBUILD_AT

    def set(self, at_us: int, kind: TimerKind, subject: str, guard: int = 0) -> None:
        """Add a time."""
        self._number += 1
        heappush(self._heap, Timer(at_us, self._number, kind, subject, guard))
        if len(self._heap) >= self._rebuild_at:
            # A task of seconds may have a deadline of days: without this the heap would keep the
            # times of every task that has ended.
            self._heap = [timer for timer in self._heap if self._still_applies(timer)]
            heapify(self._heap)
            self._rebuild_at = max(_REBUILD_AT, 2 * len(self._heap))

    def pop_due(self, now_us: int) -> Timer | None:
        """The earliest time that has come; None where there is none."""
        return heappop(self._heap) if self._heap and self._heap[0].at_us <= now_us else None

    def has_due(self, now_us: int) -> bool:
        """Whether a time has come."""
        return bool(self._heap) and self._heap[0].at_us <= now_us

    def __len__(self) -> int:
        return len(self._heap)
