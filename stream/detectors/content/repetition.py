"""The same thing again.

Nearly the same arguments, the same failure each time, two calls in turns, the same thoughts.
"""

from __future__ import annotations

import re
from bisect import bisect
from typing import Annotated, Any, Final, Literal
from zlib import crc32

from pydantic import Field

from stepstream.schemas.rule_base import RuleBase
from stepstream.schemas.rules import detector_for
from stepstream.stream.detectors.aftermath import is_writing, label_of
from stepstream.stream.detectors.base import MAX_EVIDENCE, NOTHING, Observation, Observations
from stepstream.stream.detectors.content.base import CALLS, DeferringDetector, is_reported_by
from stepstream.stream.detectors.content.failures import failure_in
from stepstream.stream.detectors.content.given import changes_something, command_of, is_command
from stepstream.stream.detectors.content.sameness import (
    BITS,
    digits_of,
    error_form,
    is_in_words,
    names_of_things,
    operands_of,
    short_values,
    similarity,
    sketch,
    values_text,
)
from stepstream.stream.detectors.content.speech import calls_tools
from stepstream.stream.detectors.reading import may_compare
from stepstream.stream.run.contents import Contents, words, words_in_order
from stepstream.stream.run.rules import Applied
from stepstream.stream.run.run import Run
from stepstream.stream.run.steps import StepInfo

Share = Annotated[float, Field(gt=0, le=1)]


class Repetition(RuleBase):
    """A tool is called again and again with nearly the same arguments, or with the same failure."""

    on_by_default = True
    reads_contents = True
    fires_when = (
        "almost the same call again, the same failure each time, two calls in turns, the "
        "same written action, or many repeats over all tools"
    )
    usual_severity = "warning"

    rule: Literal["repetition"]
    repeats: Annotated[int, Field(ge=2, le=50)] = 3
    similarity: Share = Field(
        0.6, description="share of words that two arguments have in common (Jaccard)"
    )
    exact: bool = Field(
        False,
        description="also calls that are the same to the letter, which the rule loop evaluates",
    )


_MAX_TEXT: Final = 400
"""Characters of an input by which it is compared."""
_MAX_OUTPUT: Final = 500
"""Characters of an output by which it is compared."""
_MAX_WRITTEN: Final = 1_200
"""Characters of what a model wrote by which it is compared."""
_LENGTH: Final = 0xFFFF_FFFF
"""The part of a content's hash that is its length."""
_LONG_ANSWER: Final = 200
"""Bytes from which one answer to two different questions is no chance."""
_WRITES: Final = 2
"""Added to what is kept of whether a call was put in words."""
_MAX_PER_TOOL: Final = 32
_MAX_CALLS: Final = 256
_THOUGHTS: Final = "what the model writes to act"
_MIN_THOUGHT_WORDS: Final = 20
_THOUGHT_SIMILARITY: Final = 0.85
"""What one agent writes is the same action from here on: agents of one task share half of their
words and more."""
_REQUEST_SIMILARITY: Final = 0.35
"""Requests in words, in the code that a model writes, are for the same thing from here on: each is
worded anew."""
_MIN_REQUEST_WORDS: Final = 12
_SENTENCE_SPACES: Final = 4
_QUOTED: Final = re.compile(r"\"([^\"\n]{20,600})\"|'([^'\n]{20,600})'")
_OUTPUT_SIMILARITY: Final = 0.5
"""Two answers are the same from this similarity on."""
_WAITING: Final = re.compile(r"(?:^|[_\W])(?:wait|sleep|pause|delay|poll)", re.IGNORECASE)
"""In turns with one of these a call is polling."""
_IN_ALL: Final = "in all"
_CODE: Final = "code"
_FAILED: Final = "failed"
_LOOP: Final = frozenset({"loop"})
_REPORTED_BY: Final = frozenset({"loop", "repetition"})
_DETAIL: Final = (
    "the run repeats itself instead of getting on: what comes back does not change "
    "what is asked next"
)

