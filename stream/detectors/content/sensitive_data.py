"""Secrets and personal data in what an agent outputs."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from stepstream.schemas.rule_base import RuleBase
from stepstream.schemas.rules import detector_for
from stepstream.stream.detectors.base import NOTHING, Observation, Observations
from stepstream.stream.detectors.content.base import ContentDetector
from stepstream.stream.detectors.content.sensitive_forms import FORMS, Found, found_in
from stepstream.stream.run.contents import Contents
from stepstream.stream.run.rules import Applied
from stepstream.stream.run.run import Run
from stepstream.stream.run.steps import StepInfo

Sensitive = Literal["key", "card", "iban", "email", "phone", "us_ssn"]


class SensitiveData(RuleBase):
    """A secret or personal data in the output of an agent.

    API keys, private keys, cards, account numbers.
    """

    on_by_default = True
    reads_contents = True
    fires_when = (
        "the output of a model, an agent or an output step contains a key, a card or a bank account"
    )
    usual_severity = "critical for keys, else error"

    rule: Literal["sensitive_data"]
    look_for: tuple[Sensitive, ...] = ("key", "card", "iban")
    kinds: tuple[str, ...] = Field(
        ("llm_call", "output", "agent"), description="kinds of steps whose output is searched"
    )


@detector_for(SensitiveData)
class SensitiveDataDetector(ContentDetector[SensitiveData]):
    """The output of an agent contains a secret or personal data.

    One finding per kind and step; it does not quote the data.
    """

    def __init__(self, applied: Applied) -> None:
        super().__init__(applied)
        self.kinds = frozenset(self.rule.kinds)
        self._forms = tuple(form for name in self.rule.look_for for form in FORMS[name])

    def on_content(self, run: Run, step: StepInfo, contents: Contents, now_us: int) -> Observations:
        """Search the output of an ended step."""
        if step.kind not in self.kinds or not contents.output:
            return NOTHING
        by_kind: dict[str, list[Found]] = {}
        for found in found_in(contents.output, contents.output_data, self._forms):
            by_kind.setdefault(found.what, []).append(found)
        if not by_kind:
            return NOTHING
        return [self._observation(step, what, found) for what, found in by_kind.items()]

    def _observation(self, step: StepInfo, what: str, found: list[Found]) -> Observation:
        more = f" and {len(found) - 1} more" if len(found) > 1 else ""
        return Observation(
            message=f"the output of {step.name} contains {what}",
            quoted=f"{found[0].hint}{more}",
            detail="everyone who can read this run can read it: replace the secret, and keep it "
            "out of prompts and outputs",
            severity=self.severity("critical" if found[0].is_secret else "error"),
            subject=what,
            level=step.step_id,
            step_ids=(step.step_id,),
            value=float(len(found)),
            threshold=0.0,
            unit="count",
        )
