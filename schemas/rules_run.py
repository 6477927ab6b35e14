"""Rules about one run that need no contents and no baseline: budgets, time limits, behaviour."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from stepstream.schemas.durations import DurationUs
from stepstream.schemas.rule_base import Glob, Limit, Positive, RuleBase


class RunCost(RuleBase):
    """The run has cost more than a limit."""

    rule: Literal["run_cost"]
    limit_usd: Limit
    warn_usd: Limit | None = None

    @model_validator(mode="after")
    def _warn_is_lower(self) -> RunCost:
        if self.warn_usd is not None and self.warn_usd >= self.limit_usd:
            raise ValueError("warn_usd must be lower than limit_usd")
        return self


class RunTokens(RuleBase):
    """The run has used more tokens, input and output together, than a limit."""

    rule: Literal["run_tokens"]
    limit: Positive


class RunSteps(RuleBase):
    """The run has taken more steps than a limit."""

    rule: Literal["run_steps"]
    limit: Positive


class RunDuration(RuleBase):
    """The run is still going after a limit of time, or took longer."""

    rule: Literal["run_duration"]
    limit: DurationUs


class StepDuration(RuleBase):
    """A step, of one kind, tool or model, is still going after a limit of time, or took longer."""

    rule: Literal["step_duration"]
    limit: DurationUs
    kind: Glob = "*"
    tool: Glob = "*"
    model: Glob = "*"


class HungStep(RuleBase):
    """A step was started and does not end while nothing else happens in the run."""

    rule: Literal["hung_step"]
    after: DurationUs = 300_000_000


class StuckRun(RuleBase):
    """The root is open and nothing has happened for a while."""

    rule: Literal["stuck_run"]
    after: DurationUs = 1_800_000_000


class Loop(RuleBase):
    """The same tool or model is called again and again with the same input."""

    rule: Literal["loop"]
    repeats: Annotated[int, Field(ge=3)] = 4


class ToolErrorIgnored(RuleBase):
    """A tool failed, no later call made up for it, nobody was told of it, and the run went on to a successful end."""

    rule: Literal["tool_error_ignored"]


class ToolErrorRecovered(RuleBase):
    """A tool failed and the run made up for it, or spoke of it: noted, no alert unless a severity is given."""

    rule: Literal["tool_error_recovered"]


class UnpricedModel(RuleBase):
    """A step's cost is unknown: no price is known for what it used; or, a note, a model call named no usage."""

    rule: Literal["unpriced_model"]
