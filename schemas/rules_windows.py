"""Rules about many runs, judged over windows of time: budgets, spikes, objectives, silence, a version against the old one."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, model_validator

from stepstream.schemas.calendar import Window, check_zone
from stepstream.schemas.durations import DurationUs
from stepstream.schemas.rule_base import Dollars, Limit, Positive, RuleBase
from stepstream.schemas.times import DAY_US, HOUR_US

Zone = Annotated[str, AfterValidator(check_zone), Field(description="IANA name")]
Share = Annotated[float, Field(gt=0, lt=1)]


class WindowRuleBase(RuleBase):
    """What rules over windows have in common."""

    @model_validator(mode="after")
    def _orders_nothing(self) -> WindowRuleBase:
        if self.action != "none":
            raise ValueError(
                "a rule over windows only reports: it concerns no single run that could be stopped"
            )
        return self


class Spend(WindowRuleBase):
    """More was spent in a calendar window than a limit; warns at a share of it."""

    rule: Literal["spend"]
    per: Literal["project", "environment", "agent", "agent_version", "task", "user_id"] = "project"
    window: Window = "day"
    timezone: Zone = "UTC"
    limit_usd: Limit
    warn_at: Share | None = 0.8


class SpendSpike(WindowRuleBase):
    """An hour costs far more than this agent's hours usually do, day and week cycle considered."""

    rule: Literal["spend_spike"]
    factor: float = Field(
        3.0, ge=1.5, description="less than this many times the usual is never a spike"
    )
    min_usd: Dollars = Field(Decimal("0.1"), gt=0, description="nor is an hour that cost less")


class Slo(WindowRuleBase):
    """An objective for the share of good runs, and the window that its error budget is for."""

    objective: Share
    window: DurationUs = 30 * DAY_US
    min_runs: Positive = Field(20, description="fewer runs in a window say nothing")


class ErrorSlo(Slo):
    """Runs fail (error, or never ended) faster than the objective's error budget allows."""

    rule: Literal["error_slo"]


class LatencySlo(Slo):
    """Runs take longer than a limit more often than the objective allows."""

    rule: Literal["latency_slo"]
    limit: DurationUs


class SuccessDrop(WindowRuleBase):
    """Runs fail far more often than they used to."""

    rule: Literal["success_drop"]
    window: DurationUs = HOUR_US
    min_runs: Positive = Field(100, description="earlier runs needed to know what is usual")


class Silence(WindowRuleBase):
    """Nothing at all comes from an agent at a time when something always did."""

    rule: Literal["silence"]
    after: DurationUs = Field(900_000_000, description="a shorter silence is none")


class VersionWorse(WindowRuleBase):
    """A new version of an agent fails more often, or costs more per run, than the one before it."""

    rule: Literal["version_worse"]
    min_runs: Positive = Field(30, description="runs that each version needs")


DEFAULT_WINDOW_RULES: Final[tuple[WindowRuleBase, ...]] = (
    SpendSpike(rule="spend_spike"),
    SuccessDrop(rule="success_drop"),
    Silence(rule="silence"),
    VersionWorse(rule="version_worse"),
)
"""What is on for every agent: rules that need no limit, and say nothing before they have learnt what is usual."""
