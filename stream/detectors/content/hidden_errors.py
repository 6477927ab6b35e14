"""A tool failed, and only its output shows it."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Literal

from stepstream.schemas.rule_base import Glob, RuleBase
from stepstream.schemas.rules import detector_for
from stepstream.stream.detectors.aftermath import label_of
from stepstream.stream.detectors.base import NOTHING, Observation, Observations
from stepstream.stream.detectors.content.base import CALLS, ContentDetector, excerpt
from stepstream.stream.detectors.content.failures import (
    Failure,
    failure_in,
    is_bare_sentence,
    sounds_successful,
)
from stepstream.stream.run.contents import Contents
from stepstream.stream.run.rules import Applied
from stepstream.stream.run.run import Run
from stepstream.stream.run.steps import StepInfo


class HiddenToolError(RuleBase):
    """A tool's output reports a failure, but the step is marked ok.

    A note: ``failure_not_retried`` raises the alert.
    """

    on_by_default = True
    reads_contents = True
    fires_when = "a call is marked ok, but its output reports a failure"
    usual_severity = "note"

    rule: Literal["hidden_tool_error"]
    tool: Glob = "*"


_MAX_TOOLS = 200
_MAX_SENTENCES = 20


@detector_for(HiddenToolError)
class HiddenToolErrorDetector(ContentDetector[HiddenToolError]):
    """A call is marked ok, but its output reports a failure, or is a sentence in place of data.

    One finding per call, at once: a note. Whether there is an alert depends on what the agent does
    next, which ``failure_not_retried`` evaluates. For steps of kind ``other``, code that ran, only
    the form counts. The contrast with a tool's other outputs works in any order of outputs.
    """

    kinds = CALLS | {"other"}

    def __init__(self, applied: Applied) -> None:
        super().__init__(applied)
        self._tool = self.rule.tool

    def on_content(self, run: Run, step: StepInfo, contents: Contents, now_us: int) -> Observations:
        """Check an ended call."""
        if not self.wants_content(step.kind) or step.status != "ok" or not contents.output:
            return NOTHING
        if self._tool != "*" and not fnmatchcase(step.label, self._tool):
            return NOTHING
        is_call = step.kind in CALLS
        failure = failure_in(contents, step.label, form_only=not is_call)
        if failure is not None:
            return (
                self._observation(step.label if is_call else label_of(step), step.step_id, failure),
            )
        return self._contrast(run, step, contents) if is_call else NOTHING

    def _contrast(self, run: Run, step: StepInfo, contents: Contents) -> Observations:
        """Compare the form of an output with the tool's other outputs.

        The state per tool is 1 once it has returned data, else its sentences so far: [step id,
        text] each.
        """
        is_data = contents.output[:1] in ("{", "[")
        if not is_data and (not is_bare_sentence(contents) or sounds_successful(contents)):
            return NOTHING
        seen: dict[str, list[list[str]] | int] = self.state(run, {})
        before = seen.get(step.label)
        if is_data:
            if before == 1 or (before is None and len(seen) >= _MAX_TOOLS):
                return NOTHING
            seen[step.label] = 1
            return (
                [self._odd(step.label, *stated) for stated in before]
                if isinstance(before, list)
                else NOTHING
            )
        if before == 1:
            return (self._odd(step.label, step.step_id, excerpt(contents.output)),)
        if isinstance(before, list):
            if len(before) < _MAX_SENTENCES:
                before.append([step.step_id, excerpt(contents.output)])
        elif len(seen) < _MAX_TOOLS:
            seen[step.label] = [[step.step_id, excerpt(contents.output)]]
        return NOTHING

    def _odd(self, label: str, step_id: str, stated: str) -> Observation:
        return self._observation(
            label, step_id, Failure("a sentence, where this tool returns data", stated)
        )

    def _observation(self, label: str, step_id: str, failure: Failure) -> Observation:
        return Observation(
            message=f"{label} failed although its step is marked ok",
            quoted=excerpt(failure.message) or failure.sign,
            detail=f"seen in its output: {failure.sign}; the tool should mark such a step as "
            "failed",
            severity=self.severity("note"),
            subject=label,
            level=step_id,
            step_ids=(step_id,),
        )
