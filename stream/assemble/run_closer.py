"""Closes runs: when they are over, and those that have been idle for longest where too much is in
memory.
"""

from __future__ import annotations

from stepstream.stream.assemble.active_run import ActiveRun
from stepstream.stream.assemble.checkpoint_writer import CheckpointWriter
from stepstream.stream.assemble.closed_runs import ClosedRuns
from stepstream.stream.assemble.closing import close_at, presumed_over_at
from stepstream.stream.assemble.detection import Detection
from stepstream.stream.assemble.memory_accounting import MemoryAccounting
from stepstream.stream.core.counters import Counters
from stepstream.stream.run.limits import AssembleLimits


class RunCloser:
    """Closes the runs of one partition."""

    def __init__(
        self,
        limits: AssembleLimits,
        counters: Counters,
        detection: Detection,
        writer: CheckpointWriter,
        memory: MemoryAccounting,
        closed: ClosedRuns,
    ) -> None:
        self._limits = limits
        self._counters = counters
        self._detection = detection
        self._writer = writer
        self._memory = memory
        self._closed = closed

    def close_if_due(self, active: ActiveRun, now_us: int) -> None:
        if now_us >= presumed_over_at(active.run, self._limits) and active.run.presume_over():
            active.publication.is_outdated = active.publication.is_urgent = True
        if now_us >= close_at(active.run, self._limits):
            self.close(active, now_us)

    def close(self, active: ActiveRun, now_us: int) -> None:
        """Close an open run; not yet where its detectors have found something that is to be in its
        state first.
        """
        run, checkpoint, counters = active.run, active.checkpoint, self._counters
        if run.closed:
            return
        run.adopt_root()
        self._detection.run_closes(active)
        if checkpoint.deferred:
            self._writer.write_if_ready(active)
            return  # it closes at a later wake-up, when those are sent
        self.mark_closed(active, now_us)
        # Requested although no record may need it: after a restart the run must be known to be
        # closed.
        checkpoint.request_state()
        counters.runs_closed += 1
        counters.orphans += sum(
            1 for info in run.steps.values() if info.parent and info.parent not in run.steps
        )
        self._detection.resolve_all(active)
        active.publication.is_outdated = True
        if run.is_late_fragment:
            counters.too_late += len(run.steps)
            self._writer.write_if_ready(active)

    def mark_closed(self, active: ActiveRun, now_us: int) -> None:
        """Only note that the run is closed."""
        run = active.run
        if not run.closed:
            self._memory.closed(active)
        run.closed, run.closed_at_us = True, now_us

    def excess(self) -> list[ActiveRun]:
        """Make room: forget states of closed runs, oldest first, and return the open runs that have
        to close besides.
        """
        memory, limits = self._memory, self._limits
        excess_runs = memory.open - limits.max_open_runs
        # Runs that have closed and wait for acknowledgements are about to go: they do not count, or
        # too many would close.
        excess_bytes = memory.open_bytes + self._closed.size_bytes - limits.max_held_bytes
        if excess_runs <= 0 and excess_bytes <= 0:
            return []
        idle = memory.idlest(excess_runs, excess_bytes - self._closed.size_bytes)
        if excess_bytes > 0:
            self._counters.closed_forgotten += self._closed.shed(excess_bytes)
        return idle

    def force_close(self, active: ActiveRun, now_us: int) -> None:
        was_open = not active.run.closed
        self.close(active, now_us)
        self._counters.forced_closed += was_open and active.run.closed
