"""Policies: documents that say which rules apply to which runs, with which limits.

A policy matches runs; each of its rules is one alert. Rules that need no limit are on for every run without any policy
(``DEFAULT_RULES``); a policy that names such a rule replaces it for the runs it matches, ``enabled: false`` turns it off.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from stepstream.schemas.rule_base import Glob
from stepstream.schemas.rules_content import CONTENT_DEFAULTS, ContentRule
from stepstream.schemas.rules_control import StopIgnored
from stepstream.schemas.rules_run import (
    HungStep,
    Loop,
    RunCost,
    RunDuration,
    RunSteps,
    RunTokens,
    StepDuration,
    StuckRun,
    ToolErrorIgnored,
    ToolErrorRecovered,
    UnpricedModel,
)
from stepstream.schemas.rules_spikes import (
    RunCostSpike,
    RunDurationSpike,
    RunStepsSpike,
    RunTokensSpike,
)
from stepstream.schemas.rules_windows import (
    ErrorSlo,
    LatencySlo,
    Silence,
    Spend,
    SpendSpike,
    SuccessDrop,
    VersionWorse,
)


class Match(BaseModel):
    """Which runs: every field that is given must match."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    project: Glob = "*"
    environment: Glob = "*"
    agent: Glob = "*"
    agent_version: Glob = "*"
    task: Glob = "*"

    def matches(
        self, *, project: str, environment: str, agent: str, agent_version: str, task: str
    ) -> bool:
        """Whether a run with these fields is meant."""
        return (
            fnmatchcase(project, self.project)
            and fnmatchcase(environment, self.environment)
            and fnmatchcase(agent, self.agent)
            and fnmatchcase(agent_version, self.agent_version)
            and fnmatchcase(task, self.task)
        )


Rule = Annotated[
    RunCost
    | RunTokens
    | RunSteps
    | RunDuration
    | StepDuration
    | HungStep
    | StuckRun
    | Loop
    | ToolErrorIgnored
    | ToolErrorRecovered
    | UnpricedModel
    | RunCostSpike
    | RunTokensSpike
    | RunStepsSpike
    | RunDurationSpike
    | Spend
    | SpendSpike
    | ErrorSlo
    | LatencySlo
    | SuccessDrop
    | Silence
    | VersionWorse
    | StopIgnored
    | ContentRule,
    Field(discriminator="rule"),
]

DEFAULT_RULES: Final[tuple[Rule, ...]] = (
    HungStep(rule="hung_step"),
    StuckRun(rule="stuck_run"),
    Loop(rule="loop"),
    ToolErrorIgnored(rule="tool_error_ignored"),
    ToolErrorRecovered(rule="tool_error_recovered"),
    UnpricedModel(rule="unpriced_model"),
    RunCostSpike(rule="run_cost_spike"),
    StopIgnored(rule="stop_ignored"),
    *CONTENT_DEFAULTS,
)
"""What is on for every run: rules that need no limit."""


class Policy(BaseModel):
    """Rules for the runs that match. ``observe`` only reports; ``enforce`` may also order what a rule's action says."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["Policy"] = "Policy"
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$")
    match: Match = Match()
    mode: Literal["observe", "enforce"] = "observe"
    rules: tuple[Rule, ...] = ()

    @model_validator(mode="after")
    def _alerts_are_distinct(self) -> Policy:
        names = [rule.alert_name for rule in self.rules]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(
                f"two rules share the alert name {', '.join(twice)}: give each its own 'alert'"
            )
        return self
