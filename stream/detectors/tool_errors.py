"""Calls that failed openly: those that nothing made up for are reported, the others are noted."""

from __future__ import annotations

from typing import Final, Literal

from stepstream.schemas.rule_base import RuleBase
from stepstream.schemas.rules import detector_for
from stepstream.stream.detectors.aftermath import (
    EVALUATED_KINDS,
    Failed,
    failures,
    label_of,
    makes_good,
)
from stepstream.stream.detectors.base import MAX_EVIDENCE, NOTHING, Observation, Observations, R
from stepstream.stream.detectors.content.base import DeferringDetector, is_reported_by
from stepstream.stream.detectors.content.speech import (
    ADMITTED,
    ASKED,
    SPEAKING,
    Answer,
    answers_of,
    note_answer,
    note_last_word,
)
from stepstream.stream.run.contents import Contents
from stepstream.stream.run.run import Run
from stepstream.stream.run.steps import StepInfo


class ToolErrorIgnored(RuleBase):
    """A tool failed, nothing made up for it or mentioned it, and the run ended as a success."""

    on_by_default = True
    fires_when = (
        "a tool failed, no later step made up for it or mentioned it, and the run ended "
        "as a success"
    )
    usual_severity = (
        "error; warning if it was retried without success, or the answer was not captured"
    )

    rule: Literal["tool_error_ignored"]


class ToolErrorRecovered(RuleBase):
    """A tool failed and the run made up for it, or spoke of it.

    Noted, no alert unless a severity is given.
    """

    on_by_default = True
    fires_when = "a tool failed, and the run made up for it or mentioned it"
    usual_severity = "note"

    rule: Literal["tool_error_recovered"]


_MAX_EVALUATIONS: Final = 8
"""Evaluations of a run before its end, after outputs; each goes over all of its steps."""
_MAX_REPORTED: Final = 20
"""Findings of a run that may still be withdrawn."""
_OUTPUT: Final = "output"
_REPEATED: Final = frozenset({"loop", "repetition"})


class _WithAnswers(DeferringDetector[R]):
    """Notes what models and the run itself answered, where contents are read."""

    kinds = SPEAKING | {"agent"}

    def on_content(self, run: Run, step: StepInfo, contents: Contents, now_us: int) -> Observations:
        """Note an answer."""
        self.note(run, step, contents)
        return NOTHING

    def note(self, run: Run, step: StepInfo, contents: Contents) -> Answer | None:
        """Note a step's answer; of the root its final output."""
        if step.kind in SPEAKING:
            return note_answer(run, step, contents, whole=run.errors > 0)
        return (
            None
            if step.parent or not run.errors or not contents.output
            else note_last_word(run, step, contents)
        )


