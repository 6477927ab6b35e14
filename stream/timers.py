"""When which run is to be looked at: a heap of log times, whose entries go stale where a run is gone or scheduled anew."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from heapq import heappop, heappush
from typing import Final

from stepstream.stream.clock import PartitionClock
from stepstream.stream.tracked import Tracked

SPARE: Final = 10_000
"""So many entries of runs that are gone may lie among those of runs that are not."""


class Timers:
    """Those of the open runs of one partition."""

    def __init__(self, runs: Mapping[str, Tracked], clock: PartitionClock) -> None:
        self._runs = runs
        self._clock = clock
        self._heap: list[tuple[int, str]] = []

    def __len__(self) -> int:
        return len(self._heap)

    def put(self, tracked: Tracked, look_us: int) -> None:
        """The run is to be looked at then, and not at the time that was noted before."""
        tracked.scheduled_us = look_us
        heappush(self._heap, (look_us, tracked.run.trace_id))

    def due(self, now_us: int) -> Iterator[Tracked]:
        """The runs whose time has come, each to be scheduled anew; later where producers still catch up."""
        heap = self._heap
        while heap and heap[0][0] <= now_us:
            due_us, trace_id = heappop(heap)
            tracked = self._runs.get(trace_id)
            if tracked is None or tracked.scheduled_us != due_us:
                continue
            tracked.scheduled_us = None
            if self._clock.timers_may_fire:
                yield tracked
            else:
                self.put(tracked, self._clock.timers_from_us)

    def tidy(self) -> None:
        """Drop stale entries where there are too many."""
        runs = self._runs
        if len(self._heap) > 2 * len(runs) + SPARE:
            self._heap = sorted(
                (due_us, name) for due_us, name in self._heap if name in runs and runs[name].scheduled_us == due_us
            )