_FEW_CALLS: Final = 2
"""Calls of a tool of which texts are kept; from the next one on all are kept as sketches."""

# What is kept of a call, in this order. Of one whose words are not read yet: its text as _BITS, the
# beginning of its output as _STATED, and what is not of its words in _IN_WORDS and _NAMES.
_STEP, _BITS, _INPUT, _OUTPUT, _ERROR, _IN_WORDS, _NAMES, _STATED = range(8)
_Call = list[Any]


@detector_for(Repetition)
class RepetitionDetector(DeferringDetector[Repetition]):
    """Calls with nearly the same inputs that return nothing new, or fail in the same way.

    Nothing new is the same output, none (a failure), or, if the input is in words, an output that
    shares most of its words. Calls that differ in an id, a number or a date are different calls.
    The same call whose answer changes is polling. A retry (``retry_of``, ``attempt``) is not
    counted as a call. Reported is a tool that was called in this way ``repeats`` times, or a run in
    which as many calls of any tools were repeats. All pairs are compared, so the order does not
    matter; alternation is evaluated later by the steps' times. What an agent writes is compared
    only with what it wrote itself.
    """

    kinds = CALLS | {"llm_call", "other"}

    def __init__(self, applied: Applied) -> None:
        super().__init__(applied)
        self._repeats = self.rule.repeats
        self._similarity = self.rule.similarity
        self._exact = self.rule.exact

    def on_content(self, run: Run, step: StepInfo, contents: Contents, now_us: int) -> Observations:
        """Compare an ended call with those of the same tool."""
        is_call = step.kind in CALLS
        if step.kind == "other":
            if step.status == "error":
                self._note_code(run, step, now_us)
            return NOTHING
        if step.retry_of or step.attempt > 1 or not self.wants_content(step.kind):
            return NOTHING
        label = step.label if is_call else _THOUGHTS
        if run.fired and self.has_fired(run, label):
            return self._ended(run, step, label) if step.status == "ok" else NOTHING
        call = self._call(step, contents) if is_call else _thought(step, contents)
        if call is None:
            return NOTHING
        own = self.own(run)
        calls: dict[str, list[_Call]] = own.setdefault("calls", {})
        # Parallel agents of one task write nearly the same: each is compared with itself alone.
        bucket = label if is_call else f"{_THOUGHTS}|{step.agent}|{step.name}"
        before = calls.get(bucket)
        if before is None:
            before = calls[bucket] = []
        count = own.get("count", 0)
        # All pairs of a tool are compared: 32 calls are 496 comparisons.
        if len(before) >= _MAX_PER_TOOL or count >= _MAX_CALLS:
            return NOTHING
        own["count"] = count + 1
        before.append(call)
        # Most tools are called once or twice in a run, with nothing to compare: their words are
        # read when a comparison needs them. Texts take more memory than sketches, so few are kept.
        if is_call and (len(before) > _FEW_CALLS or count >= _MAX_PER_TOOL):
            for one in before[: _FEW_CALLS + 1] if len(before) == _FEW_CALLS + 1 else (call,):
                _read_words(one)
        if len(before) == 1:
            return NOTHING
        if (
            is_call
            and len(calls) > 1
            and sum(_is_equal(call, other) for other in before) >= self._repeats
        ):
            self.defer(run, "turns", now_us)
        return self._compare(run, label, before, call, now_us, is_call=is_call)

    def _note_code(self, run: Run, step: StepInfo, now_us: int) -> None:
        """Code that ran and failed.

        Evaluated once it is known whether it failed itself, or a step below it.
        """
        failed: list[list[Any]] = self.own(run).setdefault("code", [])
        if len(failed) < _MAX_PER_TOOL:
            failed.append(
                [step.step_id, error_form(step.error_message or step.error_type or "failed")]
            )
            if len(failed) >= self._repeats:
                self.defer(run, _CODE, now_us)

    def _failed_code(self, run: Run) -> list[list[Any]]:
        """The code that failed by itself."""
        failed: list[list[Any]] = self.own(run).get("code", [])
        if not failed:
            return []
        # Code that fails because a tool in it did is counted with the tool.
        above = {step.parent for step in run.steps.values() if step.status == "error"}
        return [item for item in failed if item[0] not in above]

    def _same_code(self, run: Run) -> list[Observation]:
        """Whether code failed in the same way, again and again."""
        by_form: dict[int, list[str]] = {}
        for step_id, form in self._failed_code(run):
            by_form.setdefault(form, []).append(step_id)
        most = max(by_form.values(), key=len, default=[])
        if len(most) < self._repeats:
            return []
        label = label_of(run.steps[most[0]])
        return [
            self._observed(
                f"{label} failed {len(most)} times in the same way", label, most, self._repeats
            )
        ]

    def _ended(self, run: Run, step: StepInfo, label: str) -> Observations:
        """A tool that failed each time works again."""
        failing: list[str] = self.own(run).get("failing", [])
        if label not in failing:
            return NOTHING
        failing.remove(label)
        message = f"{label} succeeded in the end"
        return (
            Observation(message, "info", subject=label, step_ids=(step.step_id,), resolved=True),
        )

    def _call(self, step: StepInfo, contents: Contents) -> _Call | None:
        if not step.input_hash:
            return None
        arguments = contents.arguments
        text = (contents.input if arguments is None else values_text(arguments))[:_MAX_TEXT]
        about = (
            operands_of(command_of(contents)) if is_command(contents) else short_values(arguments)
        )
        return [
            step.step_id,
            text,
            step.input_hash,
            step.output_hash or _hash_of_documents(contents),
            _error_of(step, contents),
            _WRITES * (is_writing(step.label) or changes_something(contents)),
            about,
            contents.output[:_MAX_OUTPUT],
        ]

    def _compare(
        self,
        run: Run,
        label: str,
        calls: list[_Call],
        new: _Call,
        now_us: int,
        *,
        is_call: bool,
    ) -> Observations:
        # A model that writes nearly the same twice may have been asked twice.
        repeats = self._repeats if is_call else max(3, self._repeats)
        own = self.own(run)
        if not may_compare(own, len(calls)):
            return NOTHING
        near = self._same_as(new, calls) if is_call else _written_as(new, calls)
        if len(near) == 1:
            return NOTHING
        self._note_again(run, new)
        if len(calls) >= repeats and may_compare(own, len(near) * len(calls)):
            same = self._same_as if is_call else _written_as
            most = max((same(call, calls) for call in near), key=len)
            if len(most) >= repeats and is_call and all(call[_ERROR] for call in most):
                # Whether something was changed in between is known when earlier records, which
                # may arrive later, are there.
                self.defer(run, f"{_FAILED}|{label}", now_us)
            elif len(most) >= repeats and (self._exact or not is_call or not _is_loop(most)):
                return self._observation(run, label, most, repeats, is_call=is_call)
        return NOTHING

    def _note_again(self, run: Run, new: _Call) -> None:
        again: list[str] = self.own(run).setdefault("again", [])
        again.append(new[_STEP])

    def at_close(self, run: Run) -> list[str]:
        """Whether the run as a whole repeated itself, where no tool was reported for it."""
        own = self.own(run)
        return (
            [_IN_ALL]
            if len(own.get("again", ())) + len(own.get("code", ())) > self._repeats - 1
            else []
        )

    def _in_all(self, run: Run) -> list[Observation]:
        """The calls that repeated an earlier one, over all tools."""
        again = [*self._without_reason(run), *(item[0] for item in self._failed_code(run)[1:])]
        if len(again) < self._repeats or is_reported_by(run, _REPORTED_BY):
            return []
        message = f"{len(again)} steps of the run repeated earlier ones and brought nothing new"
        return [self._observed(message, "", again, self._repeats)]

    def _without_reason(self, run: Run) -> list[str]:
        """The repeats between which nothing was changed, and whose answers did not change.

        Not housekeeping and no polling.
        """
        own = self.own(run)
        again: list[str] = own.get("again", [])
        calls: dict[str, list[_Call]] = own.get("calls", {})
        repeated = set(again)
        known = {
            call[_STEP]: (call, of_tool)
            for of_tool in calls.values()
            for call in of_tool
            if call[_STEP] in run.steps
        }
        work_us = sorted(
            run.steps[step_id].start_us
            for step_id, (call, _) in known.items()
            if step_id not in repeated and call[_IN_WORDS] >= _WRITES and not call[_ERROR]
        )
        return [
            step_id
            for step_id in again
            if step_id not in known or not _has_reason(run, *known[step_id], work_us)
        ]

    def _same_as(self, one: _Call, calls: list[_Call]) -> list[_Call]:
        """The calls that are the same thing as one of them, itself included.

        Sketches are compared if nothing else decides.
        """
        given, output, error = one[_INPUT], one[_OUTPUT], one[_ERROR]
        found = []
        for other in calls:
            brings_nothing = output == other[_OUTPUT] or (error and other[_ERROR])
            if (
                other is one
                or (error and error == other[_ERROR])
                or (given == other[_INPUT] and output == other[_OUTPUT])
            ):
                found.append(other)
            elif one[_IN_WORDS] >= _WRITES or given == other[_INPUT]:
                continue  # what writes something else does other work
            elif (brings_nothing or _is_worded(one)) and self._reads_alike(
                one, other, brings_nothing=bool(brings_nothing)
            ):
                found.append(other)
        return found

    def _reads_alike(self, one: _Call, other: _Call, *, brings_nothing: bool) -> bool:
        """Whether two calls with different inputs are for the same thing by their words."""
        _read_words(one)
        _read_words(other)
        output = one[_OUTPUT]
        if one[_NAMES] != other[_NAMES] and not (
            output == other[_OUTPUT] and output & _LENGTH >= _LONG_ANSWER
        ):
            return False  # it is about something else, unless the same long answer comes back
        return (
            brings_nothing
            or (
                other[_IN_WORDS]
                and similarity(_number(one[_STATED]), _number(other[_STATED])) >= _OUTPUT_SIMILARITY
            )
        ) and similarity(_number(one[_BITS]), _number(other[_BITS])) >= self._similarity

    def evaluate(self, run: Run, key: str, *, at_close: bool) -> list[Observation]:
        """The observations of a deferred decision."""
        if key == _CODE:
            return self._same_code(run)
        kind, _, label = key.partition("|")
        if kind == _FAILED:
            return self._same_failure(run, label)
        return self._in_all(run) if key == _IN_ALL else self._in_turns(run)

    def _same_failure(self, run: Run, label: str) -> list[Observation]:
        """Whether a tool failed in the same way again and again, nothing having been changed."""
        if self.has_fired(run, label):
            return []
        calls = self.own(run)["calls"].get(label, [])
        failed = [call for call in calls if call[_ERROR] and call[_STEP] in run.steps]
        if not may_compare(self.own(run), len(failed) ** 2):
            return []
        work_us = self._changes(run)
        most: list[_Call] = []
        for call in failed:
            same = [
                other
                for other in self._same_as(call, failed)
                if not _follows_a_change(run, other, failed, work_us)
            ]
            most = max(most, same, key=len)
        if len(most) < self._repeats:
            return []
        return list(self._observation(run, label, most, self._repeats, is_call=True))

    def _changes(self, run: Run) -> list[int]:
        """When the run changed something without a failure, in order."""
        return sorted(
            run.steps[call[_STEP]].start_us
            for of_tool in self.own(run)["calls"].values()
            for call in of_tool
            if call[_IN_WORDS] >= _WRITES and not call[_ERROR] and call[_STEP] in run.steps
        )

    def _in_turns(self, run: Run) -> list[Observation]:
        """Whether two calls took turns: A B A B A B, each the same every time."""
        kept = {
            call[_STEP]: (call[_INPUT], call[_OUTPUT])
            for calls in self.own(run)["calls"].values()
            for call in calls
        }
        steps = sorted(
            (run.steps[i] for i in kept if i in run.steps), key=lambda s: (s.start_us, s.step_id)
        )
        steps = [step for step in steps if step.kind in CALLS]
        whole = 2 * self._repeats
        for end in range(whole, len(steps) + 1):
            turn = steps[end - whole : end]
            if turn[0].label == turn[1].label or _WAITING.search(
                f"{turn[0].label} {turn[1].label}"
            ):
                continue
            if all(
                kept[turn[i].step_id] == kept[turn[i % 2].step_id]
                and turn[i].label == turn[i % 2].label
                for i in range(whole)
            ):
                return [] if is_reported_by(run, _REPORTED_BY) else [self._turns_observation(turn)]
        return []

    def _observation(
        self, run: Run, label: str, calls: list[_Call], repeats: int, *, is_call: bool
    ) -> Observations:
        if is_call and is_reported_by(run, _LOOP, label):
            return NOTHING
        if not is_call:
            message = f"the model has written nearly the same action {len(calls)} times"
        elif all(call[_ERROR] and call[_ERROR] == calls[0][_ERROR] for call in calls):
            message = f"{label} failed {len(calls)} times in the same way"
            self.own(run).setdefault("failing", []).append(label)
        else:
            message = (
                f"{label} was called {len(calls)} times with nearly the same input and "
                "brought nothing new"
            )
        return (self._observed(message, label, [call[_STEP] for call in calls], repeats),)

    def _observed(
        self, message: str, subject: str, step_ids: list[str], repeats: int
    ) -> Observation:
        return Observation(
            message=message,
            detail=_DETAIL,
            severity=self.severity("warning"),
            subject=subject,
            step_ids=tuple(step_ids[:MAX_EVIDENCE]),
            value=float(len(step_ids)),
            threshold=float(repeats),
            unit="count",
        )

    def _turns_observation(self, turn: list[StepInfo]) -> Observation:
        one, other = turn[0].label, turn[1].label
        return Observation(
            message=f"{one} and {other} were called in turns {self._repeats} times, each with the "
            "same input and answer",
            severity=self.severity("warning"),
            subject=" and ".join(sorted((one, other))),
            step_ids=tuple(step.step_id for step in turn[:MAX_EVIDENCE]),
            value=float(self._repeats),
            threshold=float(self._repeats),
            unit="count",
        )


