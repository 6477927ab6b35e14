"""A step as attribution reads it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

MAX_TEXT: Final = 8_000
"""Characters of an output that are read; the weights were fitted with the same limit."""
MAX_STEPS: Final = 5_000
"""Steps of a run that are ranked; of a longer run the last ones, before its output."""
MAX_ALL_TEXT: Final = 4_000_000
"""Characters of all outputs that are read: of a run with more than 500 full steps less of each.

The values of a text take up to 25 times its memory, so this bounds an answer to about 100 MB.
"""

TOOLS: Final = frozenset({"tool_call", "retrieval"})
MODELS: Final = frozenset({"llm_call", "plan", "tool_selection"})
_COORDINATOR: Final = re.compile(r"orchestrator|coordinator|supervisor|manager", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class BlameStep:
    """An ended step. ``output`` is cut to ``MAX_TEXT``."""

    step_id: str
    name: str
    kind: str
    start_us: int
    output: str
    parent_step_id: str = ""
    status: str = "ok"
    error: str = ""
    retry_of: str = ""

    @property
    def is_tool(self) -> bool:
        return self.kind in TOOLS

    @property
    def text(self) -> str:
        """What the step added to the run: its output, or the error in its place."""
        return (self.output or self.error)[:MAX_TEXT]


def candidates(steps: Iterable[BlameStep]) -> list[BlameStep]:
    """The steps that can be the cause, in order: those that did something themselves.

    A step that only contains others (an agent, a chain) repeats their outputs.
    """
    ordered = sorted(steps, key=lambda step: (step.start_us, step.step_id))
    parents = {step.parent_step_id for step in ordered}
    working = TOOLS | MODELS
    found = [
        step
        for step in ordered
        if step.parent_step_id and (step.kind in working or step.step_id not in parents)
    ]
    return found[-MAX_STEPS:]


def has_coordinator(steps: Sequence[BlameStep]) -> bool:
    """Whether one agent hands out the work of others: such runs fail in other places."""
    return any(_COORDINATOR.search(step.name) for step in steps)
