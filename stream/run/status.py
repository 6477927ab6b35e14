"""The status of a run: running, or how it ended."""

from __future__ import annotations

from stepstream.schemas.control import CONTROL_KIND
from stepstream.schemas.trajectory import RunStatus
from stepstream.stream.run.run import Run
from stepstream.stream.run.steps import StepInfo


def run_status(run: Run) -> RunStatus:
    """The run's status: ``running`` until its root has ended and no step is open, even though late
    steps may still come, or until it is presumed to be over.

    After that ``stopped`` when it acknowledged a stop command, else the root's status;
    ``incomplete`` when it was closed without the end of a root.
    """
    if not run.is_shown_closed and (run.open or not run.root_ended):
        return "running"
    if any(
        info.kind == CONTROL_KIND and _is_acknowledged_stop(run, info)
        for info in run.steps.values()
    ):
        return "stopped"
    root = run.shown_root
    if root is None or not root.ended:
        return "incomplete"
    if root.status == "error":
        return "error"
    return "cancelled" if root.status == "cancelled" else "ok"


def _is_acknowledged_stop(run: Run, info: StepInfo) -> bool:
    return info.ended and info.status == "ok" and run.control_of(info).action == "stop"
