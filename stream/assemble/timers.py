"""When which run is to be looked at: heaps of log times, whose entries go stale where a run is gone or scheduled anew.

Runs whose root has ended are about to close: they come first. Of the others, whose detectors want to be asked, only so many
are looked at in one turn: where a million runs began at once, a million are stuck at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from heapq import heappop, heappush
from typing import Final

from stepstream.stream.assemble.checkpoint import RunCheckpoint
from stepstream.stream.core.clock import PartitionClock

SPARE: Final = 10_000
"""So many entries of runs that are gone may lie among those of runs that are not."""

LOOKS_A_TURN: Final = 2_000
"""A look takes some ten microseconds, and what it finds as much again: a turn of so many takes a tenth of a second."""

_Heap = list[tuple[int, str]]


class Timers:
    """Those of the open runs of one partition."""

    def __init__(self, runs: Mapping[str, RunCheckpoint], clock: PartitionClock) -> None:
        self._runs = runs
        self._clock = clock
        self._closing: _Heap = []
        self._looks: _Heap = []

    def __len__(self) -> int:
        return len(self._closing) + len(self._looks)

    def put(self, tracked: RunCheckpoint, look_us: int) -> None:
        """The run is to be looked at then, and not at the time that was noted before."""
        tracked.scheduled_us = look_us
        heappush(
            self._closing if tracked.run.root_ended else self._looks,
            (look_us, tracked.run.trace_id),
        )

    def due(self, now_us: int) -> Iterator[RunCheckpoint]:
        """The runs whose time has come, each to be scheduled anew; later where producers still catch up."""
        yield from self._due(self._closing, now_us, len(self._closing))
        yield from self._due(self._looks, now_us, LOOKS_A_TURN)

    def _due(self, heap: _Heap, now_us: int, most: int) -> Iterator[RunCheckpoint]:
        clock = self._clock
        while heap and most > 0 and heap[0][0] <= now_us:
            due_us, trace_id = heappop(heap)
            tracked = self._runs.get(trace_id)
            if tracked is None or tracked.scheduled_us != due_us:
                continue
            tracked.scheduled_us = None
            run = tracked.run
            if clock.timers_may_fire or (
                run.root_ended and not run.open and clock.may_close(run.first_append_us)
            ):
                most -= 1
                yield tracked
            else:
                self.put(tracked, clock.timers_from_us)

    def tidy(self) -> None:
        """Drop stale entries where there are too many."""
        if len(self) > 2 * len(self._runs) + SPARE:
            self._closing, self._looks = (
                self._without_stale(self._closing),
                self._without_stale(self._looks),
            )

    def _without_stale(self, heap: _Heap) -> _Heap:
        runs = self._runs
        return sorted(
            (due_us, name)
            for due_us, name in heap
            if name in runs and runs[name].scheduled_us == due_us
        )
