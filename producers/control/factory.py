"""The control of a run that begins: what was given to the run, in the words of ``RunControl``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from stepstream.producers.control.run_control import RunControl
from stepstream.producers.error_guard import sdk_log

if TYPE_CHECKING:
    from stepstream.producers.control.budget import BudgetLedger
    from stepstream.producers.control.run_control import Recorder
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
        ledger=_ledger_of(fields.get("budget"), engine),
        pause_limit_s=engine.settings.pause_limit / 1e6,
    )
    if fields.get("cancel_on_stop"):
        made.cancel_on_stop()
    return made


def _ledger_of(budget: Any, engine: Engine) -> BudgetLedger | None:
    from stepstream.producers.control.budget import Budget, BudgetLedger

    if budget is None:
        return None
    if not isinstance(budget, Budget):
        sdk_log.log(
            "budget",
            f"stepstream: budget must be a Budget, and {budget!r:.60} is not: the run has none",
        )
        return None
    return BudgetLedger(budget, engine.clock.steady_ns)
