"""A tool failed and the agent's next words were an answer, not another try."""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import Field

from stepstream.schemas.rule_base import RuleBase
from stepstream.schemas.rules import detector_for
from stepstream.stream.detectors.aftermath import makes_good
from stepstream.stream.detectors.base import NOTHING, Observation, Observations
from stepstream.stream.detectors.content.base import (
    CALLS,
    SETTLE_US,
    DeferringDetector,
    excerpt,
    is_reported_by,
)
from stepstream.stream.detectors.content.failures import failure_in
from stepstream.stream.detectors.content.speech import (
    ACTED,
    ADMITTED,
    ASKED,
    SPEAKING,
    Answer,
    answers_of,
    note_answer,
)
from stepstream.stream.detectors.reading import STEPS_OF_A_COMPARISON, may_compare
from stepstream.stream.run.contents import Contents
from stepstream.stream.run.rules import Applied
from stepstream.stream.run.run import Run
from stepstream.stream.run.steps import StepInfo


class FailureNotRetried(RuleBase):
    """A tool failed, openly or in its output, and the agent answered instead of retrying.

    It is a note if the answer mentions the failure or asks the user for something, else an error. A
    later call that makes up for the failure withdraws it.
    """

    on_by_default = True
    reads_contents = True
    fires_when = (
        "a failure (hidden; with `open_errors` also open ones) is followed by an answer "
        "instead of a retry"
    )
    usual_severity = "error; note if the answer mentions it or asks the user"

    rule: Literal["failure_not_retried"]
    open_errors: bool = Field(
        False,
        description="also failures that the step's status shows, which tool_error_ignored "
        "evaluates",
    )


_REPEATED: Final = frozenset({"loop", "repetition"})
_MAX_FAILURES: Final = 100
_MAX_REPORTED: Final = 20
"""Findings of a run that may still be withdrawn."""


