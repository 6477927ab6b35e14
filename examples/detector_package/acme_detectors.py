"""A detector in a package of its own: an agent that asks people for approval too often."""

from __future__ import annotations

from typing import Literal

from stepstream.stream.detectors import (
    DetectorBase,
    Observation,
    Observations,
    RuleBase,
    detector_for,
)
from stepstream.stream.run.run import Run
from stepstream.stream.run.steps import StepInfo


class TooManyQuestions(RuleBase):
    """The agent called a tool that asks people more than ``limit`` times."""

    fires_when = "a tool that asks people is called more than `limit` (3) times"

    rule: Literal["too_many_questions"]
    tool: str = "ask_human"
    limit: int = 3


@detector_for(TooManyQuestions)
class TooManyQuestionsDetector(DetectorBase[TooManyQuestions]):
    """Counts the ended calls of the tool."""

    def on_step(self, run: Run, step: StepInfo, now_us: int) -> Observations:
        if not step.ended or step.tool != self.rule.tool or self.has_fired(run):
            return ()
        # The run's own state, as plain data: it survives a restart of the worker.
        calls = self.state(run, [])
        calls.append(step.step_id)
        if len(calls) <= self.rule.limit:
            return ()
        return (
            Observation(
                message=f"people were asked {len(calls)} times",
                severity=self.severity("warning"),
                step_ids=tuple(calls),
                value=float(len(calls)),
                threshold=float(self.rule.limit),
                unit="count",
            ),
        )
