"""What followed each failed call: a retry, an alternative, a hand-over, a mention, or nothing."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from stepstream.stream.detectors.content.given import word_list
from stepstream.stream.detectors.content.speech import ACTED, ADMITTED, ASKED, CODED, STATED, Answer
from stepstream.stream.run.run import Run
from stepstream.stream.run.steps import StepInfo

EVALUATED_KINDS: Final = frozenset({"tool_call", "retrieval", "other"})
"""Kinds of steps whose failure is evaluated. Steps of kind ``other`` (code that ran) only without a
failed child."""

MAX_FAILED: Final = 100
MAX_GOOD: Final = 500
"""Limits on the tools of a run that are compared: those that failed, and those that succeeded. Of
more only the first ones are."""

_CALLS: Final = frozenset({"tool_call", "retrieval"})
_PARTS: Final = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")
_NUMBERS: Final = re.compile(r"[\s_#:-]*\d+\b")
# Two tools that share only such a word, as get_user and get_price do, are for different things.
_GENERAL: Final = word_list(
    """
    a an and api by call check client data details do execute fetch find for from get in info invoke
    list load look lookup mcp of on or query read request retrieve run search service show the to
    tool up use using v via view with
    """
)
"""Words in tools' names that do not name the tool's subject."""
_WRITING: Final = word_list(
    """
    add apply approve assign book buy cancel change charge close commit confirm copy create debit
    delete deploy dispatch edit email exchange execute grant insert issue log mail make merge modify
    move notify order patch pay place post print publish purchase push put record refund register
    reject release remove replace reserve return revoke save schedule sell send set ship store
    submit subscribe transfer update upload write
    """
)
"""Verbs of tools that change something."""
_READING_FIRST: Final = re.compile(
    r"(?:\w{1,60}[.:/]){0,4}(?i:get|find|list|search|read|fetch|check|look|lookup|show|view|query|"
    r"describe|retrieve|load|open|is|has|count)"
    r"(?![a-z])"
)
_ALTERING: Final = word_list("apply create edit insert patch replace rewrite write")
_FILE_WORDS: Final = word_list(
    "a code content contents diff document editor file files in line lines str string text the to"
)
_REPORTING: Final = word_list(
    """
    email log mail message notify print record send say
    """
)
"""Verbs of tools that only report something: they do not replace a tool that failed."""
# A tool that opens a ticket or a case hands over too: a person reads it.
_TO_A_PERSON: Final = re.compile(
    r"hand_?_?(?:off|over)|human|escalat|to_?(?:agent|person|operator|support|staff)|(?:live|"
    r"real)_?agent|on_?call|supervisor|"
    r"(?:contact|notify|page|call|ask)_?(?:support|operator|staff|agent|manager|admin)|"
    r"(?:create|open|file|raise|submit|log)_?\w{0,12}?_?(?:ticket|case|incident)\b",
    re.IGNORECASE,
)
# A thought after a failure is no other way to what the tool should have brought.
_INTERNAL_TOOLS: Final = word_list(
    """
    answer calculate calculator final final_answer finish note plan reflect respond think
    """
)
"""Tools with which an agent only thinks or answers: they ask nothing outside and change nothing."""


class Failed(NamedTuple):
    """A tool whose calls failed, and what became of it."""

    label: str
    last: StepInfo
    """The last of its calls that failed."""
    times: int
    how: str
    """What made up for it, as a clause ("it was called again"); "" if nothing did."""
    by: StepInfo | None
    """The step that made up for it."""
    answered: Answer | None
    """The answer that followed; None if the model's output was not captured."""


def label_of(step: StepInfo) -> str:
    """The name under which calls of the same tool are grouped.

    For a step of kind ``other`` without its number: ``Step 3`` and ``Step 4`` are the same code.
    """
    return step.label if step.kind != "other" else _NUMBERS.sub("", step.label) or step.label


def failures(run: Run, answers: Sequence[Answer], before_us: int | None = None) -> list[Failed]:
    """Return each tool that failed, its last failure and what followed.

    With ``before_us`` only failures that had ended by then are considered.
    """
    # One pass over the steps: ``good`` has the last success of each label, ``tried`` the successful
    # retries and fallbacks by the id of the step that they replace.
    failed: dict[str, list[StepInfo]] = {}
    good: dict[str, StepInfo] = {}
    tried: dict[str, StepInfo] = {}
    # Code that called a failing tool fails with it: that would be one failure reported twice.
    with_failed_child = {step.parent for step in run.steps.values() if step.status == "error"}
    for step in run.steps.values():
        if (step.retry_of or step.fallback_of) and step.status != "error":
            tried[step.retry_of] = tried[step.fallback_of] = step
        if step.kind not in EVALUATED_KINDS or not step.parent:
            continue
        label = label_of(step)
        if not step.ended or step.status == "ok":
            latest = good.get(label)
            # The latest success is enough: it is after a failure if any success is.
            if step.start_us > latest.start_us if latest is not None else len(good) < MAX_GOOD:
                good[label] = step
        elif _failed_before(step, before_us) and (
            step.kind in _CALLS or step.step_id not in with_failed_child
        ):
            of_label = failed.get(label)
            if of_label is not None:
                of_label.append(step)
            elif len(failed) < MAX_FAILED:
                failed[label] = [step]
    return [_outcome(run, label, steps, good, tried, answers) for label, steps in failed.items()]


