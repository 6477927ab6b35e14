"""Budgets of calendar windows: what was spent, compared with a limit at each record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field

from stepstream.schemas.calendar import Window, check_zone
from stepstream.schemas.money import amount_nanos
from stepstream.schemas.rule_base import Limit, WindowRuleBase
from stepstream.schemas.rules import detector_for
from stepstream.stream.usage.windows.records import Owner

Zone = Annotated[str, AfterValidator(check_zone), Field(description="IANA name")]
Share = Annotated[float, Field(gt=0, lt=1)]


class Spend(WindowRuleBase):
    """More was spent in a calendar window than a limit; warns at a share of it."""

    fires_when = "more was spent in a calendar window than the limit, or warn_at of it"
    usual_severity = "error; warning for warn_at"

    rule: Literal["spend"]
    per: Literal["project", "environment", "agent", "agent_version", "task", "user_id"] = "project"
    window: Window = "day"
    timezone: Zone = "UTC"
    limit_usd: Limit
    warn_at: Share | None = 0.8


@detector_for(Spend)
@dataclass(frozen=True, slots=True)
class Budget:
    """A spend rule, ready to be compared with."""

    rule: Spend
    policy: str
    limit_nanos: int
    warn_nanos: int
    """0: no warning is wanted."""

    @classmethod
    def of(cls, rule: Spend, policy: str) -> Budget:
        """The budget of a policy's rule."""
        limit = amount_nanos(rule.limit_usd)
        return cls(rule, policy, limit, int(limit * rule.warn_at) if rule.warn_at else 0)

    @property
    def key(self) -> tuple[str, str, str, str, str]:
        """Budgets with equal keys have equal totals, whatever their limits are."""
        rule = self.rule
        return (self.policy, rule.alert_name, rule.per, rule.window, rule.timezone)

    def group(self, owner: Owner, user_id: str) -> str:
        """For which of those that it limits an owner's spending counts."""
        place = _PLACES.get(self.rule.per)
        # The user's place in an owner is empty except in windows of single users.
        return user_id if place is None else owner[place]


_PLACES: Final = {"project": 0, "environment": 1, "agent": 2, "agent_version": 3, "task": 4}
