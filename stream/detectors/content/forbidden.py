"""Calls of tools, and patterns in contents, that a policy forbids."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import Final, Literal

from pydantic import Field, field_validator

from stepstream.schemas.rule_base import Glob, RuleBase
from stepstream.schemas.rules import detector_for
from stepstream.stream.detectors.base import NOTHING, Observation, Observations
from stepstream.stream.detectors.content.base import CALLS, ContentDetector, excerpt
from stepstream.stream.run.contents import Contents
from stepstream.stream.run.rules import Applied
from stepstream.stream.run.run import Run
from stepstream.stream.run.steps import StepInfo

MAX_PATTERN: Final = 500
"""Characters of a pattern."""


class Forbidden(RuleBase):
    """A forbidden tool was called, or a forbidden pattern appears in an input or output."""

    reads_contents = True
    fires_when = "a tool is called, or a pattern appears, that the policy forbids"
    usual_severity = "critical"

    rule: Literal["forbidden"]
    tools: tuple[Glob, ...] = Field((), description="names of tools, or patterns with * and ?")
    patterns: tuple[str, ...] = Field(
        (), description="regular expressions, searched without regard to case"
    )
    where: tuple[Literal["input", "output"], ...] = ("input", "output")
    kinds: tuple[str, ...] = Field((), description="kinds of steps to search; none named: all")

    @field_validator("patterns")
    @classmethod
    def _patterns_compile(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in patterns:
            if len(pattern) > MAX_PATTERN:
                raise ValueError(
                    f"a pattern has {len(pattern)} characters, {MAX_PATTERN} are the most"
                )
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"pattern {pattern!r} cannot be read: {error}") from error
        return patterns


_CALLING: Final = CALLS | {"tool_selection"}


@detector_for(Forbidden)
class ForbiddenDetector(ContentDetector[Forbidden]):
    """A tool was called, or a pattern came up, that the policy forbids.

    One finding a tool or pattern and step.
    """

    def __init__(self, applied: Applied) -> None:
        super().__init__(applied)
        self._tools = self.rule.tools
        self._patterns = tuple(re.compile(pattern, re.IGNORECASE) for pattern in self.rule.patterns)
        self._where = self.rule.where
        self.kinds = frozenset(self.rule.kinds)

    def wants_step(self, kind: str, *, ended: bool) -> bool:
        """Calls, from their start on: the alert need not wait for the end."""
        return bool(self._tools) and kind in _CALLING

    def wants_content(self, kind: str) -> bool:
        return bool(self._patterns) and super().wants_content(kind)

    def on_step(self, run: Run, step: StepInfo, now_us: int) -> Observations:
        """Compare the tool of a call."""
        if step.kind not in _CALLING or not any(
            fnmatchcase(step.label, tool) for tool in self._tools
        ):
            return NOTHING
        return (
            self._observation(
                step,
                f"{step.label} was called, which the policy forbids",
                "the tool is forbidden",
            ),
        )

    def on_content(self, run: Run, step: StepInfo, contents: Contents, now_us: int) -> Observations:
        """Search an ended step for the patterns."""
        if not self.wants_content(step.kind):
            return NOTHING
        found = []
        for where in self._where:
            text = contents.input if where == "input" else contents.output
            for pattern in self._patterns if text else ():
                match = pattern.search(text)
                if match is not None:
                    message = (
                        f"a forbidden pattern is in the {where} of "
                        f"{step.label or step.name}: {pattern.pattern!r}"
                    )
                    found.append(
                        self._observation(
                            step, message, "", pattern.pattern, quoted=excerpt(match.group(), 40)
                        )
                    )
        return found

    def _observation(
        self, step: StepInfo, message: str, detail: str, pattern: str = "", quoted: str = ""
    ) -> Observation:
        return Observation(
            message=message,
            quoted=quoted,
            detail=detail,
            severity=self.severity("critical"),
            subject=pattern or step.label,
            level=step.step_id,
            step_ids=(step.step_id,),
        )
