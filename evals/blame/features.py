"""What the ranker sees of each step: place, form, and which values are new in it.

The features are those of a conditional logit on failed conversations (Who&When); each is a number
between about 0 and 1.5, so that one regularisation fits all.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from stepstream.evals.blame.step import BlameStep

ERROR: Final = re.compile(
    r"error|exception|traceback|failed|not found|unable|cannot|can't|couldn't|unfortunately|apolog",
    re.IGNORECASE,
)
HEDGE: Final = re.compile(
    r"assum|likely|probably|let's say|hypothetical|example|simulat|for now|manually|seems"
    r"|should be",
    re.IGNORECASE,
)
PLAN: Final = re.compile(r"plan|step 1|first,|let's|we need to|to solve", re.IGNORECASE)
DONE: Final = re.compile(
    r"terminate|final answer|conclude|therefore|the answer|confirmed|verified|correct",
    re.IGNORECASE,
)
NUMBER: Final = re.compile(r"\d[\d,.]*")
NAME: Final = re.compile(r"\b[A-Z][a-z]{2,}(?: [A-Z][a-z]{2,})*\b")

# A claim after this many characters of planning is no claim.
PLAN_CHARS: Final = 200
MOST_NEW_VALUES: Final = 500
"""Values that are kept of a step: of a table of numbers the longest are the most specific."""
LAST_STEPS: Final = 2
"""The steps whose values count as the output, where the run itself has none."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a step is known by, besides its features."""

    new_values: frozenset[str]
    """Numbers and names that no step before it had."""
    reaching: frozenset[str]
    """Of them, those that are in the run's output."""
    is_error: bool
    is_first_claim: bool
    is_after_error: bool


FEATURES: Final = (
    "place", "place_squared", "is_first", "is_second", "is_third", "is_last", "is_tool",
    "after_tool", "error_words", "after_error", "model_after_error", "has_code", "length",
    "hedges", "plans", "concludes", "new_numbers", "new_names", "first_claim", "first_of_speaker",
    "by_coordinator", "is_thought", "is_hand_over", "new_in_output", "model_new_in_output",
)  # fmt: skip


def values_in(text: str) -> frozenset[str]:
    """The numbers and names in a text."""
    return _clean(NUMBER.findall(text)) | frozenset(NAME.findall(text))


def _clean(numbers: Iterable[str]) -> frozenset[str]:
    """Numbers without the full stop or comma that ends their sentence."""
    # The features keep it: with it the ranker found more of the annotated steps.
    return frozenset(number.rstrip(",.") for number in numbers)


def _most_specific(values: frozenset[str]) -> frozenset[str]:
    """At most ``MOST_NEW_VALUES`` of the values, the longest."""
    if len(values) <= MOST_NEW_VALUES:
        return values
    return frozenset(sorted(values, key=lambda value: (-len(value), value))[:MOST_NEW_VALUES])


def _raw_values(text: str) -> list[str]:
    return [*NUMBER.findall(text), *NAME.findall(text)]


def features(question: str, steps: Sequence[BlameStep]) -> tuple[list[list[float]], list[Seen]]:
    """The features of each step, in the order of ``FEATURES``, and what it is known by.

    The values of the last steps stand for the output: a run's own output repeats them.
    """
    rows: list[list[float]] = []
    seen: list[Seen] = []
    for row, known in _walk(question, steps):
        rows.append(row)
        seen.append(known)
    return rows, seen


def _walk(question: str, steps: Sequence[BlameStep]) -> Iterator[tuple[list[float], Seen]]:
    known_numbers = set(NUMBER.findall(question))
    known_names = set(NAME.findall(question))
    last_texts = [step.text for step in steps[-LAST_STEPS:]]
    raw_output = {value for text in last_texts for value in _raw_values(text)}
    output = frozenset[str]().union(*map(values_in, last_texts))
    speakers: set[str] = set()
    after_tool = after_error = claimed = False
    for place, step in enumerate(steps):
        text, is_tool = step.text, step.is_tool
        numbers = set(NUMBER.findall(text)) - known_numbers
        names = set(NAME.findall(text)) - known_names
        is_error = bool(ERROR.search(text)) or step.status == "error"
        has_code = "```" in text
        is_claim = (
            not (is_tool or has_code) and bool(numbers) and not PLAN.search(text[:PLAN_CHARS])
        )
        is_last = place == len(steps) - 1
        reaching = 0 if is_last else len((numbers | names) & raw_output)
        new_values = _most_specific(_clean(numbers) | names)
        speaker = step.name.lower()
        share = place / max(1, len(steps) - 1)
        row = [
            share,
            share * share,
            place == 0,
            place == 1,
            place == 2,
            is_last,
            is_tool,
            after_tool,
            is_error,
            after_error,
            after_error and not is_tool,
            has_code,
            math.log1p(len(text)) / 10,
            bool(HEDGE.search(text)),
            bool(PLAN.search(text)),
            bool(DONE.search(text)),
            0.0 if is_tool else math.log1p(len(numbers)) / 4,
            0.0 if is_tool else math.log1p(len(names)) / 4,
            is_claim and not claimed,
            step.name not in speakers,
            "orchestrator" in speaker,
            "thought" in speaker,
            "->" in speaker,
            math.log1p(reaching) / 2,
            0.0 if is_tool else math.log1p(reaching) / 2,
        ]
        first_claim = is_claim and not claimed
        yield (
            [float(value) for value in row],
            Seen(
                new_values,
                frozenset() if is_last else new_values & output,
                is_error,
                first_claim,
                after_error,
            ),
        )
        claimed = claimed or is_claim
        known_numbers |= numbers
        known_names |= names
        speakers.add(step.name)
        after_tool, after_error = is_tool, is_error
