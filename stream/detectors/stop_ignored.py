"""Orders to a run, and whether it obeys: known from policies' own findings and from the run's control steps alone."""

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
    fires_when = "a stop command was sent and the run goes on"
    usual_severity = "critical"

    rule: Literal["stop_ignored"]
    after: DurationUs = 60_000_000


_ORDERS: Final = "orders to stop"
_MAX_ORDERS: Final = 100


def note_stop_command(run: Run, command: CommandStruct, now_us: int) -> None:
    """A policy has ordered this run to stop: remember when, under the step that will tell of its obedience."""
    if command.action == "stop":
        _note(run, control_step_id(run.trace_id, command.command_id), now_us)
        # The detector's name is the policy's choice: every timer of the run is called and set again.
        run.wake_timers(now_us)


def _note(run: Run, step_id: str, at_us: int) -> None:
    orders: dict[str, int] = run.detector_state.setdefault(_ORDERS, {})
    if len(orders) < _MAX_ORDERS:
        orders.setdefault(step_id, at_us)


@detector_for(StopIgnored)
class StopIgnoredDetector(DetectorBase[StopIgnored]):
    """A stop was ordered and the run goes on: its agent does not listen, or hangs. Resolved when it obeys after all."""

    def __init__(self, applied: Applied) -> None:
        super().__init__(applied)
        self._after_us = self.rule.after

    def wants_step(self, kind: str, *, ended: bool) -> bool:
        """Control steps tell of people's orders and of obedience."""
        return kind == CONTROL_KIND

    def on_step(self, run: Run, step: StepInfo, now_us: int) -> Observations:
        """An order that reached the run, or its end: obeyed, or void since an approval."""
        if step.kind != CONTROL_KIND or run.control_of(step).action != "stop":
            return NOTHING
        if not step.ended:
            _note(run, step.step_id, step.append_us)
            run.set_timer(self.name, step.append_us + self._after_us)
        elif self.has_fired(run, step.step_id):
            after = format_duration(step.end_us - step.start_us)
            return (
                Observation(
                    f"the order to stop was settled after {after}",
                    "info",
                    step.step_id,
                    resolved=True,
                ),
            )
        return NOTHING

    def on_timer(self, run: Run, now_us: int) -> Observations:
        """Report the commands that have waited too long."""
        if _ORDERS not in run.detector_state:
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
        for step_id, at_us in run.detector_state[_ORDERS].items():
            step = run.steps.get(step_id)
            if (step is None or not step.ended) and not self.has_fired(run, step_id):
                yield at_us + self._after_us, step_id

    def _observation(self, run: Run, step_id: str, waited_us: int) -> Observation:
        heard = step_id in run.steps
        return Observation(
            message=f"it was ordered to stop {format_duration(waited_us)} ago and did not",
            detail="the order reached the agent, which has begun no step since"
            if heard
            else "nothing shows that the order reached the agent: does it use the SDK, or read the control topic?",
            severity=self.severity("critical"),
            subject=step_id,
            step_ids=(step_id,) if heard else (),
            value=float(waited_us),
            threshold=float(self._after_us),
            unit="us",
        )
