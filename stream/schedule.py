"""When a run closes, and when it wants to be looked at next: from what is known of it, in log time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from stepstream.stream.limits import AssembleLimits
from stepstream.stream.run import Run
from stepstream.stream.tracked import Tracked

SPARE_TIMERS: Final = 10_000
"""So many entries of runs that are gone may lie among those of runs that are not."""


def without_stale(timers: Iterable[tuple[int, str]], runs: Mapping[str, Tracked]) -> list[tuple[int, str]]:
    """The entries that still say when a run is to be looked at, as a heap."""
    return sorted((due_us, name) for due_us, name in timers if name in runs and runs[name].scheduled_us == due_us)


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
    soonest_us = min(now_us + run.rules.quickest_us, run.look_us)
    root = run.root
    if root is None:
        return min(soonest_us, now_us + limits.rootless_idle_us)
    if root.ended:
        return min(soonest_us, now_us + limits.close_after_us, now_us + limits.rootless_idle_us)
    return soonest_us


def wake_at(tracked: Tracked, limits: AssembleLimits) -> int | None:
    """The next moment that matters: closing, or a detector's timer; None for a closed run."""
    run = tracked.run
    if run.closed:
        return None
    due = close_at(run, limits)
    for detector in run.rules.timed:
        at = detector.notify_at(run)
        if at is not None and at < due:
            due = at
    return due
