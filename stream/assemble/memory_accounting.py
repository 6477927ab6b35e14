"""How much memory the runs of a partition take, near enough to bound it, and which open ones
have been idle for longest.

``benchmarks/memory.py`` compares the estimate with what the process grows by. Runs are counted as
they come, grow and go: nothing iterates over all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from heapq import heapify, heappop, heappush
from typing import Final

from stepstream.stream.assemble.active_run import ActiveRun
from stepstream.stream.run.run import Run

RUN_BYTES: Final = 3_500
STEP_BYTES: Final = 1_150
SPARE: Final = 10_000
"""Entries out of date may outnumber the open runs by this many before they are removed."""


def run_bytes(run: Run) -> int:
    """The memory that a run takes: by its steps, and where it has many by their texts."""
    return RUN_BYTES + STEP_BYTES * len(run.steps) + max(0, run.text_size)


class MemoryAccounting:
    """Counts the runs of one partition; the caller reports when one is added, grows, closes and is
    removed.
    """

    def __init__(self, runs: Mapping[str, ActiveRun]) -> None:
        self._runs = runs
        # A heap by last append time as it was when the entry was made. A run has one entry, whose
        # time is never later than the run's own: it is corrected when it reaches the top.
        self._idle: list[tuple[int, str]] = []
        self.open = 0
        self.open_bytes = 0
        self.size_bytes = 0
        """Of all runs, also those that have closed and wait for acknowledgements."""

    def added(self, active: ActiveRun) -> None:
        run = active.run
        if not run.closed:
            self.open += 1
            heappush(self._idle, (run.last_append_us, run.trace_id))
        self.grown(active)

    def grown(self, active: ActiveRun) -> None:
        """The run may have grown: count it by what it is now."""
        size_bytes = run_bytes(active.run)
        grown_bytes = size_bytes - active.size_bytes
        active.size_bytes = size_bytes
        self.size_bytes += grown_bytes
        if not active.run.closed:
            self.open_bytes += grown_bytes

    def closed(self, active: ActiveRun) -> None:
        """An open run is about to be marked as closed."""
        self.open -= 1
        self.open_bytes -= active.size_bytes
        if len(self._idle) > 2 * self.open + SPARE:
            self._idle = [entry for entry in self._idle if self._open_run(entry[1]) is not None]
            heapify(self._idle)

    def removed(self, active: ActiveRun) -> None:
        """A closed run is no longer in memory."""
        self.size_bytes -= active.size_bytes
        active.size_bytes = 0

    def idlest(self, count: int, size_bytes: int = 0) -> list[ActiveRun]:
        """The open runs that have been idle for longest: at least ``count``, and together at least
        ``size_bytes``.
        """
        found: list[ActiveRun] = []
        entries: list[tuple[int, str]] = []
        while self._idle and (len(found) < count or size_bytes > 0):
            last_append_us, trace_id = heappop(self._idle)
            active = self._open_run(trace_id)
            if active is None:
                continue
            entry = active.run.last_append_us, trace_id
            if entry[0] > last_append_us:
                heappush(self._idle, entry)
                continue
            entries.append(entry)
            found.append(active)
            size_bytes -= active.size_bytes
        for entry in entries:  # the caller may leave some of them open
            heappush(self._idle, entry)
        return found

    def _open_run(self, trace_id: str) -> ActiveRun | None:
        active = self._runs.get(trace_id)
        return None if active is None or active.run.closed else active