@detector_for(ToolErrorIgnored)
class ToolErrorIgnoredDetector(_WithAnswers[ToolErrorIgnored]):
    """A tool failed, nothing made up for it, and the run succeeded without mentioning it.

    Evaluated after an output step that follows the failure, and at the close of a run that ended
    ok. A step that makes up for the failure later withdraws the finding.
    """

    def on_step(self, run: Run, step: StepInfo, now_us: int) -> Observations:
        """A later call that makes up for what was reported withdraws it."""
        if (
            not run.fired
            or not step.ended
            or step.status != "ok"
            or step.kind not in EVALUATED_KINDS
        ):
            return NOTHING
        # A failure that was reported may be made up for by a step that is only now complete.
        label = label_of(step)
        out = []
        for reported_label, step_id in self._reported(run).items():
            failed = run.steps.get(step_id)
            if (
                failed is not None
                and step.start_us >= failed.end_us
                and (how := makes_good(failed, reported_label, step, label))
            ):
                out.append(_withdrawn(reported_label, step_id, step, how))
        return self._forget(run, out)

    def on_content(self, run: Run, step: StepInfo, contents: Contents, now_us: int) -> Observations:
        """Note an answer.

        An output is where a run shows that it will not come back to a failure.
        """
        answer = self.note(run, step, contents)
        if not run.errors:
            return NOTHING
        # The number of evaluations is part of the state record, so that a restart does not start it
        # anew.
        if step.kind == "output" and self.own(run).get("judged", 0) < _MAX_EVALUATIONS:
            self.own(run)["output_us"] = step.start_us
            self.defer(run, _OUTPUT, now_us)
        if not run.fired or answer is None or answer[3] not in (ADMITTED, ASKED):
            return NOTHING
        how = "the agent mentioned it" if answer[3] == ADMITTED else "the agent asked the user"
        late = [
            _withdrawn(label, step_id, step, how)
            for label, step_id in self._reported(run).items()
            if step_id in run.steps and answer[0] >= run.steps[step_id].end_us
        ]
        return self._forget(run, late)

    def _reported(self, run: Run) -> dict[str, str]:
        state = run.detector_state.get(self.name)
        reported: dict[str, str] = state.get("told", {}) if state else {}
        return reported

    def _forget(self, run: Run, withdrawn: list[Observation]) -> list[Observation]:
        for item in withdrawn:
            self._reported(run).pop(item.subject, None)
        return withdrawn

    def on_close(self, run: Run, now_us: int) -> Observations:
        """Evaluate a run that ended ok, also if none of its contents were read."""
        if not run.errors or run.root is None or not run.root.ended or run.root.status != "ok":
            return NOTHING
        return self._evaluate(run, None)

    def evaluate(self, run: Run, key: str, *, at_close: bool) -> list[Observation]:
        """What failed before the last output."""
        own = self.own(run)
        # Counted, because each evaluation goes over all steps of the run.
        own["judged"] = own.get("judged", 0) + 1
        return self._evaluate(run, own["output_us"])

    def _evaluate(self, run: Run, before_us: int | None) -> list[Observation]:
        # Only before the last output: later failures may still be made up for.
        found = failures(run, answers_of(run), before_us)
        ignored = [item for item in found if not item.how and not self.has_fired(run, item.label)]
        reported: dict[str, str] = self.own(run).setdefault("told", {}) if ignored else {}
        reported.update(
            (item.label, item.last.step_id) for item in ignored[: _MAX_REPORTED - len(reported)]
        )
        return [self._observation(run, item) for item in ignored]

    def _observation(self, run: Run, item: Failed) -> Observation:
        times = f" {item.times} times" if item.times > 1 else ""
        if item.answered is not None:
            message = (
                f"{item.label} failed{times}, no later call made up for it, and the agent "
                "answered without mentioning it"
            )
        else:
            message = (
                f"{item.label} failed{times}, no later call made up for it, and the run went "
                "on as if it had succeeded"
            )
        # A tool that was called again was not ignored, only in vain: a warning.
        is_severe = item.answered is not None and item.times == 1
        is_reported = is_reported_by(run, _REPEATED, item.label)
        answer = (item.answered[2],) if item.answered is not None else ()
        return Observation(
            message=message,
            severity="note" if is_reported else self.severity("error" if is_severe else "warning"),
            subject=item.label,
            step_ids=(item.last.step_id, *answer)[:MAX_EVIDENCE],
            quoted=(item.last.error_message or item.last.error_type)[:200],
            detail="it is reported as a repetition" if is_reported else "",
        )


@detector_for(ToolErrorRecovered)
class ToolErrorRecoveredDetector(_WithAnswers[ToolErrorRecovered]):
    """A tool failed and the run made up for it, or spoke of it.

    A note of each such tool, at the close.
    """

    def on_close(self, run: Run, now_us: int) -> Observations:
        """Note them."""
        if not run.errors:
            return NOTHING
        found = failures(run, answers_of(run))
        return [
            self._observation(item)
            for item in found
            if item.how and not self.has_fired(run, item.label)
        ]

    def _observation(self, item: Failed) -> Observation:
        times = f" {item.times} times" if item.times > 1 else ""
        return Observation(
            message=f"{item.label} failed{times}; {item.how}",
            severity=self.severity("note"),
            subject=item.label,
            step_ids=(item.last.step_id, item.by.step_id)
            if item.by is not None
            else (item.last.step_id,),
            quoted=(item.last.error_message or item.last.error_type)[:200],
        )


def _withdrawn(label: str, step_id: str, by: StepInfo, how: str) -> Observation:
    return Observation(
        message=f"withdrawn: {how}",
        severity="info",
        subject=label,
        step_ids=(step_id, by.step_id),
        withdrawn=True,
    )
