"""Up to three suspects of a run, each with evidence, and the path from it to the output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from stepstream.evals.blame.features import HEDGE, Seen, features, values_in
from stepstream.evals.blame.ranker import (
    CHOSE_FAILED_BONUS,
    CRITERIA_BONUS,
    FAILED_BONUS,
    scores,
)
from stepstream.evals.blame.step import (
    MODELS,
    BlameStep,
    candidates,
    has_coordinator,
)

MOST_SUSPECTS: Final = 3
MOST_VALUES: Final = 5
MOST_ON_PATH: Final = 20
EXCERPT: Final = 120


@dataclass(frozen=True, slots=True)
class Suspect:
    """A step that may be the cause.

    ``probability`` is the ranker's: it compares the steps of this run and is no promise that one of
    them is the cause. ``path`` has the ids of the steps through which its values reached the
    output, itself first.
    """

    step: BlameStep
    probability: float
    evidence: tuple[str, ...]
    path: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Reports:
    """What is recorded about a run's steps: sentences by step id."""

    failed_criteria: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Failed checks of Criteria documents, at the steps that they name."""
    findings: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Other findings. They are evidence and do not change the ranking."""


NO_REPORTS: Final = Reports()


def suspects(
    question: str,
    steps: Sequence[BlameStep],
    most: int = MOST_SUSPECTS,
    reports: Reports = NO_REPORTS,
) -> list[Suspect]:
    """The most likely causes of a wrong or failed answer, the most likely first.

    ``question`` is the run's input, ``steps`` all its ended steps, in any order.
    """
    return sorted(rank(question, steps, reports), key=lambda one: -one.probability)[:most]


def rank(question: str, steps: Sequence[BlameStep], reports: Reports = NO_REPORTS) -> list[Suspect]:
    """Every step that can be the cause, in the order of the run."""
    ordered = candidates(steps)
    if not ordered:
        return []
    rows, seen = features(question, ordered)
    failures = _failures(ordered)
    refused = {
        step.step_id for step in ordered if step.is_tool and step.step_id in reports.failed_criteria
    }
    chose = _chose(ordered, failures | refused)
    bonuses = [
        # A call that failed and should not have been made has one of the two, not both.
        max(FAILED_BONUS * (step.step_id in failures), CRITERIA_BONUS * (step.step_id in refused))
        + CHOSE_FAILED_BONUS * (step.step_id in chose)
        for step in ordered
    ]
    found = scores(rows, bonuses, coordinated=has_coordinator(ordered))
    paths = _paths(ordered, seen)
    return [
        Suspect(
            step,
            found[place],
            tuple(_evidence(place, ordered, seen[place], failures, chose, reports)),
            tuple(paths[place]),
        )
        for place, step in enumerate(ordered)
    ]


def _failures(ordered: Sequence[BlameStep]) -> set[str]:
    """Failed steps that no later attempt of the same step made good."""
    repaired = {step.retry_of for step in ordered if step.status == "ok" and step.retry_of}
    good_later: set[str] = set()
    found: set[str] = set()
    for step in reversed(ordered):
        if step.status == "error" and step.step_id not in repaired and step.name not in good_later:
            found.add(step.step_id)
        elif step.status == "ok":
            good_later.add(step.name)
    return found


def _chose(ordered: Sequence[BlameStep], bad: set[str]) -> dict[str, BlameStep]:
    """Model steps by id, with the first of these calls that came next."""
    chose: dict[str, BlameStep] = {}
    last: BlameStep | None = None
    for step in ordered:
        if step.kind in MODELS:
            last = step
        elif step.step_id in bad and last is not None:
            chose.setdefault(last.step_id, step)
    return chose


def _evidence(
    place: int,
    ordered: Sequence[BlameStep],
    seen: Seen,
    failures: set[str],
    chose: dict[str, BlameStep],
    reports: Reports,
) -> list[str]:
    step = ordered[place]
    found = [_cut(text) for text in reports.failed_criteria.get(step.step_id, ())]
    if step.step_id in failures:
        found.append(f"failed and was not repaired: {_cut(step.error or 'no message')}")
    elif step.status == "error":
        found.append(f"failed, and worked later: {_cut(step.error or 'no message')}")
    elif seen.is_error:
        found.append("its status is ok, its output reads like an error")
    if step.step_id in chose:
        call = chose[step.step_id]
        why = "failed" if call.step_id in failures else "does not meet the run's Criteria"
        found.append(f"issued the call of {call.name}, which {why}")
    if seen.is_after_error and step.kind in MODELS:
        before = ordered[place - 1]
        found.append(f"went on after {before.name}, whose output reads like an error")
    if seen.reaching:
        found.append(f"first step with {_values(seen.reaching)}, which the output contains")
    if seen.is_first_claim:
        found.append("first step that states a number that no step before it had")
    if not step.is_tool and (hedge := HEDGE.search(step.text)):
        found.append(f"is not sure: {_around(step.text, hedge.start())}")
    found += map(_cut, reports.findings.get(step.step_id, ()))
    return found or ["its place and form are those of decisive steps in other failed runs"]


def _paths(ordered: Sequence[BlameStep], seen: Sequence[Seen]) -> list[list[str]]:
    """For each step its id and those of the steps that repeat a value of it, up to the last."""
    following: list[list[str]] = [[] for _ in ordered]
    # One pass over the texts: to compare each step with all later ones takes minutes in long runs.
    origins: dict[str, list[int]] = {}
    for place, (step, known) in enumerate(zip(ordered, seen, strict=True)):
        for origin in {one for value in values_in(step.text) for one in origins.get(value, ())}:
            if len(following[origin]) < MOST_ON_PATH:
                following[origin].append(step.step_id)
        for value in known.reaching or known.new_values:
            origins.setdefault(value, []).append(place)
    return [
        _path(step.step_id, after, ordered[-1].step_id)
        for step, after in zip(ordered, following, strict=True)
    ]


def _path(first: str, following: Sequence[str], last: str) -> list[str]:
    if len(following) >= MOST_ON_PATH:
        following = following[: MOST_ON_PATH - 2]
    path = [first, *following]
    return path if path[-1] == last else [*path, last]


def _values(values: frozenset[str]) -> str:
    # The longest first: "1,204" and "Marie Curie" are more specific than "3".
    shown = sorted(values, key=lambda value: (-len(value), value))[:MOST_VALUES]
    return ", ".join(_cut(value) for value in shown)


def _around(text: str, at: int) -> str:
    begin = max(0, at - EXCERPT // 3)
    return _cut(("…" if begin else "") + text[begin:].lstrip())


def _cut(text: str) -> str:
    line = " ".join(text[: 4 * EXCERPT].split())
    return line if len(line) <= EXCERPT else line[: EXCERPT - 1] + "…"
