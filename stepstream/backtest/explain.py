"""Which rules apply to a run, from which policy, and why. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from stepstream.schemas.durations import shorten_durations
from stepstream.schemas.guardrails import Guardrail
from stepstream.schemas.policy import Policy, matching_policies
from stepstream.schemas.policy_match import Match
from stepstream.schemas.rule_base import RuleBase
from stepstream.schemas.rules import default_rules

Owner = tuple[str, str, str, str, str]
"""Project, environment, agent, agent version and task of a run."""


@dataclass(frozen=True)
class Explained:
    """A rule and whether it applies to the run."""

    rule: str
    alert: str
    policy: str
    """Empty for a rule that needs no policy."""
    applies: bool
    action: str
    """What is done to the run; empty where the policy only observes."""
    limits: str
    """The rule's own fields that differ from their defaults."""
    why: str


def explained(policies: Iterable[Policy], owner: Owner) -> list[Explained]:
    """Every rule that applies to runs of the owner, and those that do not although a policy that
    matches or a default names them; then the policies that do not match.
    """
    policies = sorted(policies, key=lambda policy: policy.name)
    matching = matching_policies(policies, owner)
    namers: dict[str, list[str]] = {}
    for policy in matching:
        for rule in policy.rules:
            namers.setdefault(rule.rule, []).append(policy.name)
    rows = [_default(rule, namers.get(rule.rule, [])) for rule in _all_defaults()]
    for policy in matching:
        rows += [_of_policy(rule, policy) for rule in policy.rules]
        rows += [_of_guardrail(guardrail, policy) for guardrail in policy.guardrails]
    names = {policy.name for policy in matching}
    rows += [_not_matching(policy, owner) for policy in policies if policy.name not in names]
    # A stable sort: within those that apply, rules stay in the order of their policies.
    return sorted(rows, key=lambda row: not row.applies)


def _all_defaults() -> tuple[RuleBase, ...]:
    return (*default_rules("run"), *default_rules("window"))


def _default(rule: RuleBase, replaced_by: list[str]) -> Explained:
    why = "on without a policy"
    if replaced_by:
        why = f"replaced by policy {', '.join(replaced_by)}"
    return Explained(rule.rule, rule.alert_name, "", not replaced_by, "", "", why)


def _of_policy(rule: RuleBase, policy: Policy) -> Explained:
    if not rule.enabled:
        why = "enabled: false in the policy"
    else:
        why = f"the policy matches: {_matched(policy.match)}"
    enforced = policy.mode == "enforce" and rule.action != "none"
    return Explained(
        rule.rule,
        rule.alert_name,
        policy.name,
        rule.enabled,
        rule.action if enforced and rule.enabled else "",
        _limits(rule),
        why,
    )


def _of_guardrail(guardrail: Guardrail, policy: Policy) -> Explained:
    why = f"the policy matches: {_matched(policy.match)}"
    data = guardrail.model_dump(mode="json", exclude_defaults=True)
    left_out = {"name", "check", "action", "schema", "enabled"}
    limits = ", ".join(f"{name}={value}" for name, value in data.items() if name not in left_out)
    usual = {"forbidden": "refuse", "approval": "suspend"}
    action = usual.get(guardrail.check) or str(getattr(guardrail, "action", ""))
    acts = policy.mode == "enforce" and guardrail.enabled
    return Explained(
        f"guardrail {guardrail.check}",
        guardrail.name,
        policy.name,
        guardrail.enabled,
        action if acts else "",
        limits,
        why if guardrail.enabled else "enabled: false in the policy",
    )


def _not_matching(policy: Policy, owner: Owner) -> Explained:
    given = dict(zip(Match.model_fields, owner, strict=True))
    wrong = [
        f"{name} is {given[name] or 'empty'}, it wants {pattern}"
        for name, pattern in policy.match.model_dump().items()
        # Each field alone, so that a policy that differs in two of them names both.
        if not Match.model_validate({name: pattern}).matches(**given)
    ]
    return Explained("", "", policy.name, False, "", "", f"does not match: {'; '.join(wrong)}")


def _matched(match: Match) -> str:
    given = match.model_dump(exclude_defaults=True)
    return ", ".join(f"{name} {pattern}" for name, pattern in given.items()) or "every run"


def _limits(rule: RuleBase) -> str:
    common = set(RuleBase.model_fields)
    own = shorten_durations(rule.model_dump(mode="json", exclude_defaults=True))
    return ", ".join(f"{name}={value}" for name, value in own.items() if name not in common)
