"""Policies: documents that say which rules apply to which runs, with which limits.

A policy matches runs; each of its rules is one alert. Rules that need no limit are on for every run without any policy
(``DEFAULT_RULES``); a policy that names such a rule replaces it for the runs it matches, ``enabled: false`` turns it off.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from stepstream.schemas.alert import Severity
from stepstream.schemas.durations import DurationUs
from stepstream.schemas.step import Usd

Glob = Annotated[str, Field(description="exact text, or a pattern with * and ?")]
Positive = Annotated[int, Field(gt=0)]


class Match(BaseModel):
    """Which runs: every field that is given must match."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    project: Glob = "*"
    environment: Glob = "*"
    agent: Glob = "*"
    agent_version: Glob = "*"
    task: Glob = "*"

    def matches(self, *, project: str, environment: str, agent: str, agent_version: str, task: str) -> bool:
        """Whether a run with these fields is meant."""
        return (
            fnmatchcase(project, self.project)
            and fnmatchcase(environment, self.environment)
            and fnmatchcase(agent, self.agent)
            and fnmatchcase(agent_version, self.agent_version)
            and fnmatchcase(task, self.task)
        )


class _Rule(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    alert: str = Field("", pattern=r"^[a-z0-9][a-z0-9_.-]*$|^$", description="the alert's name; default: the rule's")
    enabled: bool = True
    severity: Severity | None = Field(None, description="default: by consequence")
    action: Literal["none", "warn", "pause", "stop"] = Field("none", description="ordered only in mode enforce")

    @property
    def alert_name(self) -> str:
        return self.alert or str(self.rule).replace("_", "-")  # type: ignore[attr-defined]


class RunCost(_Rule):
    """The run has cost more than a limit."""

    rule: Literal["run_cost"]
    limit_usd: Usd = Field(gt=0, strict=False)
    warn_usd: Usd | None = Field(None, gt=0, strict=False)

    @model_validator(mode="after")
    def _warn_is_lower(self) -> RunCost:
        if self.warn_usd is not None and self.warn_usd >= self.limit_usd:
            raise ValueError("warn_usd must be lower than limit_usd")
        return self


class RunTokens(_Rule):
    """The run has used more tokens, input and output together, than a limit."""

    rule: Literal["run_tokens"]
    limit: Positive


class RunSteps(_Rule):
    """The run has taken more steps than a limit."""

    rule: Literal["run_steps"]
    limit: Positive


class RunDuration(_Rule):
    """The run is still going after a limit of time, or took longer."""

    rule: Literal["run_duration"]
    limit: DurationUs


class StepDuration(_Rule):
    """A step, of one kind, tool or model, is still going after a limit of time, or took longer."""

    rule: Literal["step_duration"]
    limit: DurationUs
    kind: Glob = "*"
    tool: Glob = "*"
    model: Glob = "*"


class HungStep(_Rule):
    """A step was started and does not end while nothing else happens in the run."""

    rule: Literal["hung_step"]
    after: DurationUs = 300_000_000


class StuckRun(_Rule):
    """The root is open and nothing has happened for a while."""

    rule: Literal["stuck_run"]
    after: DurationUs = 1_800_000_000


class Loop(_Rule):
    """The same tool or model is called again and again with the same input."""

    rule: Literal["loop"]
    repeats: Annotated[int, Field(ge=3)] = 4


class ToolErrorIgnored(_Rule):
    """A tool failed, nothing retried or replaced it, and the run went on."""

    rule: Literal["tool_error_ignored"]


class UnpricedModel(_Rule):
    """A step used tokens of a model whose price is unknown: the run's cost is not the whole truth."""

    rule: Literal["unpriced_model"]


Rule = Annotated[
    RunCost | RunTokens | RunSteps | RunDuration | StepDuration | HungStep | StuckRun | Loop | ToolErrorIgnored | UnpricedModel,
    Field(discriminator="rule"),
]

DEFAULT_RULES: Final[tuple[Rule, ...]] = (
    HungStep(rule="hung_step"),
    StuckRun(rule="stuck_run"),
    Loop(rule="loop"),
    ToolErrorIgnored(rule="tool_error_ignored"),
    UnpricedModel(rule="unpriced_model"),
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
            raise ValueError(f"two rules share the alert name {', '.join(twice)}: give each its own 'alert'")
        return self
