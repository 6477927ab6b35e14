"""Policies: documents that choose the rules for runs, and the rules' limits.

A policy matches runs; each of its rules is one alert. Rules that need no limit apply to every run
without any policy (``rules.default_rules``). A policy that names such a rule replaces it for the
runs that the policy matches; ``enabled: false`` turns it off for them.
"""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Literal, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from stepstream.schemas.policy_tests import PolicyTest
from stepstream.schemas.rule_base import Glob
from stepstream.schemas.rules import AnyRule


class HasMatch(Protocol):
    """A document about the runs that match it."""

    @property
    def match(self) -> Match: ...


_Matching = TypeVar("_Matching", bound=HasMatch)


class Match(BaseModel):
    """A filter of runs: every field that is given must match."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    project: Glob = "*"
    environment: Glob = "*"
    agent: Glob = "*"
    agent_version: Glob = "*"
    task: Glob = "*"

    def matches(
        self, *, project: str, environment: str, agent: str, agent_version: str, task: str
    ) -> bool:
        """Whether a run with these fields is matched."""
        # fnmatchcase, because fnmatch depends on the operating system's file names.
        return (
            fnmatchcase(project, self.project)
            and fnmatchcase(environment, self.environment)
            and fnmatchcase(agent, self.agent)
            and fnmatchcase(agent_version, self.agent_version)
            and fnmatchcase(task, self.task)
        )

    def matches_release(self, agent: str, version: str) -> bool:
        """Whether runs of that agent and version can be matched."""
        return fnmatchcase(agent, self.agent) and fnmatchcase(version, self.agent_version)


class PromotionRule(BaseModel):
    """What has to be passed before a release of the agent gets a label."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    gate: str = Field(
        pattern=r"^[a-z0-9][a-z0-9_.-]*$", description="name of the promotion gate that has to pass"
    )
    labels: tuple[str, ...] = Field(
        ("production",), min_length=1, description="labels that it is required for"
    )


class Policy(BaseModel):
    """Rules for the runs that match.

    ``observe`` only reports; ``enforce`` also sends the rules' actions to the run.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["Policy"] = "Policy"
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$")
    match: Match = Match()
    mode: Literal["observe", "enforce"] = "observe"
    revision: int = Field(
        0, ge=0, description="given by `stepstream apply`, one more for each change; not in files"
    )
    rules: tuple[AnyRule, ...] = ()
    tests: tuple[PolicyTest, ...] = Field((), description="run by `stepstream policy test`")
    promotion: PromotionRule | None = Field(
        None, description="a gate for releases of the agents that match"
    )

    @model_validator(mode="after")
    def _alerts_are_distinct(self) -> Policy:
        # A run's findings are kept by alert name: two rules with one name would hide each other's.
        names = [rule.alert_name for rule in self.rules]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(
                f"two rules share the alert name {', '.join(twice)}: give each its own 'alert'"
            )
        return self


def matching_policies(
    policies: Iterable[_Matching], owner: tuple[str, str, str, str, str]
) -> list[_Matching]:
    """The policies, or other documents about runs, that match an owner.

    The owner is project, environment, agent, agent version and task.
    """
    project, environment, agent, agent_version, task = owner
    return [
        policy
        for policy in policies
        if policy.match.matches(
            project=project,
            environment=environment,
            agent=agent,
            agent_version=agent_version,
            task=task,
        )
    ]
