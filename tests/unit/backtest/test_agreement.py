"""How far an evaluation agrees with the alerts that were really raised."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from stepstream.backtest.compare import AlertKey, agreement
from stepstream.backtest.pipeline import Outcome
from stepstream.schemas.alert import AlertStruct

END_US = 1_000_000_000


def raised(trace_id: str, at_us: int) -> AlertStruct:
    fields = {"alert_id": trace_id or "a", "seq": 1, "state": "firing", "severity": "error"}
    fields |= {"alert": "loop", "rule": "loop", "project": "p", "trace_id": trace_id}
    fields |= {"opened_at": at_us, "updated_at": at_us}
    return msgspec.convert(fields, AlertStruct)


def found(**times: int) -> Outcome:
    """Alerts about a run each, and when they were opened."""
    return Outcome(alerts={name: raised(name, at_us) for name, at_us in times.items()})


def stored(**times: int) -> list[dict[str, Any]]:
    return [
        {
            "alert": "loop",
            "trace_id": name,
            "subject": "",
            "opened_at": datetime.fromtimestamp(at_us / 1e6, UTC),
        }
        for name, at_us in times.items()
    ]


def test_alerts_that_the_store_may_not_have_yet_are_not_compared() -> None:
    """One of both, one of each side, and those that came after the end on both sides or on one."""
    result = agreement(
        found(both=1, mine=2, late=END_US, later=END_US + 1, early=END_US - 1),
        stored(both=3, theirs=4, late=END_US, early=END_US + 9),
        END_US,
    )
    # An alert shortly before the end that a busy worker raised shortly after it is the same one.
    assert result.same == 2
    assert result.missing == (AlertKey("loop", "theirs", ""),)
    assert result.extra == (AlertKey("loop", "mine", ""),)
    assert result.share == 0.5


def test_alerts_over_many_runs_are_left_out() -> None:
    outcome = Outcome(alerts={"a": raised("", 1)})
    assert agreement(outcome, stored(**{"": 1}), END_US).share is None
