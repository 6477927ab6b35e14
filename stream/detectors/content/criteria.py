"""Whether a run is a success by a Criteria document: evaluated as it closes, from what it did."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Literal

from stepstream.schemas.criteria import (
    OUTSIDE_CHECKS,
    AnswerCheck,
    ArgumentsCheck,
    AtMostCheck,
    Checks,
    Criteria,
    ExprCheck,
    LimitsCheck,
    NeverCheck,
    NoHiddenErrorCheck,
    StatusCheck,
    ToolsCheck,
)
from stepstream.schemas.rule_base import RuleBase
from stepstream.schemas.rules import detector_for
from stepstream.stream.detectors.base import NOTHING, DetectorBase, Observation, Observations
from stepstream.stream.detectors.content.failures import failure_in
from stepstream.stream.detectors.criteria import answer, calls, totals
from stepstream.stream.detectors.criteria.outcome import PASSED, Outcome, failed, together, unknown
from stepstream.stream.run.contents import Contents
from stepstream.stream.run.rules import Applied
from stepstream.stream.run.run import Run
from stepstream.stream.run.steps import StepInfo


class CriteriaFailed(RuleBase):
    """A run does not meet its criteria. Made from each Criteria document in force."""

    actionable = False
    reads_contents = True
    fires_when = "a closed run fails a check of its Criteria document ([evaluation](evaluation.md))"
    usual_severity = "note"

    rule: Literal["criteria_failed"]
    checks: Checks


MAX_TOOLS = 200
_MOST_KEPT = 20


def rule_of(criteria: Criteria) -> CriteriaFailed:
    """The rule that evaluates a document."""
    return CriteriaFailed(
        rule="criteria_failed",
        # Of policies no alert has such a name, unless someone writes it: states are kept by name.
        alert=f"criteria.{criteria.name}",
        severity=criteria.severity,
        checks=criteria.checks,
    )


@detector_for(CriteriaFailed)
class CriteriaDetector(DetectorBase[CriteriaFailed]):
    """Keeps of each run what its checks need from contents, and evaluates them as it closes."""

    decides_success = True

    def __init__(self, applied: Applied) -> None:
        super().__init__(applied)
        self._arguments = {
            str(place): calls.ArgumentsOfTool(check)
            for place, check in enumerate(self.rule.checks)
            if isinstance(check, ArgumentsCheck)
        }
        answers = [check for check in self.rule.checks if isinstance(check, AnswerCheck)]
        self._reads_answer = bool(answers)
        self._reads_documents = any(check.cites for check in answers)
        self._reads_outputs = any(isinstance(c, NoHiddenErrorCheck) for c in self.rule.checks)
        self.reads_contents = bool(self._arguments or answers or self._reads_outputs)

    def on_content(self, run: Run, step: StepInfo, contents: Contents, now_us: int) -> Observations:
        """Keep what the checks need of an ended step."""
        kept: dict[str, Any] = self.state(run, {})
        if self._reads_answer:
            answer.note_answer(kept, step, contents)
        if self._reads_documents and contents.step.documents:
            answer.note_documents(kept, contents)
        if step.kind not in calls.CALLS:
            return NOTHING
        for place, one in self._arguments.items():
            one.note(kept.setdefault(place, {}), step, contents)
        if self._reads_outputs:
            _note_output(kept.setdefault("outputs", {}), step, contents)
        return NOTHING

    def on_close(self, run: Run, now_us: int) -> Observations:
        """Report a run that fails."""
        found = self.outcome(run)
        if found.state != "fail":
            return NOTHING
        return (
            Observation(
                message=f"the run does not meet the criteria {self.applied.policy}: {found.reason}",
                severity=self.severity("note"),
                step_ids=found.step_ids,
            ),
        )

    def outcome(self, run: Run) -> Outcome:
        """The outcome of all checks on the run as it is now."""
        return together(outcome for _, outcome in self.outcomes(run))

    def outcomes(self, run: Run) -> list[tuple[str, Outcome]]:
        """Each check's name and outcome."""
        kept: dict[str, Any] = run.detector_state.get(self.name) or {}
        called = calls.calls_of(run)
        return [
            (check.check, self._evaluated(place, check, run, kept, called))
            for place, check in enumerate(self.rule.checks)
        ]

    def _evaluated(
        self, place: int, check: Any, run: Run, kept: dict[str, Any], called: list[StepInfo]
    ) -> Outcome:
        if run.over_limit:
            return unknown("the run has more steps than are followed")
        if isinstance(check, OUTSIDE_CHECKS):
            # They may ask a model, which no worker waits for.
            return unknown(f"checks of the form {check.check} are made in suites only")
        if isinstance(check, ArgumentsCheck):
            return self._arguments[str(place)].outcome(kept.get(str(place), {}), called)
        if isinstance(check, NoHiddenErrorCheck):
            return _outputs(kept.get("outputs", {}), called)
        if isinstance(check, AnswerCheck):
            return answer.answer(check, kept)
        if (of_calls := _OF_CALLS.get(type(check))) is not None:
            return of_calls(check, called)
        return _OF_RUN[type(check)](check, run)


_OF_CALLS: Final[dict[type, Callable[[Any, list[StepInfo]], Outcome]]] = {
    ToolsCheck: calls.tools,
    NeverCheck: calls.never,
    AtMostCheck: calls.at_most,
}
_OF_RUN: Final[dict[type, Callable[[Any, Run], Outcome]]] = {
    StatusCheck: totals.status,
    LimitsCheck: totals.limits,
    ExprCheck: totals.expression,
}


def _note_output(kept: dict[str, Any], step: StepInfo, contents: Contents) -> None:
    """Keep whether the latest output of each tool reports a failure."""
    known = kept.get(step.label)
    if known is None and len(kept) >= MAX_TOOLS:
        return
    if known is not None and (known[0], known[1]) > (step.start_us, step.step_id):
        return
    hidden = step.status == "ok" and bool(contents.output) and failure_in(contents, step.label)
    missing = not contents.output and contents.output_is_cut
    kept[step.label] = [step.start_us, step.step_id, bool(hidden), missing]


def _outputs(kept: dict[str, Any], called: list[StepInfo]) -> Outcome:
    hidden = [(label, row[1]) for label, row in sorted(kept.items()) if row[2]]
    if hidden:
        names = ", ".join(label for label, _ in hidden[:_MOST_KEPT])
        ids = [step_id for _, step_id in hidden]
        return failed(f"the last output of {names} reports a failure", *ids)
    if any(row[3] for row in kept.values()) or any(one.label not in kept for one in called):
        return unknown("outputs of tools are not recorded completely")
    return PASSED
