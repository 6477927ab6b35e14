"""All questions by name."""

from __future__ import annotations

from typing import Final

from stepstream.queries import cost, pages, runs, spikes, tools
from stepstream.queries.parameters import QuestionError
from stepstream.queries.question import Question
from stepstream.schemas.suggestions import did_you_mean

QUESTIONS: Final[dict[str, Question]] = {
    question.name: question
    for module in (cost, spikes, tools, runs, pages)
    for question in module.QUESTIONS
}


def find(name: str) -> Question:
    """The question with this name. Raises ``QuestionError`` with the nearest one."""
    found = QUESTIONS.get(name)
    if found is None:
        listed = [question.name for question in QUESTIONS.values() if question.is_listed]
        hint = did_you_mean(name, listed, otherwise=f"there are: {', '.join(listed)}")
        raise QuestionError(f"there is no question {name}: {hint}")
    return found
