"""How much memory runs take, near enough to bound it, and which open ones were silent for longest.

``benchmarks/memory.py`` shows how near. All of it is counted as runs come, grow and go: nothing walks over all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from heapq import heapify, heappop, heappush
from typing import Final

from stepstream.stream.assemble.checkpoint import RunCheckpoint
from stepstream.stream.run.run import Run

RUN_BYTES: Final = 3_500
STEP_BYTES: Final = 1_150
SPARE: Final = 10_000
"""Entries of runs that have closed or grown may outnumber those of the others by so many before they are dropped."""


def run_bytes(run: Run) -> int:
    """Of an open run: by its steps, and where it has many by their texts."""
    return RUN_BYTES + STEP_BYTES * len(run.steps) + max(0, run.text_size)


class MemoryAccounting:
    """Counts the runs of one partition. The caller says when one is taken up, grows, closes and is put away."""

    def __init__(self, runs: Mapping[str, RunCheckpoint]) -> None:
        self._runs = runs
        self._idle: list[tuple[int, str]] = []
        """A heap of last appends as they were when the entry was made; a run has one that is not later than its own."""
        self.open = 0
        self.open_bytes = 0
        self.size_bytes = 0
        """Of all runs, also those that have closed and wait for acknowledgements."""

    def put(self, tracked: RunCheckpoint) -> None:
        """A run is taken up."""
        run = tracked.run
        if not run.closed:
            self.open += 1
            heappush(self._idle, (run.last_append_us, run.trace_id))
        self.weigh(tracked)

    def weigh(self, tracked: RunCheckpoint) -> None:
        """A run may have grown."""
        size_bytes = run_bytes(tracked.run)
        grown_bytes = size_bytes - tracked.size_bytes
        tracked.size_bytes = size_bytes
        self.size_bytes += grown_bytes
        if not tracked.run.closed:
            self.open_bytes += grown_bytes

    def closed(self, tracked: RunCheckpoint) -> None:
        """An open run has closed."""
        self.open -= 1
        self.open_bytes -= tracked.size_bytes
        if len(self._idle) > 2 * self.open + SPARE:
            self._idle = [entry for entry in self._idle if self._open_run(entry[1]) is not None]
            heapify(self._idle)

    def gone(self, tracked: RunCheckpoint) -> None:
        """A closed run is put away."""
        self.size_bytes -= tracked.size_bytes
        tracked.size_bytes = 0

    def idlest(self, count: int, size_bytes: int = 0) -> list[RunCheckpoint]:
        """The open runs that were silent for longest: at least so many, and together so large."""
        found: list[RunCheckpoint] = []
        entries: list[tuple[int, str]] = []
        while self._idle and (len(found) < count or size_bytes > 0):
            last_append_us, trace_id = heappop(self._idle)
            tracked = self._open_run(trace_id)
            if tracked is None:
                continue
            entry = tracked.run.last_append_us, trace_id
            if entry[0] > last_append_us:
                heappush(self._idle, entry)
                continue
            entries.append(entry)
            found.append(tracked)
            size_bytes -= tracked.size_bytes
        for entry in entries:  # not every one of them has to close now
            heappush(self._idle, entry)
        return found

    def _open_run(self, trace_id: str) -> RunCheckpoint | None:
        tracked = self._runs.get(trace_id)
        return None if tracked is None or tracked.run.closed else tracked
