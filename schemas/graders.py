"""Graders: functions of other packages that score an answer, usually by asking a model.

None is part of the project, and nothing needs one. A grader is registered by the entry point
``stepstream.graders``, or named ``module:function``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from stepstream.schemas.extensions import Registry


@dataclass(frozen=True)
class Score:
    """What a grader returns; a plain number from 0 to 1 will do."""

    value: float
    """From 0 (bad) to 1 (good)."""
    reason: str = ""
    model: str = ""
    prompt_hash: str = ""
    """Of the grader's prompt: scores of different prompts are not comparable."""
    cost_usd: float | None = None


Grader = Callable[[str, str, str], Any]
"""``grader(question, answer, rubric)`` returns a ``Score`` or a number from 0 to 1."""

GRADERS: Final[Registry[Grader]] = Registry("grader", group="stepstream.graders")


class Nonsense(ValueError):
    """A grader returned what is no score; the message states what."""


def score_of(returned: Any) -> Score:
    """The score that a grader returned. Raises ``Nonsense`` for anything but 0 to 1."""
    score = returned if isinstance(returned, Score) else Score(returned)
    value = score.value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Nonsense(f"it returned {type(value).__name__}, not a number from 0 to 1")
    if math.isnan(value) or not 0 <= value <= 1:
        raise Nonsense(f"it returned {value}, not a number from 0 to 1")
    return score
