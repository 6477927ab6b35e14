"""What must not be called or said: forbidden tools and patterns, secrets and personal data."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import Final

from stepstream.schemas.rules_content import Forbidden, SensitiveData
from stepstream.stream.detectors.base import NOTHING, Observation, Observations
from stepstream.stream.detectors.content.base import CALLS, ContentDetector, excerpt
from stepstream.stream.detectors.content.sensitive_forms import FORMS, found_in
from stepstream.stream.run.contents import Contents
from stepstream.stream.run.rules import Applied
from stepstream.stream.run.run import Run
from stepstream.stream.run.steps import StepInfo

_CALLING: Final = CALLS | {"tool_selection"}


class ForbiddenDetector(ContentDetector):
    """A tool was called, or a pattern came up, that the policy forbids. One finding a tool or pattern and step."""

    observes = True

    def __init__(self, applied: Applied, rule: Forbidden) -> None:
        super().__init__(applied)
        self._tools = rule.tools
        self._patterns = tuple(re.compile(pattern, re.IGNORECASE) for pattern in rule.patterns)
        self._where = rule.where
        self.kinds = frozenset(rule.kinds)
        self.reads = bool(rule.patterns)
        self.observes = bool(rule.tools)

    def concerns(self, kind: str, *, ended: bool) -> bool:
        """Calls, from their start on: what must not happen is said before it has."""
        return kind in _CALLING

    def observe(self, run: Run, step: StepInfo, now_us: int) -> Observations:
        """Judge the tool of a call."""
        if step.kind not in _CALLING or not any(
            fnmatchcase(step.label, tool) for tool in self._tools
        ):
            return NOTHING
        return (
            self._say(
                step,
                f"{step.label} was called, which the policy forbids",
                "a tool that is forbidden",
            ),
        )

    def read(self, run: Run, step: StepInfo, contents: Contents, now_us: int) -> Observations:
        """Search an ended step for the patterns."""
        if not self.reads_kind(step.kind):
            return NOTHING
        found = []
        for where in self._where:
            text = contents.input if where == "input" else contents.output
            for pattern in self._patterns if text else ():
                match = pattern.search(text)
                if match is not None:
                    message = f"a forbidden pattern is in the {where} of {step.label or step.name}: {pattern.pattern!r}"
                    found.append(
                        self._say(
                            step, message, "", pattern.pattern, quoted=excerpt(match.group(), 40)
                        )
                    )
        return found

    def _say(
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


class SensitiveDataDetector(ContentDetector):
    """What an agent says holds a secret or personal data. One finding a kind and step; what was found is not repeated."""

    def __init__(self, applied: Applied, rule: SensitiveData) -> None:
        super().__init__(applied)
        self.kinds = frozenset(rule.kinds)
        self._forms = tuple(form for name in rule.look_for for form in FORMS[name])

    def read(self, run: Run, step: StepInfo, contents: Contents, now_us: int) -> Observations:
        """Search the output of an ended step."""
        if step.kind not in self.kinds or not contents.output:
            return NOTHING
        found: dict[str, list[str]] = {}
        for what, hint in found_in(contents.output, contents.output_data, self._forms):
            found.setdefault(what, []).append(hint)
        return [self._say(step, what, hints) for what, hints in found.items()] if found else NOTHING

    def _say(self, step: StepInfo, what: str, hints: list[str]) -> Observation:
        more = f" and {len(hints) - 1} more" if len(hints) > 1 else ""
        return Observation(
            message=f"the output of {step.name} holds {what}",
            quoted=f"{hints[0]}{more}",
            detail="whoever can read this run can read it; change what is secret, and keep it out of prompts and outputs",
            severity=self.severity(
                "critical" if "key" in what or "token" in what or "password" in what else "error"
            ),
            subject=what,
            level=step.step_id,
            step_ids=(step.step_id,),
            value=float(len(hints)),
            threshold=0.0,
            unit="count",
        )
