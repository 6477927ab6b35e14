"""Policies: documents that choose the rules for runs, and the rules' limits.

A policy matches runs; each of its rules is one alert. Rules that need no limit apply to every run
without any policy (``rules.default_rules``). A policy that names such a rule replaces it for the
runs that the policy matches; ``enabled: false`` turns it off for them. Its guardrails are evaluated
in the agent, before a step begins.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from stepstream.schemas.guardrails import MAX_GUARDRAILS, GuardedPolicy, Guardrail
from stepstream.schemas.policy_match import Match
from stepstream.schemas.policy_tests import PolicyTest
from stepstream.schemas.rules import AnyRule


class HasMatch(Protocol):
    """A document about the runs that match it."""

    @property
    def match(self) -> Match: ...


_Matching = TypeVar("_Matching", bound=HasMatch)


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
    guardrails: tuple[Guardrail, ...] = Field(
        (),
        max_length=MAX_GUARDRAILS,
        description="evaluated in the agent, before a tool or model is called",
    )
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

    @model_validator(mode="after")
    def _guardrails_have_distinct_names(self) -> Policy:
        names = [guardrail.name for guardrail in self.guardrails]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two guardrails share the name {', '.join(twice)}")
        return self

    @property
    def guarded(self) -> GuardedPolicy | None:
        """The part that agents read; None without guardrails."""
        if not self.guardrails:
            return None
        return GuardedPolicy(
            name=self.name,
            match=self.match,
            mode=self.mode,
            revision=self.revision,
            guardrails=self.guardrails,
        )


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