def _is_worded(call: _Call) -> bool:
    """Whether a call was put in words."""
    text = call[_BITS]
    return is_in_words(words_in_order(text)) if isinstance(text, str) else bool(call[_IN_WORDS] & 1)


def _read_words(call: _Call) -> None:
    """Replace a call's texts by what is kept of their words."""
    text = call[_BITS]
    if not isinstance(text, str):
        return
    found = words_in_order(text)
    in_words = is_in_words(found)
    call[_BITS] = _bytes(sketch(found))
    call[_IN_WORDS] += int(in_words)
    call[_NAMES] ^= names_of_things(found)
    call[_STATED] = _bytes(sketch(words(call[_STATED]))) if in_words else b""


def _thought(step: StepInfo, contents: Contents) -> _Call | None:
    """What a model wrote to act, in code or in words with calls among them.

    None for an answer and for bare calls.
    """
    output = contents.output
    if not calls_tools(contents) or output[:1] == "[":
        return None
    taken = contents.taken
    stated = taken.get("content") if isinstance(taken, dict) else None
    text = stated if isinstance(stated, str) else "" if isinstance(taken, dict) else output
    different = words(text[:_MAX_WRITTEN])
    if len(different) < _MIN_THOUGHT_WORDS:
        return None
    asked = _asked_in_code(text)
    request = _bytes(sketch(asked)) if len(asked) >= _MIN_REQUEST_WORDS else b""
    return [
        step.step_id,
        _bytes(sketch(different)),
        0,
        step.output_hash,
        0,
        1,
        digits_of(text[:_MAX_WRITTEN]),
        request,
    ]


