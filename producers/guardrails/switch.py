"""Whether any guardrail is in force in this process."""

from __future__ import annotations

from typing import Final


class _Switch:
    """An attribute, because a module's name is copied by imports."""

    __slots__ = ("is_on",)

    def __init__(self) -> None:
        self.is_on = False


guarding: Final = _Switch()
"""Set by the first guardrails that a tracer of this process has: until then a step pays for the
access of one attribute only."""

# How a step may be guarded; a step has one of these until its guardrails were evaluated.
BLOCK: Final = 0
"""The program calls the tool itself, inside a ``with`` block: its arguments cannot be replaced."""
BODY: Final = 1
"""The SDK makes the call: its arguments can be repaired."""
WATCHED: Final = 2
"""A framework makes the call whatever is raised: guardrails can only report."""
EVALUATED: Final = 3
"""Nothing was decided."""
