"""Which window rules apply to an owner.

Those of the policies that match it, and those that are on by default.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from stepstream.schemas.policy import Policy, matching_policies
from stepstream.schemas.rule_base import RuleBase
from stepstream.schemas.rules import default_rules
from stepstream.stream.usage.detectors.spend import Budget, Spend
from stepstream.stream.usage.windows.records import Owner

KEEP_OWNERS: Final = 50_000


@dataclass(frozen=True, slots=True)
class AppliedWindow:
    """A window rule as it applies: whose policy asked."""

    rule: RuleBase
    policy: str = ""

    @property
    def alert(self) -> str:
        """What its alerts are called."""
        return self.rule.alert_name


@dataclass(frozen=True, slots=True)
class OwnerRules:
    """The rules of one owner."""

    budgets: tuple[Budget, ...]
    evaluated: tuple[AppliedWindow, ...]
    by_user: bool
    """Whether windows of its single users are kept."""


class WindowRules:
    """The window rules in force. Immutable; changed policies make new ones."""

    def __init__(self, policies: Iterable[Policy] = ()) -> None:
        self._policies = tuple(sorted(policies, key=lambda policy: policy.name))
        self._by_owner: dict[Owner, OwnerRules] = {}
        self.revisions = {policy.name: policy.revision for policy in self._policies}
        """The revision of each policy, by its name."""

    def of(self, owner: Owner) -> OwnerRules:
        """The rules for an owner, whatever its user."""
        found = self._by_owner.get(owner)
        if found is None:
            if len(self._by_owner) >= KEEP_OWNERS:
                # A cache only: matching an owner again costs less than keeping every owner that
                # ever was.
                self._by_owner.clear()
            found = self._by_owner[owner] = self._match(owner)
        return found

    def _match(self, owner: Owner) -> OwnerRules:
        matching = matching_policies(self._policies, owner[:5])
        asked = [
            (policy.name, r) for policy in matching for r in policy.rules if r.scope == "window"
        ]
        # A policy replaces a default rule, also where it turns it off.
        named = {rule.rule for _, rule in asked}
        evaluated = [
            AppliedWindow(rule) for rule in default_rules("window") if rule.rule not in named
        ]
        budgets = []
        for name, rule in asked:
            if rule.enabled and isinstance(rule, Spend):
                budgets.append(Budget.of(rule, name))
            elif rule.enabled:
                evaluated.append(AppliedWindow(rule, name))
        return OwnerRules(
            tuple(budgets),
            tuple(evaluated),
            any(budget.rule.per == "user_id" for budget in budgets),
        )