def _asked_in_code(text: str) -> frozenset[bytes]:
    """The words of what code asks another agent for: of the texts in it that are sentences."""
    begin = text.find("```")
    if begin < 0:
        return frozenset()
    code = text[begin : begin + _MAX_WRITTEN]
    return words(
        " ".join(
            quoted
            for pair in _QUOTED.findall(code)
            for quoted in pair
            if quoted.count(" ") >= _SENTENCE_SPACES
        )
    )


def _written_as(one: _Call, calls: list[_Call]) -> list[_Call]:
    """What was written that is nearly the same as one of them, itself included.

    Or that asks for nearly the same in words.
    """
    bits, asked = _number(one[_BITS]), _number(one[_STATED])
    return [
        other
        for other in calls
        if other is one
        or one[_OUTPUT] == other[_OUTPUT]
        or (
            one[_NAMES] == other[_NAMES]
            and similarity(bits, _number(other[_BITS])) >= _THOUGHT_SIMILARITY
        )
        or (asked and similarity(asked, _number(other[_STATED])) >= _REQUEST_SIMILARITY)
    ]


def _hash_of_documents(contents: Contents) -> int:
    """What a retrieval brought, as a number like an output's hash; 0 where it brought nothing."""
    documents = contents.step.documents
    if not documents:
        return 0
    named = "\n".join(
        document.id or document.content[:_MAX_TEXT] for document in documents[:_MAX_PER_TOOL]
    )
    size = sum(len(document.content) for document in documents)
    return crc32(named.encode("utf-8", "replace")) << 32 | min(size, _LENGTH)