@detector_for(FailureNotRetried)
class FailureNotRetriedDetector(DeferringDetector[FailureNotRetried]):
    """Evaluated at the end of the model's next step after the failure, or at the run's end.

    Any further call counts as an attempt to make up for it, as does a step with ``retry_of`` or
    ``fallback_of``. An answer that mentions the failure, or asks the user for something, makes it a
    note. A later successful call of the tool, or of one for the same thing, withdraws the finding,
    as does a later answer that mentions it.
    """

    kinds = CALLS | SPEAKING

    def __init__(self, applied: Applied) -> None:
        super().__init__(applied)
        self._open_errors = self.rule.open_errors

    def on_content(self, run: Run, step: StepInfo, contents: Contents, now_us: int) -> Observations:
        """Note failures and answers; hold the failures that an answer may follow.

        Withdraw what a later step contradicts.
        """
        if step.kind in SPEAKING:
            self._note_answer(run, step, contents, now_us)
        elif step.kind in CALLS:
            failed = self._note_failure(run, step, contents, now_us)
            if run.fired and not failed and step.status == "ok":
                return self._withdraw(run, step)
        return NOTHING

    def _note_failure(self, run: Run, step: StepInfo, contents: Contents, now_us: int) -> bool:
        """Note a call that failed; whether it did."""
        if step.status == "error":
            message = step.error_message or step.error_type or "failed"
            if not self._open_errors:
                return True
        elif contents.output:
            failure = failure_in(contents, step.label)
            if failure is None:
                return False
            message = failure.message or failure.sign
        else:
            return False
        failures: dict[str, str] = self.own(run).setdefault("failures", {})
        if len(failures) < _MAX_FAILURES:
            failures[step.step_id] = excerpt(message)
            if any(start_us >= step.end_us for start_us, *_ in answers_of(run)):
                self.defer(run, step.step_id, now_us)
        return True

    def _note_answer(self, run: Run, step: StepInfo, contents: Contents, now_us: int) -> None:
        own = self.own(run)
        if (
            note_answer(run, step, contents, whole=bool(own.get("failures")) or run.errors > 0)
            is None
        ):
            return
        for step_id in own.get("failures", ()):
            failed = run.steps.get(step_id)
            if failed is not None and step.start_us >= failed.end_us:
                self.defer(run, step_id, now_us)

    def at_close(self, run: Run) -> list[str]:
        """Failures that nothing followed."""
        return list(self.own(run).get("failures", ()))

    def evaluate(self, run: Run, key: str, *, at_close: bool) -> list[Observation]:
        """Whether the first answer after the failure was one, and no call came between."""
        failures: dict[str, str] = self.own(run).get("failures", {})
        failed = run.steps.get(key)
        if key not in failures or failed is None:
            return []
        following = sorted(answer for answer in answers_of(run) if answer[0] >= failed.end_us)
        first = min(following, key=lambda answer: (answer[1], answer[2]), default=None)
        if first is None or first[3] in ACTED:
            until_us = 2**63 if first is None else first[1]
            if first is None and not at_close:
                return []
            return (
                self._settle(run, failed, None, until_us)
                if first is None
                else self._forget(run, key)
            )
        later = [answer[0] for answer in following if answer[0] >= first[1]]
        plain = any(answer[3] in ACTED and answer[1] <= first[1] for answer in answers_of(run))
        if plain:
            return self._settle(run, failed, first, first[1])
        if not later and not at_close:
            return []  # its words alone do not decide it: wait for the next step
        return self._settle(run, failed, first, min(later, default=2**63))

    def _settle(
        self, run: Run, failed: StepInfo, answer: Answer | None, until_us: int
    ) -> list[Observation]:
        message = self._forget_message(run, failed.step_id)
        own = self.own(run)
        failures = own["failures"]
        if not may_compare(own, len(run.steps) // STEPS_OF_A_COMPARISON):
            return []
        settled_us = answer[1] + SETTLE_US if answer is not None else 2**63
        for step in run.steps.values():
            if failed.step_id in (step.retry_of, step.fallback_of):
                return []
            if step.kind not in CALLS or step.start_us < failed.end_us or step is failed:
                continue
            if step.start_us < until_us:
                return []
            if (
                step.end_us <= settled_us
                and _is_good(step, failures)
                and makes_good(failed, failed.label, step, step.label)
            ):
                return []
        reported: list[list[str]] = own.setdefault("told", [])
        if len(reported) < _MAX_REPORTED and answer is not None:
            reported.append([failed.step_id, answer[2]])
        return [self._observation(run, failed, message, answer)]

    def _forget(self, run: Run, key: str) -> list[Observation]:
        self._forget_message(run, key)
        return []

    def _forget_message(self, run: Run, key: str) -> str:
        failures: dict[str, str] = self.own(run)["failures"]
        return failures.pop(key)

    def _withdraw(self, run: Run, step: StepInfo) -> list[Observation]:
        """The findings about failures that a successful call makes good for after all."""
        state = run.detector_state.get(self.name)
        reported: list[list[str]] = state.get("told", []) if state else []
        out = []
        for pair in list(reported):
            failed = run.steps.get(pair[0])
            if failed is None or step.start_us < failed.end_us:
                continue
            how = makes_good(failed, failed.label, step, step.label)
            if how:
                reported.remove(pair)
                out.append(
                    Observation(
                        message=f"withdrawn: {how} later",
                        severity="info",
                        subject=failed.label,
                        level=failed.step_id,
                        step_ids=(failed.step_id, step.step_id),
                        withdrawn=True,
                    )
                )
        return out

    def _observation(
        self, run: Run, failed: StepInfo, message: str, answer: list[Any] | None
    ) -> Observation:
        was = answer[3] if answer is not None else None
        spoken = was in (ADMITTED, ASKED)
        if answer is None:
            end = "and nothing came after it"
        elif was == ADMITTED:
            end = "and the agent's next output was an answer that mentions a problem"
        elif was == ASKED:
            end = "and the agent's next words asked for something"
        else:
            end = "and the agent answered as if it had not"
        is_reported = is_reported_by(run, _REPEATED, failed.label)
        ended_badly = answer is None and run.root is not None and run.root.status != "ok"
        return Observation(
            message=f"{failed.label} failed, {end}",
            severity=self.severity("note" if spoken or ended_badly or is_reported else "error"),
            subject=failed.label,
            level=failed.step_id,
            step_ids=(failed.step_id, answer[2]) if answer else (failed.step_id,),
            quoted=message,
        )


def _is_good(step: StepInfo, failures: dict[str, str]) -> bool:
    return step.ended and step.status == "ok" and step.step_id not in failures
