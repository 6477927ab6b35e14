"""The same thing again: nearly the same arguments, the same failure each time, two calls in turns, the same thoughts."""

from __future__ import annotations

from typing import Any, Final

from stepstream.schemas.rules_content import Repetition
from stepstream.stream.contents import Contents, words, words_in_order
from stepstream.stream.detectors.base import MAX_EVIDENCE, NOTHING, Observation, Observations
from stepstream.stream.detectors.content.base import CALLS, HoldingDetector
from stepstream.stream.detectors.content.failures import failure_in
from stepstream.stream.detectors.content.not_retried import calls_tools
from stepstream.stream.detectors.content.sameness import BITS, error_form, is_in_words, similarity, sketch, values_text
from stepstream.stream.rules import Applied
from stepstream.stream.run import Run
from stepstream.stream.steps import StepInfo

_MAX_TEXT: Final = 400
"""Characters of an input by which it is compared; a thought is compared by three times as many."""
_MAX_PER_TOOL: Final = 32
_MAX_CALLS: Final = 256
_THOUGHTS: Final = "what the model writes to act"
_MIN_THOUGHT_WORDS: Final = 20
_THOUGHT_SIMILARITY: Final = 0.5
"""Thoughts are longer than arguments and share the words of their task, so that they are alike at less."""

# What is kept of a call, in this order.
_STEP, _BITS, _INPUT, _OUTPUT, _ERROR, _IN_WORDS = range(6)
_Call = list[Any]


