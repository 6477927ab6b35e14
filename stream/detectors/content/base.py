"""The base of detectors that read contents.

They read ended steps only, and defer what depends on order.

A decision that depends on what happened before or after a step is a function of the steps' own
times. It is made ``SETTLE_US`` of log time after the record that allows it, or when the run closes,
so that records of the same moment may arrive in any order. Records that arrive later change no
decision.
"""

from __future__ import annotations

from typing import Any, Final

from stepstream.stream.detectors.base import NOTHING, DetectorBase, Observation, Observations, R
from stepstream.stream.run.run import Run
from stepstream.stream.run.steps import StepInfo

SETTLE_US: Final = 2_000_000
MAX_DEFERRED: Final = 200
"""Decisions that are deferred at the same time for a run; further ones are dropped."""
EXCERPT: Final = 120

CALLS: Final = frozenset({"tool_call", "retrieval"})


class ContentDetector(DetectorBase[R]):
    """Reads ended steps, those of ``kinds`` where they are named.

    Is not asked about anything else.
    """

    kinds: frozenset[str] = frozenset()

    def wants_content(self, kind: str) -> bool:
        """Those of ``kinds``; where none is named, all of them."""
        return not self.kinds or kind in self.kinds


class DeferringDetector(ContentDetector[R]):
    """Defers decisions: ``defer`` notes one, ``evaluate`` makes it when it is due."""

    def defer(self, run: Run, key: str, now_us: int) -> None:
        """Evaluate ``key`` later, unless it is deferred already."""
        pending: dict[str, int] = self._deferred(run)
        if key not in pending and len(pending) < MAX_DEFERRED:
            pending[key] = now_us + SETTLE_US
            run.set_timer(self.name, now_us + SETTLE_US)

    def on_timer(self, run: Run, now_us: int) -> Observations:
        """Evaluate what is due."""
        state = run.detector_state.get(self.name)
        pending: dict[str, int] | None = state.get("held") if state else None
        if not pending:
            return NOTHING
        # Sorted, because the order in the state depends on the order in which records arrived.
        due = sorted(key for key, due_us in pending.items() if due_us <= now_us)
        for key in due:
            del pending[key]
        if pending:
            run.set_timer(self.name, min(pending.values()))
        return [seen for key in due for seen in self.evaluate(run, key, at_close=False)]

    def on_close(self, run: Run, now_us: int) -> Observations:
        """Evaluate what is deferred, and what only the end of a run shows."""
        state = run.detector_state.get(self.name)
        if not state:
            return NOTHING
        pending: dict[str, int] = state.get("held", {})
        keys = sorted({*pending, *self.at_close(run)})
        pending.clear()
        return [seen for key in keys for seen in self.evaluate(run, key, at_close=True)]

    def at_close(self, run: Run) -> list[str]:
        """Further keys to evaluate when the run closes."""
        return []

    def evaluate(self, run: Run, key: str, *, at_close: bool) -> list[Observation]:
        """The observations about ``key``."""
        raise NotImplementedError

    def own(self, run: Run) -> dict[str, Any]:
        """This rule's state in the run."""
        made: dict[str, Any] = self.state(run, {})
        return made

    def _deferred(self, run: Run) -> dict[str, int]:
        pending: dict[str, int] = self.own(run).setdefault("held", {})
        return pending


def is_reported_by(run: Run, rules: frozenset[str], label: str = "") -> bool:
    """Whether one of these rules has reported the run, or the tool ``label`` of it.

    The caller reports it only as a note then, or not at all, so that there is one alert.
    """
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
    # The id decides between equal times, so that every replay names the same step.
    return min(steps, key=lambda info: (info.end_us, info.step_id), default=None)
