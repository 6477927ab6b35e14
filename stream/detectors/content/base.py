"""What detectors that read contents have in common: they see ended steps only, and hold judgement where order counts.

A judgement that depends on what happened before or after a step is a function of the steps' own times. It is made
``SETTLE_US`` of log time after the record that allowed it, or at the close, so that records of the same moment may come
in any order; what comes later still changes no judgement that was made.
"""

from __future__ import annotations

from typing import Any, Final

from stepstream.stream.detectors.base import NOTHING, DetectorBase, Observation, Observations, R
from stepstream.stream.run.run import Run
from stepstream.stream.run.steps import StepInfo

SETTLE_US: Final = 2_000_000
MAX_DEFERRED: Final = 200
"""Judgements that are held for a run; more are not made."""
EXCERPT: Final = 120

CALLS: Final = frozenset({"tool_call", "retrieval"})


class ContentDetector(DetectorBase[R]):
    """Reads ended steps, those of ``kinds`` where they are named; is not asked about anything else."""

    kinds: frozenset[str] = frozenset()

    def wants_content(self, kind: str) -> bool:
        """Those of ``kinds``; where none is named, all of them."""
        return not self.kinds or kind in self.kinds


class DeferringDetector(ContentDetector[R]):
    """Holds judgements: ``hold`` notes one, ``judge`` makes it once its time has come."""

    def defer(self, run: Run, key: str, now_us: int) -> None:
        """Judge ``key`` later; nothing where it is held already."""
        held: dict[str, int] = self._held(run)
        if key not in held and len(held) < MAX_DEFERRED:
            held[key] = now_us + SETTLE_US
            run.set_timer(self.name, now_us + SETTLE_US)

    def on_timer(self, run: Run, now_us: int) -> Observations:
        """Judge what is due."""
        state = run.detector_state.get(self.name)
        held: dict[str, int] | None = state.get("held") if state else None
        if not held:
            return NOTHING
        due = sorted(key for key, due_us in held.items() if due_us <= now_us)
        for key in due:
            del held[key]
        if held:
            run.set_timer(self.name, min(held.values()))
        return [seen for key in due for seen in self.judge(run, key, at_close=False)]

    def on_close(self, run: Run, now_us: int) -> Observations:
        """Judge what is held, and what only the end can show."""
        state = run.detector_state.get(self.name)
        if not state:
            return NOTHING
        held: dict[str, int] = state.get("held", {})
        keys = sorted({*held, *self.at_close(run)})
        held.clear()
        return [seen for key in keys for seen in self.judge(run, key, at_close=True)]

    def at_close(self, run: Run) -> list[str]:
        """What else is judged at the close."""
        return []

    def judge(self, run: Run, key: str, *, at_close: bool) -> list[Observation]:
        """What is seen now that the time has come."""
        raise NotImplementedError

    def own(self, run: Run) -> dict[str, Any]:
        """This rule's state in the run."""
        made: dict[str, Any] = self.state(run, {})
        return made

    def _held(self, run: Run) -> dict[str, int]:
        held: dict[str, int] = self.own(run).setdefault("held", {})
        return held


def is_reported_by(run: Run, rules: frozenset[str], label: str = "") -> bool:
    """Whether a rule among these has reported the run, or a tool of it where one is named: one trouble is one alert."""
    if not run.fired:
        return False
    return any(
        fired.rule in rules
        and not fired.is_note
        and (not label or fired.subject.partition(":")[0] == label)
        for fired in run.fired.values()
    )


def excerpt(text: str, length: int = EXCERPT) -> str:
    """The beginning of a text in one line."""
    line = " ".join(text[: length * 2].split())
    return line if len(line) <= length else f"{line[: length - 3]}..."


def earliest(steps: list[StepInfo]) -> StepInfo | None:
    """The step that ended first; of several the one whose id is smallest."""
    return min(steps, key=lambda info: (info.end_us, info.step_id), default=None)
