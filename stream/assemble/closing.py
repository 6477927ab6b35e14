"""When a run closes: decided from what is known of it, in log time."""

from __future__ import annotations

from stepstream.stream.run.limits import NEVER_US, AssembleLimits
from stepstream.stream.run.run import Run


def close_at(run: Run, limits: AssembleLimits) -> int:
    """When an open run closes if no more of its records come.

    A run whose root has ended closes shortly after its last record, later while steps are still
    open; one without a root once it has been idle for long; every run at its greatest age.
    """
    oldest_us = run.first_append_us + limits.max_run_age_us
    if run.root_ended:
        quiet_us = limits.rootless_idle_us if run.open else limits.close_after_us
        return min(oldest_us, run.last_append_us + quiet_us)
    if run.root is None:
        return min(oldest_us, run.last_append_us + limits.rootless_idle_us)
    return oldest_us


def presumed_over_at(run: Run, limits: AssembleLimits) -> int:
    """When an open run is presumed to be over if no more of its records come; see
    ``Run.presume_over``.
    """
    if not run.unflagged or run.root is not None or run.open or run.presumed_root is not None:
        return NEVER_US
    # Nothing came since it was checked: else it would be checked again with every batch.
    if run.not_over_at == run.merged_events:
        return NEVER_US
    return run.last_append_us + limits.unflagged_idle_us
