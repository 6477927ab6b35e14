"""Stop commands to a run, and whether it acknowledges them.

Known from policies' findings and from the run's control steps.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal

from stepstream.schemas.alert import CommandStruct
from stepstream.schemas.control import CONTROL_KIND, control_step_id
from stepstream.schemas.durations import DurationUs
from stepstream.schemas.formatting import format_duration
from stepstream.schemas.rule_base import RuleBase
from stepstream.schemas.rules import detector_for
from stepstream.stream.detectors.base import (
    NOTHING,
    DetectorBase,
    Observation,
    Observations,
)
from stepstream.stream.run.rules import Applied
from stepstream.stream.run.run import Run
from stepstream.stream.run.steps import StepInfo


class StopIgnored(RuleBase):
    """The run was ordered to stop, and goes on."""

    on_by_default = True
    about_one_run = True
    fires_when = "a stop command was sent and the run continues"
    usual_severity = "critical"

    rule: Literal["stop_ignored"]
    after: DurationUs = 60_000_000


# The key is part of state records: it stays as it is.
_COMMANDS: Final = "orders to stop"
_MAX_COMMANDS: Final = 100


def note_stop_command(run: Run, command: CommandStruct, now_us: int) -> None:
    """Note when a policy sent a stop command, under the id of the step that will acknowledge it."""
    if command.action == "stop":
        _note(run, control_step_id(run.trace_id, command.command_id), now_us)
        # The detector's name is the policy's choice: every timer of the run is called and set
        # again.
        run.wake_timers(now_us)


def _note(run: Run, step_id: str, at_us: int) -> None:
    commands: dict[str, int] = run.detector_state.setdefault(_COMMANDS, {})
    if len(commands) < _MAX_COMMANDS:
        # The first notice counts: the command's own, or its step's if no policy sent it.
        commands.setdefault(step_id, at_us)


@detector_for(StopIgnored)
class StopIgnoredDetector(DetectorBase[StopIgnored]):
    """A stop command was sent and the run goes on: its agent does not listen, or hangs.

    Resolved when it stops.
    """

    def __init__(self, applied: Applied) -> None:
        super().__init__(applied)
        self._after_us = self.rule.after

    def wants_step(self, kind: str, *, ended: bool) -> bool:
        return kind == CONTROL_KIND

    def on_step(self, run: Run, step: StepInfo, now_us: int) -> Observations:
        """A command that reached the run, or its end: acknowledged, or void since an approval."""
        if step.kind != CONTROL_KIND or run.control_of(step).action != "stop":
            return NOTHING
        if not step.ended:
            _note(run, step.step_id, step.append_us)
            run.set_timer(self.name, step.append_us + self._after_us)
        elif self.has_fired(run, step.step_id):
            after = format_duration(step.end_us - step.start_us)
            return (
                Observation(
                    f"the stop command was acknowledged or withdrawn after {after}",
                    "info",
                    step.step_id,
                    resolved=True,
                ),
            )
        return NOTHING

    def on_timer(self, run: Run, now_us: int) -> Observations:
        """Report the commands that have waited too long."""
        if _COMMANDS not in run.detector_state:
            return NOTHING
        waiting = list(self._waiting(run))
        later = [due for due, _ in waiting if due > now_us]
        if later:
            run.set_timer(self.name, min(later))
        return [
            self._observation(run, step_id, now_us - due + self._after_us)
            for due, step_id in waiting
            if now_us >= due
        ]

    def _waiting(self, run: Run) -> Iterator[tuple[int, str]]:
        if not run.live or run.root_ended or run.closed:
            return
        for step_id, at_us in run.detector_state[_COMMANDS].items():
            step = run.steps.get(step_id)
            # No step: the command was sent, and nothing shows that it arrived.
            if (step is None or not step.ended) and not self.has_fired(run, step_id):
                yield at_us + self._after_us, step_id

    def _observation(self, run: Run, step_id: str, waited_us: int) -> Observation:
        has_arrived = step_id in run.steps
        return Observation(
            message=f"a stop command was sent {format_duration(waited_us)} ago and the run has not "
            "stopped",
            detail="the command reached the agent, which has begun no step since"
            if has_arrived
            else "nothing shows that the command reached the agent: does it use the SDK, or read "
            "the control topic?",
            severity=self.severity("critical"),
            subject=step_id,
            step_ids=(step_id,) if has_arrived else (),
            value=float(waited_us),
            threshold=float(self._after_us),
            unit="us",
        )
