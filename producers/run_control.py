"""The control of a run that begins: what was given to the run, in the words of ``RunControl``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from stepstream.producers.control import RunControl
from stepstream.producers.guard import complaints

if TYPE_CHECKING:
    from stepstream.producers.budget import Purse
    from stepstream.producers.control import Recorder
    from stepstream.producers.engine import Engine
    from stepstream.producers.scope import Scope


def control_of(
    scope: Scope,
    started_us: int,
    record: Recorder,
    around: RunControl | None,
    fields: Mapping[str, Any],
    engine: Engine,
) -> RunControl:
    """The control of a run with these fields."""
    made = RunControl(
        scope.trace_id,
        scope.whose,
        started_us,
        record,
        parent=around,
        hook=fields.get("on_command"),
        purse=_purse(fields.get("budget"), engine),
        pause_limit_s=engine.settings.pause_limit / 1e6,
    )
    if fields.get("cancel_on_stop"):
        made.cancel_on_stop()
    return made


def _purse(budget: Any, engine: Engine) -> Purse | None:
    from stepstream.producers.budget import Budget, Purse

    if budget is None:
        return None
    if not isinstance(budget, Budget):
        complaints.say(
            "budget",
            f"stepstream: budget must be a Budget, and {budget!r:.60} is not: the run has none",
        )
        return None
    return Purse(budget, engine.clock.steady_ns)
