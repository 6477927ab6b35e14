"""What was spent within each calendar window that a policy limits.

Sums of integers: exact, in whatever order.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from stepstream.schemas.calendar import window_name, window_of
from stepstream.schemas.fleet import FleetBudgetStruct, fleet_key
from stepstream.schemas.money import usd_from_nanos
from stepstream.stream.usage.detectors.spend import Budget
from stepstream.stream.usage.windows.records import Owner


class BudgetKey(NamedTuple):
    """One total.

    A budget's key, the project, which of those that are limited, and the window's beginning.
    """

    policy: str
    alert: str
    per: str
    window: str
    timezone: str
    project: str
    group: str
    start: int


class Total:
    """What was spent so far, and the budget in force."""

    __slots__ = ("budget", "changed", "end", "nanos")

    def __init__(self, budget: Budget, end: int) -> None:
        self.budget = budget
        self.end = end
        self.nanos = 0
        self.changed = True


class Budgets:
    """Totals of the windows that are not over and sealed."""

    def __init__(self) -> None:
        self.totals: dict[BudgetKey, Total] = {}

    def use(
        self, budget: Budget, owner: Owner, user_id: str, minute: int, nanos: int
    ) -> tuple[BudgetKey, Total]:
        """Add what was spent in a minute, or take it back."""
        rule = budget.rule
        start, end = window_of(minute, rule.window, rule.timezone)
        key = BudgetKey(*budget.key, owner[0], budget.group(owner, user_id), start)
        total = self.totals.get(key)
        if total is None:
            total = self.totals[key] = Total(budget, end)
        # The policy may have another limit by now: what was spent stays, the limit is the newest.
        total.budget = budget
        total.nanos += nanos
        total.changed = True
        return key, total

    def records(self, as_of: int) -> Iterator[tuple[bytes, FleetBudgetStruct]]:
        """Keys and records of what has changed since the last time.

        What is over by then is forgotten.
        """
        for key, total in list(self.totals.items()):
            if total.changed:
                total.changed = False
                yield _record(key, total, as_of)
            if total.end <= as_of:
                del self.totals[key]


def budget_name(key: BudgetKey) -> str:
    """Which budget it is, for people: ``user_id u-9, 2026-11``."""
    window = window_name(key.start, key.window, key.timezone)  # type: ignore[arg-type]
    return f"{key.per} {key.group or '(none)'}, {window}"


def _record(key: BudgetKey, total: Total, as_of: int) -> tuple[bytes, FleetBudgetStruct]:
    rule = total.budget.rule
    record = FleetBudgetStruct(
        project=key.project,
        policy=key.policy,
        alert=key.alert,
        per=key.per,
        group=key.group,
        window=rule.window,
        timezone=key.timezone,
        start=key.start,
        end=total.end,
        as_of=as_of,
        spent_usd=usd_from_nanos(total.nanos),
        limit_usd=usd_from_nanos(total.budget.limit_nanos),
    )
    name = (key.project, "budget", key.policy, key.alert, key.per, key.group, key.start)
    return fleet_key(*name), record