def _error_of(step: StepInfo, contents: Contents) -> int:
    if step.status == "error":
        return error_form(step.error_message or step.error_type or "failed")
    failure = failure_in(contents, step.label) if contents.output else None
    return 0 if failure is None else error_form(failure.message or failure.sign)


def _is_equal(one: _Call, other: _Call) -> bool:
    return bool(one[_INPUT] == other[_INPUT] and one[_OUTPUT] == other[_OUTPUT])


def _is_loop(calls: list[_Call]) -> bool:
    """Whether the rule ``loop`` evaluates them: identical calls without a failure."""
    return all(_is_equal(call, calls[0]) and not call[_ERROR] for call in calls)


def _has_reason(run: Run, call: _Call, of_tool: list[_Call], work_us: list[int]) -> bool:
    """Whether a repeated call is polling, or something was changed since it was made before."""
    if _WAITING.search(run.steps[call[_STEP]].label):
        return True
    same = [
        other for other in of_tool if other[_INPUT] == call[_INPUT] and other[_STEP] in run.steps
    ]
    if not call[_ERROR] and len({other[_OUTPUT] for other in same}) > 1:
        return True
    at_us = run.steps[call[_STEP]].start_us
    before = [
        run.steps[other[_STEP]].start_us
        for other in same
        if run.steps[other[_STEP]].start_us < at_us
    ]
    return bool(before) and bisect(work_us, max(before)) < bisect(work_us, at_us)


def _follows_a_change(run: Run, call: _Call, failed: list[_Call], work_us: list[int]) -> bool:
    """Whether something was changed since the same call failed before: it is a check then."""
    at_us = run.steps[call[_STEP]].start_us
    before = [
        run.steps[other[_STEP]].start_us
        for other in failed
        if other[_INPUT] == call[_INPUT] and run.steps[other[_STEP]].start_us < at_us
    ]
    return bool(before) and bisect(work_us, max(before)) < bisect(work_us, at_us)


def _bytes(bits: int) -> bytes:
    return bits.to_bytes(BITS // 8, "little")


def _number(data: bytes) -> int:
    return int.from_bytes(data, "little")