def _failed_before(step: StepInfo, before_us: int | None) -> bool:
    return step.status == "error" and (before_us is None or step.end_us <= before_us)


def _outcome(
    run: Run,
    label: str,
    steps: list[StepInfo],
    good: dict[str, StepInfo],
    tried: dict[str, StepInfo],
    answers: Sequence[Answer],
) -> Failed:
    last = max(steps, key=lambda step: (step.end_us, step.step_id))
    # By the start of the answering step: a model asked before the failure could not know of it.
    later = [answer for answer in answers if answer[0] >= last.end_us]
    answered = next((answer for answer in sorted(later, reverse=True) if answer[3] == STATED), None)
    how, by = _made_good(run, last, good, tried, answers)
    if not how:
        spoken = min((answer for answer in later if answer[3] in (ADMITTED, ASKED)), default=None)
        if spoken is not None:
            by = run.steps.get(spoken[2])
            how = "the agent mentioned it" if spoken[3] == ADMITTED else "the agent asked the user"
    return Failed(label, last, len(steps), how, by, answered)


def _made_good(
    run: Run,
    failed: StepInfo,
    good: dict[str, StepInfo],
    tried: dict[str, StepInfo],
    answers: Sequence[Answer],
) -> tuple[str, StepInfo | None]:
    again = tried.get(failed.step_id)
    if again is not None:
        return "it was tried again", again
    for label, step in good.items():
        if step.start_us >= failed.end_us and (
            found := makes_good(failed, label_of(failed), step, label)
        ):
            return found, step
    # Only for tools that read: what a failed payment should have changed no other question changes.
    if failed.kind in _CALLS and not is_writing(failed.label):
        other = _next_way(failed, good, answers)
        if other is not None:
            return f"the agent went on with {other.label}", other
        coded = min(
            (answer for answer in answers if answer[0] >= failed.end_us and answer[3] == CODED),
            default=None,
        )
        if coded is not None:
            return "the agent went on with code of its own", run.steps.get(coded[2])
    return "", None


def makes_good(failed: StepInfo, failed_label: str, step: StepInfo, label: str) -> str:
    """How a later call makes up for a failed one, as a clause of the message; "" if it does not."""
    if label == failed_label:
        return "it was called again"
    if step.kind not in _CALLS:
        return ""
    # A person can do what any tool could not, so the names need not be alike.
    if _TO_A_PERSON.search(label):
        return "it was handed to a person"
    if failed.kind in _CALLS and is_alternative(failed, step):
        return f"{label} took its place"
    return ""


def is_alternative(failed: StepInfo, other: StepInfo) -> bool:
    """Whether ``other`` is an alternative to a failed call: the same input, or a tool for the same
    subject.
    """
    # The low half of ``input_hash`` is the length of the input: inputs of up to four bytes ("{}")
    # are equal by chance.
    if (
        failed.input_hash
        and failed.input_hash == other.input_hash
        # The lower half of the hash is the length: inputs such as {} and null are equal by chance.
        and failed.input_hash & 0xFFFFFFFF > 4
    ):
        return not _reports(other.label) or _reports(failed.label)
    if is_writing(failed.label) != is_writing(other.label) or (
        _reports(other.label) and not _reports(failed.label)
    ):
        return False
    return _alters_a_file(failed.label, other.label) or not words_of(failed.label).isdisjoint(
        words_of(other.label)
    )


def _next_way(
    failed: StepInfo, good: dict[str, StepInfo], answers: Sequence[Answer]
) -> StepInfo | None:
    """The first reading call that was made after the model had seen the failure of a reading call.

    None if there is none.
    """
    seen_us = min(
        (answer[1] for answer in answers if answer[0] >= failed.end_us and answer[3] in ACTED),
        default=None,
    )
    if seen_us is None:
        return None
    later = [
        step
        for label, step in good.items()
        if step.kind in _CALLS
        and step.start_us >= seen_us
        and not is_writing(label)
        and label.lower() not in _INTERNAL_TOOLS
    ]
    return min(later, key=lambda step: (step.start_us, step.step_id), default=None)


def is_writing(label: str) -> bool:
    """Whether a tool's name contains a verb of changing something."""
    return not _READING_FIRST.match(label) and not _all_words(label).isdisjoint(_WRITING)


def _reports(label: str) -> bool:
    return is_writing(label) and not _all_words(label).isdisjoint(_REPORTING)


def _alters_a_file(*labels: str) -> bool:
    """Whether the names of all these tools contain only words about editing files.

    Such tools are alternatives to each other.
    """
    names = [_all_words(label) for label in labels]
    return all(
        words <= _FILE_WORDS | _ALTERING and not words.isdisjoint(_ALTERING) for words in names
    )


def words_of(label: str) -> frozenset[str]:
    """The words in a tool's name that name its subject."""
    return frozenset(
        word.rstrip("s") for word in _all_words(label) - _GENERAL if not word.isdigit()
    )


@lru_cache(4_096)
def _all_words(label: str) -> frozenset[str]:
    # Names come from users: the cut bounds the time for one of megabytes.
    return frozenset(word.lower() for word in _PARTS.findall(label[:200]))
