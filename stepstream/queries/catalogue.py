"""All questions by name."""

from __future__ import annotations

from typing import Final

from stepstream.queries import (
    configurations,
    cost,
    evaluations,
    pages,
    related,
    runs,
    speed,
    spikes,
    suspects,
    tasks,
    tools,
    waste,
)
from stepstream.queries.parameters import QuestionError
from stepstream.queries.question import Question
from stepstream.schemas.suggestions import did_you_mean

QUESTIONS: Final[dict[str, Question]] = {
    question.name: question
    for module in (
        cost,
        spikes,
        waste,
        suspects,
        tools,
        speed,
        configurations,
        evaluations,
        related,
        runs,
        pages,
        tasks,
    )
    for question in module.QUESTIONS
}


def find(name: str, *others: str) -> Question:
    """The question with this name. Raises ``QuestionError`` with the nearest one.

    ``others`` are names that the caller knows as well.
    """
    found = QUESTIONS.get(name)
    if found is None:
        listed = [question.name for question in QUESTIONS.values() if question.is_listed]
        listed += others
        hint = did_you_mean(name, listed, otherwise=f"there are: {', '.join(listed)}")
        raise QuestionError(f"there is no question {name}: {hint}")
    return found
