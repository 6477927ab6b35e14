"""Rules that judge a run by what is normal for its agent and task. They say nothing until enough runs were learnt from."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Literal

from pydantic import Field

from stepstream.schemas.durations import DurationUs
from stepstream.schemas.rule_base import Dollars, Positive, RuleBase

Share = Literal["p75", "p80", "p90", "p95", "p99"]


class SpikeRule(RuleBase):
    """A run has used more than ``factor`` times what half of the runs use, and more than most runs use at all."""

    above: Share = Field(
        "p80", description="and more than this share of runs; p99: at most one run in a hundred"
    )
    factor: Annotated[float, Field(gt=1, le=1_000, strict=False)] = Field(
        3.0, description="times the median of other runs"
    )
    min_runs: Annotated[int, Field(ge=10)] = Field(
        30, description="runs to learn from first; the task's, else the agent's, else the project's"
    )


class RunCostSpike(SpikeRule):
    """The run costs far more than runs of its agent and task usually do."""

    rule: Literal["run_cost_spike"]
    at_least_usd: Dollars = Field(
        Decimal("0.01"), description="what costs no more is never a spike"
    )


class RunTokensSpike(SpikeRule):
    """The run uses far more tokens than usual."""

    rule: Literal["run_tokens_spike"]
    at_least: Positive = 10_000


class RunStepsSpike(SpikeRule):
    """The run takes far more steps than usual."""

    rule: Literal["run_steps_spike"]
    at_least: Positive = 10


class RunDurationSpike(SpikeRule):
    """The run takes far longer than usual."""

    rule: Literal["run_duration_spike"]
    at_least: DurationUs = 10_000_000
