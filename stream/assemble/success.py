"""Whether a closed run is a success by the Criteria documents that match it."""

from __future__ import annotations

import logging
from typing import Final

from stepstream.schemas.trajectory import Success
from stepstream.stream.detectors.criteria.outcome import Outcome, together, unknown
from stepstream.stream.run.run import Run

log = logging.getLogger("stepstream.worker")

_SUCCESS: Final[dict[str, Success]] = {"pass": "true", "fail": "false", "unknown": "unknown"}

NOT_EVALUATED: Final[tuple[Success, str]] = "", ""


def success_of(run: Run) -> tuple[Success, str]:
    """Whether it is a success, and why not; both are empty where no document matches it."""
    if not run.rules.deciding:
        return NOT_EVALUATED
    found = together(_outcome(run, detector) for detector in run.rules.deciding)
    return _SUCCESS[found.state], found.reason


def _outcome(run: Run, detector: object) -> Outcome:
    name: str = detector.name  # type: ignore[attr-defined]
    if name in run.off:
        return unknown(f"{name} was switched off by an error")
    try:
        found: Outcome = detector.outcome(run)  # type: ignore[attr-defined]
    except Exception:
        # One document must not stop the trajectories of the runs that it matches.
        log.exception("the criteria %s could not be evaluated for run %s", name, run.trace_id)
        return unknown(f"{name} could not be evaluated")
    return found