class RepetitionDetector(HoldingDetector):
    """Calls are the same thing when their inputs are nearly the same and they bring nothing new, or fail in the same way.

    Nothing new: the same output, or none (a failure), or the question was put in words, where asking again in other words
    is what makes no progress. Calls that differ in values (another id, another date) are different; the same call whose
    answer changes is polling. Counted over all pairs, so in any order; alternation is judged later by the steps' times.
    """

    kinds = CALLS | {"llm_call"}

    def __init__(self, applied: Applied, rule: Repetition) -> None:
        super().__init__(applied)
        self._repeats = rule.repeats
        self._similarity = rule.similarity
        self._exact = rule.exact

    def read(self, run: Run, step: StepInfo, contents: Contents, now_us: int) -> Observations:
        """Compare an ended call with those of the same tool."""
        is_call = step.kind in CALLS
        if not self.reads_kind(step.kind):
            return NOTHING
        label = step.label if is_call else _THOUGHTS
        if self.has_fired(run, label):
            return NOTHING
        call = self._call(step, contents) if is_call else _thought(step, contents)
        if call is None:
            return NOTHING
        own = self.own(run)
        calls: dict[str, list[_Call]] = own.setdefault("calls", {})
        before = calls.get(label)
        if before is None:
            before = calls[label] = []
        count = own.get("count", 0)
        if len(before) >= _MAX_PER_TOOL or count >= _MAX_CALLS:
            return NOTHING
        own["count"] = count + 1
        before.append(call)
        if is_call and len(calls) > 1 and sum(_is_equal(call, other) for other in before) >= self._repeats:
            self.hold(run, "turns", now_us)
        return self._compare(label, before, call, is_call=is_call)

    def _call(self, step: StepInfo, contents: Contents) -> _Call | None:
        if not step.input_hash:
            return None
        arguments = contents.arguments
        text = contents.input if arguments is None else values_text(arguments)
        found = words_in_order(text[:_MAX_TEXT])
        return [
            step.step_id,
            sketch(found).to_bytes(BITS // 8, "little"),
            step.input_hash,
            step.output_hash,
            _error_of(step, contents),
            int(is_in_words(found)),
        ]

    def _compare(self, label: str, calls: list[_Call], new: _Call, *, is_call: bool) -> Observations:
        repeats = self._repeats if is_call else max(3, self._repeats)
        if len(calls) < repeats:
            return NOTHING
        least = self._similarity if is_call else _THOUGHT_SIMILARITY
        near = _same_as(new, calls, least)
        if len(near) == 1:
            return NOTHING
        most = max((_same_as(call, calls, least) for call in near), key=len)
        if len(most) < repeats or (not self._exact and is_call and _all_equal(most)):
            return NOTHING
        return (self._say(label, most, repeats, is_call=is_call),)

    def judge(self, run: Run, key: str, *, at_close: bool) -> list[Observation]:
        """Whether two calls took turns: A B A B A B, each the same every time."""
        kept = {call[_STEP]: (call[_INPUT], call[_OUTPUT]) for calls in self.own(run)["calls"].values() for call in calls}
        steps = sorted((run.steps[i] for i in kept if i in run.steps), key=lambda s: (s.start_us, s.step_id))
        steps = [step for step in steps if step.kind in CALLS]
        whole = 2 * self._repeats
        for end in range(whole, len(steps) + 1):
            turn = steps[end - whole : end]
            if turn[0].label == turn[1].label:
                continue
            if all(
                kept[turn[i].step_id] == kept[turn[i % 2].step_id] and turn[i].label == turn[i % 2].label for i in range(whole)
            ):
                return [self._say_turns(turn)]
        return []

    def _say(self, label: str, calls: list[_Call], repeats: int, *, is_call: bool) -> Observation:
        if not is_call:
            message = f"the model has written nearly the same action {len(calls)} times"
        elif all(call[_ERROR] and call[_ERROR] == calls[0][_ERROR] for call in calls):
            message = f"{label} failed {len(calls)} times in the same way"
        else:
            message = f"{label} was called {len(calls)} times with nearly the same input and brought nothing new"
        return Observation(
            message=message,
            detail="the run repeats itself instead of getting on: what comes back does not change what is asked next",
            severity=self.severity("warning"),
            subject=label,
            step_ids=tuple(call[_STEP] for call in calls[:MAX_EVIDENCE]),
            value=float(len(calls)),
            threshold=float(repeats),
            unit="count",
        )

    def _say_turns(self, turn: list[StepInfo]) -> Observation:
        one, other = turn[0].label, turn[1].label
        return Observation(
            message=f"{one} and {other} were called in turns {self._repeats} times, each with the same input and answer",
            severity=self.severity("warning"),
            subject=" and ".join(sorted((one, other))),
            step_ids=tuple(step.step_id for step in turn[:MAX_EVIDENCE]),
            value=float(self._repeats),
            threshold=float(self._repeats),
            unit="count",
        )


def _thought(step: StepInfo, contents: Contents) -> _Call | None:
    """What a model wrote to act, in code or in words with calls among them; None for an answer and for bare calls."""
    output = contents.output
    if not calls_tools(contents) or output[:1] == "[":
        return None
    taken = contents.taken
    said = taken.get("content") if isinstance(taken, dict) else None
    text = said if isinstance(said, str) else "" if isinstance(taken, dict) else output
    found = words(text[: 3 * _MAX_TEXT])
    if len(found) < _MIN_THOUGHT_WORDS:
        return None
    return [step.step_id, sketch(found).to_bytes(BITS // 8, "little"), step.input_hash, step.output_hash, 0, 1]


def _error_of(step: StepInfo, contents: Contents) -> int:
    if step.status == "error":
        return error_form(step.error_message or step.error_type or "failed")
    failure = failure_in(contents, step.label) if contents.output else None
    return 0 if failure is None else error_form(failure.message or failure.sign)


def _same_as(one: _Call, calls: list[_Call], least: float) -> list[_Call]:
    """The calls that are the same thing as one of them, itself included; sketches are compared where nothing else tells."""
    given, output, error, in_words = one[_INPUT], one[_OUTPUT], one[_ERROR], one[_IN_WORDS]
    bits = int.from_bytes(one[_BITS], "little")
    found = []
    for other in calls:
        brings_nothing = output == other[_OUTPUT] or (error and other[_ERROR])
        if other is one or (error and error == other[_ERROR]):
            found.append(other)
        elif given == other[_INPUT]:
            if brings_nothing:
                found.append(other)
        elif (brings_nothing or (in_words and other[_IN_WORDS])) and (
            similarity(bits, int.from_bytes(other[_BITS], "little")) >= least
        ):
            found.append(other)
    return found


def _is_equal(one: _Call, other: _Call) -> bool:
    return bool(one[_INPUT] == other[_INPUT] and one[_OUTPUT] == other[_OUTPUT])


def _all_equal(calls: list[_Call]) -> bool:
    return all(_is_equal(call, calls[0]) for call in calls)
