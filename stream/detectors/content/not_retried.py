"""A tool failed and the agent's next words were an answer, not another try."""

from __future__ import annotations

from typing import Any, Final

from stepstream.schemas.rules_content import FailureNotRetried
from stepstream.stream.contents import Contents, ends_of
from stepstream.stream.detectors.base import NOTHING, Observation, Observations
from stepstream.stream.detectors.content.base import CALLS, HoldingDetector, excerpt
from stepstream.stream.detectors.content.failures import failure_in
from stepstream.stream.rules import Applied
from stepstream.stream.run import Run
from stepstream.stream.steps import StepInfo

_SPEAKING: Final = frozenset({"llm_call", "output"})
_MAX_FAILURES: Final = 100
_MAX_ANSWERS: Final = 50
CALLED, SAID, ADMITTED = 0, 1, 2
"""What a model's step was: it asked for tools; an answer; an answer that speaks of trouble."""

_CALL_KEYS: Final = ('"tool_calls"', '"function"', '"tool_use"', '"arguments"', '"function_call"', '"functionCall"')
_CALL_WORDS: Final = ("tool", "function", "arguments", "action")
_BEGINNING: Final = 400
"""Characters in which an answer that speaks of a trouble does so."""
_TROUBLE: Final = frozenset({
    "unfortunately", "sorry", "apologies", "apologize", "apologise", "regret", "not", "cannot", "unable", "issue",
    "issues", "problem", "problems", "error", "errors", "fail", "failed", "fails", "failure", "invalid", "insufficient",
    "unavailable", "however", "instead", "longer", "trouble", "declined", "rejected", "denied", "seems", "problem:",
    "error:",
})  # fmt: skip


_LOWERED: Final = bytes(32 if code in b",.\x1c\x1d\x1e\x1f" else bytes([code]).lower()[0] for code in range(256))
"""ASCII in lower case, with blanks for what parts words in a text but not in bytes, and for commas and full stops."""
_TROUBLE_BYTES: Final = frozenset(word.encode() for word in _TROUBLE)


