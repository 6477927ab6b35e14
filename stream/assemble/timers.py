"""When which run is woken, to close it or to fire its detectors' timers: heaps of log times.

An entry is out of date once its run is gone or woken at another time; it is skipped when it is due.
Runs whose root has ended are about to close: they have a heap of their own and are all woken. Of
the others only this many are woken in one turn: where a million runs began at once, the timers of a
million are due at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from heapq import heappop, heappush
from typing import Final

from stepstream.stream.assemble.active_run import ActiveRun
from stepstream.stream.assemble.closing import close_at, presumed_over_at
from stepstream.stream.core.clock import PartitionClock
from stepstream.stream.run.limits import AssembleLimits
from stepstream.stream.run.run import Run

SPARE: Final = 10_000
"""Entries out of date may outnumber the runs by this many before they are removed."""

WAKE_UPS_A_TURN: Final = 2_000
"""A wake-up takes some ten microseconds, and what it finds as much again: this many take a
tenth of a second.
"""

MIN_WAIT_US: Final = 50_000
"""A run that asks to be woken in the past is woken after so long."""

_Heap = list[tuple[int, str]]


def wake_at(run: Run, limits: AssembleLimits) -> int:
    """When something about an open run is due: its close, presumed or not, or a timer."""
    return min(close_at(run, limits), presumed_over_at(run, limits), run.next_timer_us)


class Timers:
    """Those of the open runs of one partition."""

    def __init__(
        self, runs: Mapping[str, ActiveRun], clock: PartitionClock, limits: AssembleLimits
    ) -> None:
        self._runs = runs
        self._clock = clock
        self._limits = limits
        self._closing: _Heap = []
        self._others: _Heap = []

    def __len__(self) -> int:
        return len(self._closing) + len(self._others)

    def schedule(self, active: ActiveRun) -> None:
        """Wake the run when something about it is due next, unless it is woken earlier."""
        run, scheduled_us = active.run, active.scheduled_us
        if run.closed:
            return
        due_us = wake_at(run, self._limits)
        if due_us <= self._clock.now_us:
            due_us = self._clock.now_us + MIN_WAIT_US
        if scheduled_us is None or due_us < scheduled_us:
            self._put(active, due_us)

    def _put(self, active: ActiveRun, at_us: int) -> None:
        active.scheduled_us = at_us
        heappush(
            self._closing if active.run.root_ended else self._others, (at_us, active.run.trace_id)
        )

    def due(self, now_us: int) -> Iterator[ActiveRun]:
        """The runs that are to be woken, each to be scheduled anew; later where producers still
        catch up.
        """
        yield from self._due(self._closing, now_us, len(self._closing))
        yield from self._due(self._others, now_us, WAKE_UPS_A_TURN)

    def _due(self, heap: _Heap, now_us: int, most: int) -> Iterator[ActiveRun]:
        clock = self._clock
        while heap and most > 0 and heap[0][0] <= now_us:
            due_us, trace_id = heappop(heap)
            active = self._runs.get(trace_id)
            if active is None or active.scheduled_us != due_us:
                continue
            active.scheduled_us = None
            run = active.run
            is_over = run.root_ended and not run.open
            if clock.timers_may_fire or (is_over and clock.may_close(run.first_append_us)):
                most -= 1
                yield active
            else:
                self._put(active, clock.timers_from_us)

    def remove_outdated(self) -> None:
        """Remove entries that are out of date where there are too many."""
        if len(self) > 2 * len(self._runs) + SPARE:
            self._closing = self._without_outdated(self._closing)
            self._others = self._without_outdated(self._others)

    def _without_outdated(self, heap: _Heap) -> _Heap:
        runs = self._runs
        return sorted(
            (due_us, name)
            for due_us, name in heap
            if name in runs and runs[name].scheduled_us == due_us
        )
