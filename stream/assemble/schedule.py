"""When a run closes, and when it wants to be looked at next: from what is known of it, in log time."""

from __future__ import annotations

from typing import Any, Final

from stepstream.stream.assemble.checkpoint import RunCheckpoint
from stepstream.stream.run.limits import NEVER_US, AssembleLimits
from stepstream.stream.run.run import Run

MIN_WAIT_US: Final = 50_000
"""A detector that keeps asking for the past is asked again after so long."""


class DetectorRaised(Exception):
    """A detector raised when it was asked for its next look."""

    def __init__(self, detector: Any, error: Exception) -> None:
        super().__init__(detector.name)
        self.detector = detector
        self.error = error


def close_at(run: Run, limits: AssembleLimits) -> int:
    """Closing is decided, not guessed: root ended and nothing open, no root for long, or too old."""
    oldest_us = run.first_append_us + limits.max_run_age_us
    if run.root_ended:
        quiet_us = limits.rootless_idle_us if run.open else limits.close_after_us
        return min(oldest_us, run.last_append_us + quiet_us)
    if run.root is None:
        return min(oldest_us, run.last_append_us + limits.rootless_idle_us)
    return oldest_us


def soonest_look(run: Run, limits: AssembleLimits, now_us: int) -> int:
    """Before when nothing can want to look at the run, whatever its latest records were: spares asking its detectors."""
    soonest_us = min(now_us + run.rules.quickest_us, run.look_us, run.next_timer_us)
    root = run.root
    if root is None:
        return min(soonest_us, now_us + limits.rootless_idle_us)
    if root.ended:
        return min(soonest_us, now_us + limits.close_after_us, now_us + limits.rootless_idle_us)
    return soonest_us


def wake_at(tracked: RunCheckpoint, limits: AssembleLimits) -> int | None:
    """The next moment that matters: closing, or a detector's timer; None for a closed run. Raises ``DetectorRaised``."""
    run = tracked.run
    if run.closed:
        return None
    due = min(close_at(run, limits), run.next_timer_us)
    for detector in run.rules.timed:
        if run.off and detector.name in run.off:
            continue
        try:
            at = detector.notify_at(run)
            is_sooner = at is not None and at < due
        except Exception as error:
            raise DetectorRaised(detector, error) from error
        if at is not None and is_sooner:
            due = at
    return due


def next_look(tracked: RunCheckpoint, limits: AssembleLimits, now_us: int) -> int | None:
    """When to look at the run, where that is before what is scheduled; what its records asked for is noted with that."""
    run, scheduled_us = tracked.run, tracked.scheduled_us
    soonest_us = soonest_look(run, limits, now_us)
    run.look_us, tracked.wants_look = NEVER_US, False
    if scheduled_us is not None and scheduled_us <= soonest_us:
        return None
    due_us = wake_at(tracked, limits)
    if due_us is None:
        return None
    look_us = min(due_us, soonest_us)  # so that the records until then need not be asked
    if look_us <= now_us:
        look_us = now_us + MIN_WAIT_US
    return look_us if scheduled_us is None or look_us < scheduled_us else None
