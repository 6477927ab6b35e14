"""Start and end of a run whose steps come from several hosts with clocks that may differ."""

from __future__ import annotations

from typing import Final

from stepstream.stream.run.run import Run
from stepstream.stream.run.steps import StepInfo

TOLERANCE_US: Final = 1_000_000
"""Synchronized clocks differ by less."""


def run_span(
    run: Run, earliest_us: int | None = None, latest_us: int | None = None
) -> tuple[int, int]:
    """Start and end of a run in unix microseconds; the difference is its duration.

    Both are the root's own once it has ended: they come from one host's clock. Until then the end
    is the latest time of a step, but no later than the log allows, so that a host whose clock is
    ahead adds nothing. ``earliest_us`` and ``latest_us`` are the earliest start and the latest time
    of all steps, where the caller knows them.
    """
    root = run.root
    if root is not None and root.ended:
        return root.start_us, max(root.start_us, root.end_us)
    steps = run.steps.values()
    if earliest_us is None:
        earliest_us = min((info.start_us for info in steps), default=0)
    if latest_us is None:
        latest_us = max((max(info.end_us, info.start_us) for info in steps), default=0)
    start_us = earliest_us if root is None else root.start_us
    # Steps that were sent long after they happened may be far from now and close together in the
    # log.
    allowed_us = max(run.last_append_us, start_us + run.last_append_us - run.first_append_us)
    return start_us, max(start_us, min(latest_us, allowed_us))


def skewed_steps(run: Run) -> int:
    """The number of ended steps that are outside of their ended parents' time by more than the log
    explains, because their hosts' clocks differ.
    """
    steps = run.steps
    count = 0
    for info in steps.values():
        if (
            info.parent
            and info.ended
            and (parent := steps.get(info.parent)) is not None
            and parent.ended
        ):
            count += _is_skewed(info, parent, run.last_append_us)
    return count


def _is_skewed(info: StepInfo, parent: StepInfo, last_append_us: int) -> bool:
    if info.start_us < parent.start_us - TOLERANCE_US:
        return True  # it begins before its cause
    apart_us = (info.start_us - parent.start_us) - max(0, info.append_us - parent.append_us)
    if info.start_us > parent.end_us + TOLERANCE_US and apart_us > TOLERANCE_US:
        return True  # it arrived with its parent, yet began after the parent's end
    # A child may end long after its parent where work goes on in the background: only an end that
    # lies after the log's own time shows a clock that is ahead.
    ahead_us = last_append_us + TOLERANCE_US
    return info.end_us > parent.end_us + TOLERANCE_US and info.end_us > ahead_us >= parent.end_us
