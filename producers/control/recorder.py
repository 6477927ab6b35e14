"""Records commands and their effects as steps of the run: stop, pause, resume, budget."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from stepstream.producers.error_guard import never_raises
from stepstream.schemas.control import CONTROL_KIND
from stepstream.schemas.step import Step as StepRecord

if TYPE_CHECKING:
    from stepstream.producers.engine import Engine
    from stepstream.producers.scope import Scope


class ControlStepRecorder:
    """Publishes the control steps of one run, as children of its root.

    Thread-safe, never raises.
    """

    __slots__ = ("_engine", "_generation", "_parent_id", "_scope")

    def __init__(self, engine: Engine, scope: Scope, parent_id: str) -> None:
        self._engine = engine
        self._generation = engine.sender.generation
        self._scope = scope
        self._parent_id = parent_id

    def now_us(self) -> int:
        """Wall-clock time in microseconds since 1970."""
        return self._engine.clock.now_us()

    @never_raises
    def __call__(
        self,
        step_id: str,
        phase: str,
        name: str,
        attributes: dict[str, str],
        *,
        began_us: int = 0,
        status: str = "ok",
    ) -> None:
        """Publish one event of a control step. ``began_us`` is its start; 0 means now."""
        if self._engine.sender.generation != self._generation:
            return  # in a forked child: the parent process records the run
        now_us = self.now_us()
        record = StepRecord(
            trace_id=self._scope.trace_id,
            step_id=step_id,
            parent_step_id=self._parent_id,
            phase=phase,
            kind=CONTROL_KIND,
            name=name,
            start_time=began_us or now_us,
            end_time=max(now_us, began_us) if phase == "end" else None,
            status=status,
            attributes=attributes,
            **cast(Any, self._scope.labels),
        )
        self._engine.publish(record)
