"""What guardrails of policies decided in the agent, from the steps that report it."""

from __future__ import annotations

from typing import Final, Literal

from stepstream.schemas.alert import FindingSeverity
from stepstream.schemas.guardrails import GUARDRAIL_KIND
from stepstream.schemas.rule_base import RuleBase
from stepstream.schemas.rules import detector_for
from stepstream.stream.detectors.base import NOTHING, DetectorBase, Observation, Observations
from stepstream.stream.run.run import Run
from stepstream.stream.run.steps import StepInfo


class GuardrailReport(RuleBase):
    """A guardrail refused a call, repaired or suspended it, or could not be evaluated."""

    on_by_default = True
    fires_when = "a guardrail refused, repaired or suspended a call, or could not be evaluated"
    usual_severity = "warning"

    rule: Literal["guardrail"]


_WORDS: Final[dict[str, tuple[FindingSeverity, str]]] = {
    "refused": ("warning", "refused a call"),
    "suspended": ("warning", "suspends a call until it is approved"),
    "failed": ("error", "could not be evaluated"),
    "repaired": ("info", "repaired the arguments of a call"),
    # A note opens no alert: the policy only observes.
    "observed": ("note", "would not have let a call through as it was (mode observe)"),
}


@detector_for(GuardrailReport)
class GuardrailDetector(DetectorBase[GuardrailReport]):
    """One finding for each guardrail and decision of a run."""

    def wants_step(self, kind: str, *, ended: bool) -> bool:
        return ended and kind == GUARDRAIL_KIND

    def on_step(self, run: Run, step: StepInfo, now_us: int) -> Observations:
        if step.kind != GUARDRAIL_KIND or not step.ended:
            return NOTHING
        decision = run.decision_of(step)
        known = _WORDS.get(decision)
        if known is None or self.has_fired(run, step.name, decision):
            return NOTHING
        severity, what = known
        return (
            Observation(
                message=f"guardrail {step.name} {what}",
                severity=self.severity(severity),
                subject=step.name,
                level=decision,
                step_ids=(step.step_id,),
                quoted=step.error_message,
            ),
        )
