"""A condition that a user writes: an expression over the run so far."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from stepstream.schemas.expression.compiler import EvaluationError
from stepstream.schemas.rule_base import RuleBase
from stepstream.schemas.rules import detector_for
from stepstream.stream.detectors.base import (
    NOTHING,
    DetectorBase,
    Observation,
    Observations,
    RuleError,
)
from stepstream.stream.detectors.expression.variables import (
    Moment,
    compiled,
    new_counts,
    note_record,
)
from stepstream.stream.run.rules import Applied
from stepstream.stream.run.run import Run
from stepstream.stream.run.steps import StepInfo


class Expr(RuleBase):
    """A condition of a user holds: an expression over the run so far, in a subset of CEL."""

    fires_when = "the expression `when` is true after a record of the run"

    rule: Literal["expr"]
    when: str = Field(
        min_length=1, description="CEL over run and step, e.g. run.calls['refund'] > 2"
    )
    message: str = Field("", max_length=300, description="default: the expression")
    per: Literal["run", "tool", "step"] = Field(
        "run", description="once for a run, once for each tool, or once for each step"
    )

    @field_validator("when")
    @classmethod
    def _compiles(cls, when: str) -> str:
        compiled(when)
        return when


_COUNTS = frozenset({"run.calls", "run.failed_calls"})


@detector_for(Expr)
class ExprDetector(DetectorBase[Expr]):
    """Evaluates the expression after every record of the run."""

    def __init__(self, applied: Applied) -> None:
        super().__init__(applied)
        self._expression = compiled(self.rule.when)
        self._counts_calls = not _COUNTS.isdisjoint(self._expression.variables)
        self._per = self.rule.per

    def wants_step(self, kind: str, *, ended: bool) -> bool:
        """Every record may make it true."""
        return True

    def on_step(self, run: Run, step: StepInfo, now_us: int) -> Observations:
        """Evaluate, unless it was found before for this run, tool or step."""
        counts: dict[str, Any] = self._counted(run, step) if self._counts_calls else {}
        subject = {"run": "", "tool": step.tool, "step": step.step_id}[self._per]
        if self.has_fired(run, subject) or (self._per == "tool" and not subject):
            return NOTHING
        moment = Moment(run, step, now_us, counts)
        try:
            if not self._expression.holds(moment):
                return NOTHING
        except EvaluationError as error:
            raise RuleError(str(error)) from None
        return (
            Observation(
                message=self.rule.message or f"{self._expression.text.strip()[:200]} is true",
                detail=self._expression.values(moment)[:500],
                severity=self.severity("warning"),
                subject=subject,
                step_ids=(step.step_id,),
            ),
        )

    def _counted(self, run: Run, step: StepInfo) -> dict[str, Any]:
        known: dict[str, Any] | None = run.detector_state.get(self.name)
        if known is None:
            # The first record, or another policy since the root is known: earlier steps count too.
            known = run.detector_state[self.name] = new_counts(run)
        else:
            note_record(known, step)
        return known
