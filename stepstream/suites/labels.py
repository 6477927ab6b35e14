"""Answers with labels of people, and how far a grader agrees with them."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, ValidationError

from stepstream.evals.agreement import Agreement, agreement
from stepstream.schemas.criteria import GraderCheck
from stepstream.schemas.wording import sentences
from stepstream.suites.outside_checks import graded, load


class LabelsError(ValueError):
    """Labels that cannot be used; the message has the line and what is wrong."""


class Labelled(BaseModel):
    """An answer that a person has labelled."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    question: str
    answer: str
    label: bool


def parse_labels(name: str, text: str) -> list[Labelled]:
    """The labelled answers of a file, one a line. Raises ``LabelsError``."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            found.append(Labelled.model_validate_json(line))
        except ValidationError as error:
            reason = sentences(error, Labelled, line)
            raise LabelsError(f"{name}, line {number}: {reason}") from None
    if not found:
        raise LabelsError(f"{name}: no labels; a line has question, answer and label")
    return found


def agreement_with(check: GraderCheck, labels: Sequence[Labelled]) -> tuple[Agreement, list[str]]:
    """How far the grader agrees, and why outcomes are unknown. Raises ``AgentError``."""
    load(check)
    grades = [graded(check, one.question, one.answer, ()) for one in labels]
    pairs = [(one.label, grade.outcome) for one, grade in zip(labels, grades, strict=True)]
    reasons = dict.fromkeys(grade.reason for grade in grades if grade.outcome is None)
    return agreement(pairs), list(reasons)
