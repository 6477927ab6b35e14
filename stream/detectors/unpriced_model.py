"""A step's cost is unknown."""

from __future__ import annotations

from typing import Literal

from stepstream.schemas.rule_base import RuleBase
from stepstream.schemas.rules import detector_for
from stepstream.stream.detectors.base import NOTHING, DetectorBase, Observation, Observations
from stepstream.stream.run.run import Run
from stepstream.stream.run.steps import StepInfo


class UnpricedModel(RuleBase):
    """A step's cost is unknown: no price is known for what it used.

    Or, a note, a model call named no usage.
    """

    on_by_default = True
    fires_when = "a step used tokens of a model without a price, or a model call reported no usage"
    usual_severity = "warning; note without usage"

    rule: Literal["unpriced_model"]


@detector_for(UnpricedModel)
class UnpricedModelDetector(DetectorBase[UnpricedModel]):
    """A step's cost is unknown: no price is known for what it used.

    Or, a note, a model call named no usage.
    """

    def on_step(self, run: Run, step: StepInfo, now_us: int) -> Observations:
        """Report an ended step without a cost."""
        if step.cost_source != "unpriced":
            return NOTHING
        model = step.model or "(no model named)"
        tokens = step.tokens[0] + step.tokens[1]
        if tokens:
            message = (
                f"no price is known for model {model}: its {tokens:,} tokens count as cost "
                "unknown, not as free"
            )
            detail = (
                "add it with a Prices document (docs/costs.md): stepstream apply -f prices.yaml"
            )
        else:
            message = (
                f"a call of model {model} named no usage: its cost counts as unknown, not as free"
            )
            detail = (
                "let the client report usage (docs/costs.md): for OpenAI's streams "
                "stream_options={'include_usage': True}"
            )
        return (
            Observation(
                message=message,
                detail=detail,
                severity=self.severity("warning" if tokens else "note"),
                subject=model,
                step_ids=(step.step_id,),
                value=float(tokens),
                unit="tokens",
            ),
        )