class FailureNotRetriedDetector(HoldingDetector):
    """Judged at the end of the model's step that follows the failure, and at the run's end where none follows.

    Any further call counts as an attempt to make good for it; so does a step that says it retries or replaces the failed one.
    """

    kinds = CALLS | _SPEAKING

    def __init__(self, applied: Applied, rule: FailureNotRetried) -> None:
        super().__init__(applied)
        self._open_errors = rule.open_errors

    def read(self, run: Run, step: StepInfo, contents: Contents, now_us: int) -> Observations:
        """Note failures and answers; hold the failures that an answer may follow."""
        if step.kind in CALLS:
            self._note_failure(run, step, contents, now_us)
        elif step.kind in _SPEAKING:
            self._note_answer(run, step, contents, now_us)
        return NOTHING

    def _note_failure(self, run: Run, step: StepInfo, contents: Contents, now_us: int) -> None:
        if step.status == "error":
            message = step.error_message or step.error_type or "failed"
            if not self._open_errors:
                return
        elif contents.output:
            failure = failure_in(contents, step.label)
            if failure is None:
                return
            message = failure.message or failure.sign
        else:
            return
        failures: dict[str, str] = self.own(run).setdefault("failures", {})
        if len(failures) >= _MAX_FAILURES:
            return
        failures[step.step_id] = excerpt(message)
        if any(start_us >= step.end_us for start_us, *_ in self._answers(run)):
            self.hold(run, step.step_id, now_us)

    def _note_answer(self, run: Run, step: StepInfo, contents: Contents, now_us: int) -> None:
        own = self.own(run)
        answers = self._answers(run)
        if len(answers) >= _MAX_ANSWERS:
            if step.start_us < answers[0][0]:
                return
            answers.sort()
            del answers[0]
        answers.append([step.start_us, step.end_us, step.step_id, _what_it_was(contents)])
        for step_id in own.get("failures", ()):
            failed = run.steps.get(step_id)
            if failed is not None and step.start_us >= failed.end_us:
                self.hold(run, step_id, now_us)

    def _answers(self, run: Run) -> list[list[Any]]:
        answers: list[list[Any]] = self.own(run).setdefault("answers", [])
        return answers

    def at_close(self, run: Run) -> list[str]:
        """Failures that nothing followed."""
        return list(self.own(run).get("failures", ()))

    def judge(self, run: Run, key: str, *, at_close: bool) -> list[Observation]:
        """Whether the first answer after the failure was one, and no call came between."""
        failures: dict[str, str] = self.own(run).get("failures", {})
        failed = run.steps.get(key)
        if key not in failures or failed is None:
            return []
        following = sorted(answer for answer in self._answers(run) if answer[0] >= failed.end_us)
        first = min(following, key=lambda answer: (answer[1], answer[2]), default=None)
        if first is None or first[3] == CALLED:
            until_us = 2**63 if first is None else first[1]
            if first is None and not at_close:
                return []
            return self._settle(run, failed, None, until_us) if first is None else self._forget(run, key)
        later = [answer[0] for answer in following if answer[0] >= first[1]]
        plain = any(answer[3] == CALLED and answer[1] <= first[1] for answer in self._answers(run))
        if plain:
            return self._settle(run, failed, first, first[1])
        if not later and not at_close:
            return []  # its words alone do not tell: wait for what comes next
        return self._settle(run, failed, first, min(later, default=2**63))

    def _settle(self, run: Run, failed: StepInfo, answer: list[Any] | None, until_us: int) -> list[Observation]:
        message = self._forget_message(run, failed.step_id)
        for step in run.steps.values():
            if failed.step_id in (step.retry_of, step.fallback_of):
                return []
            if step.kind in CALLS and failed.end_us <= step.start_us < until_us and step is not failed:
                return []
        return [self._say(failed, message, answer)]

    def _forget(self, run: Run, key: str) -> list[Observation]:
        self._forget_message(run, key)
        return []

    def _forget_message(self, run: Run, key: str) -> str:
        failures: dict[str, str] = self.own(run)["failures"]
        return failures.pop(key)

    def _say(self, failed: StepInfo, message: str, answer: list[Any] | None) -> Observation:
        told = answer is not None and answer[3] == ADMITTED
        if answer is None:
            end = "and nothing came after it"
        else:
            end = "the agent spoke of it and did not try again" if told else "the agent answered as if it had not"
        return Observation(
            message=f"{failed.label} failed ({excerpt(message, 80)}), {end}",
            severity=self.severity("info" if told else "error"),
            subject=failed.label,
            level=failed.step_id,
            step_ids=(failed.step_id, answer[2]) if answer else (failed.step_id,),
            detail=message,
        )


def _what_it_was(contents: Contents) -> int:
    """What a model's step was, by its output."""
    output = contents.output
    if not output or calls_tools(contents):
        return CALLED
    return ADMITTED if _speaks_of_trouble(output[:_BEGINNING]) else SAID


def _speaks_of_trouble(beginning: str) -> bool:
    if beginning.isascii():
        data = beginning.encode().translate(_LOWERED)
        return b"n't" in data or not _TROUBLE_BYTES.isdisjoint(data.split())
    lowered = beginning.lower().replace("\u2019", "'")
    return "n't" in lowered or not _TROUBLE.isdisjoint(lowered.replace(",", " ").replace(".", " ").split())


def calls_tools(contents: Contents) -> bool:
    """Whether a model's output asks for tools: as messages of the usual interfaces, or as code."""
    noted = contents.noted
    if "calls" not in noted:
        noted["calls"] = _calls_tools(contents)
    return bool(noted["calls"])


def _calls_tools(contents: Contents) -> bool:
    output = contents.output
    first = output[:1]
    if first not in ("{", "["):
        return _in_code(output)
    ends = ends_of(output)
    if not any(key in ends for key in _CALL_WORDS):
        return _in_code(output)
    if first == "[" or contents.output_is_cut:
        return any(key in output[:_BEGINNING] for key in _CALL_KEYS) or _in_code(output)
    found = contents.taken
    if not isinstance(found, dict):
        return _in_code(output)
    for key in ("tool_calls", "function_call", "functionCall", "tool_use", "function", "arguments", "tool", "action"):
        if found.get(key):
            return True
    said = found.get("content")
    if isinstance(said, list):
        return any(isinstance(part, dict) and "tool" in str(part.get("type", "")) for part in said)
    return _in_code(said) if isinstance(said, str) else False


def _in_code(text: str) -> bool:
    if "`" in text and "```" in text:
        return True
    return ("<" in text and ("<tool_call" in text or "<function" in text)) or ("A" in text and "Action:" in text)
