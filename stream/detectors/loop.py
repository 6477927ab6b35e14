"""The same call again and again with the same answer."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from stepstream.schemas.rule_base import RuleBase
from stepstream.schemas.rules import detector_for
from stepstream.stream.detectors.base import (
    MAX_EVIDENCE,
    NOTHING,
    DetectorBase,
    Observation,
    Observations,
)
from stepstream.stream.detectors.content.base import is_reported_by
from stepstream.stream.run.rules import Applied
from stepstream.stream.run.run import Run
from stepstream.stream.run.steps import StepInfo


class Loop(RuleBase):
    """The same call with the same input gives the same answer several times, and nothing new comes
    between.
    """

    on_by_default = True
    about_one_run = True
    fires_when = (
        "the same call with the same input gave the same answer `repeats` (4) times, and "
        "nothing new came between"
    )
    usual_severity = "warning"

    rule: Literal["loop"]
    repeats: Annotated[int, Field(ge=3)] = 4


_MAX_CALLS = 2_000
_WAITING: Final = re.compile(
    r"(?:^|[_\W])(?:poll|wait|status|progress|sleep|ping|heartbeat|monitor|watch|is_?(?:ready|done|"
    r"finished|alive))(?:$|[_\W])",
    re.IGNORECASE,
)
"""Names of calls that are made until something else has happened."""
_WAITING_FACTOR: Final = 5
"""For names that suggest waiting, the limit is this many times higher."""
_NEW: Final = "new_us"
"""Key of the state: start time (microseconds) of the newest call that was made for the first time.
"""
_REPETITION: Final = frozenset({"repetition"})
_REPORTED_BY: Final = frozenset({"loop", "repetition"})
_LOOPING_KINDS = frozenset({"tool_call", "retrieval", "llm_call"})


@detector_for(Loop)
class LoopDetector(DetectorBase[Loop]):
    """Evaluates ``Loop``.

    A repeated call whose answer changes (polling a job) is no loop. A call that is repeated after
    other, new calls is no loop either: for instance a check after each change. Retries are not
    counted as calls.
    """

    def __init__(self, applied: Applied) -> None:
        super().__init__(applied)
        self._repeats = self.rule.repeats

    def wants_step(self, kind: str, *, ended: bool) -> bool:
        """Whether the step has ended and is a call (tool, retrieval, model)."""
        return ended and kind in _LOOPING_KINDS

    def on_step(self, run: Run, step: StepInfo, now_us: int) -> Observations:
        """Count an ended call. Returns an observation when the limit is reached.

        Calls with equal kind, name, input, output and status are the same.
        """
        if (
            not step.ended
            or not step.input_hash
            or step.kind not in _LOOPING_KINDS
            or step.attempt > 1
            or step.retry_of
        ):
            return NOTHING
        calls: dict[str, Any] = self.state(run, {})
        key = f"{step.kind}|{step.label}|{step.input_hash:x}|{step.output_hash:x}|{step.status}"
        # [ids of the first steps, start of the newest of these calls (us), number of calls]
        seen: list[Any] | None = calls.get(key)
        if seen is None:
            # Above this many different calls new ones are not remembered: the state record of the
            # run would grow without a limit.
            if len(calls) < _MAX_CALLS:
                calls[key] = [[step.step_id], step.start_us, 1]
                if step.kind != "llm_call":
                    # By the steps' own times, so that the order of arrival does not matter.
                    calls[_NEW] = max(step.start_us, calls.get(_NEW, 0))
            return NOTHING
        if self.has_fired(run, subject := f"{step.label}:{step.input_hash:x}"):
            return NOTHING
        steps, last_us = seen[:2]
        if len(seen) == 2:  # a state record of an earlier version has no count
            seen.append(len(steps))
        if last_us < calls.get(_NEW, 0) <= step.start_us:
            # Another call was new since the last one of these: count from here again.
            steps.clear()
            seen[2] = 0
        seen[1] = max(last_us, step.start_us)
        seen[2] += 1
        if len(steps) < MAX_EVIDENCE:
            steps.append(step.step_id)
        limit = self._repeats * (_WAITING_FACTOR if _WAITING.search(step.label) else 1)
        if seen[2] < limit:
            return NOTHING
        if (
            is_reported_by(run, _REPORTED_BY)
            if step.kind == "llm_call"
            else is_reported_by(run, _REPETITION, step.label)
        ):
            # The repeated tool call is reported already; the model call that requests it is not
            # reported in addition.
            return NOTHING
        outcome = "failed the same way" if step.status == "error" else "gave the same answer"
        return (
            Observation(
                message=f"{step.label} was called {seen[2]} times with the same input and "
                f"{outcome}",
                severity=self.severity("warning"),
                subject=subject,
                step_ids=tuple(steps),
                value=float(seen[2]),
                threshold=float(limit),
                unit="count",
            ),
        )
