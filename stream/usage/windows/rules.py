"""Which window rules judge an owner: policies matched against whose runs they are, over the rules that are always on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from stepstream.schemas.money import amount_nanos
from stepstream.schemas.policy import Policy
from stepstream.schemas.rules_windows import DEFAULT_WINDOW_RULES, Spend, WindowRuleBase
from stepstream.stream.usage.windows.records import Owner

KEEP_OWNERS: Final = 50_000


@dataclass(frozen=True, slots=True)
class AppliedWindow:
    """A window rule as it applies: whose policy asked."""

    rule: WindowRuleBase
    policy: str = ""

    @property
    def alert(self) -> str:
        """What its alerts are called."""
        return self.rule.alert_name


@dataclass(frozen=True, slots=True)
class Budget:
    """A spend rule, ready to be compared with."""

    rule: Spend
    policy: str
    limit_nanos: int
    warn_nanos: int
    """0: no warning is wanted."""

    @property
    def key(self) -> tuple[str, str, str, str, str]:
        """Budgets with equal keys have equal totals, whatever their limits are."""
        rule = self.rule
        return (self.policy, rule.alert_name, rule.per, rule.window, rule.timezone)

    def group(self, owner: Owner, user_id: str) -> str:
        """For which of those that it limits an owner's spending counts."""
        place = _PLACES.get(self.rule.per)
        return user_id if place is None else owner[place]


_PLACES: Final = {"project": 0, "environment": 1, "agent": 2, "agent_version": 3, "task": 4}


@dataclass(frozen=True, slots=True)
class OwnerRules:
    """What judges one owner."""

    budgets: tuple[Budget, ...]
    judged: tuple[AppliedWindow, ...]
    by_user: bool
    """Whether windows of its single users are kept."""


class WindowRules:
    """The window rules in force. Immutable; changed policies make new ones."""

    def __init__(self, policies: Iterable[Policy] = ()) -> None:
        self._policies = tuple(sorted(policies, key=lambda policy: policy.name))
        self._by_owner: dict[Owner, OwnerRules] = {}

    def of(self, owner: Owner) -> OwnerRules:
        """The rules for an owner, whatever its user."""
        found = self._by_owner.get(owner)
        if found is None:
            if len(self._by_owner) >= KEEP_OWNERS:
                self._by_owner.clear()
            found = self._by_owner[owner] = self._match(owner)
        return found

    def _match(self, owner: Owner) -> OwnerRules:
        project, environment, agent, agent_version, task, _ = owner
        matching = [
            policy
            for policy in self._policies
            if policy.match.matches(
                project=project,
                environment=environment,
                agent=agent,
                agent_version=agent_version,
                task=task,
            )
        ]
        asked = [
            (policy.name, r)
            for policy in matching
            for r in policy.rules
            if isinstance(r, WindowRuleBase)
        ]
        named = {type(rule) for _, rule in asked}
        judged = [AppliedWindow(rule) for rule in DEFAULT_WINDOW_RULES if type(rule) not in named]
        budgets = []
        for name, rule in asked:
            if rule.enabled and isinstance(rule, Spend):
                budgets.append(_budget(rule, name))
            elif rule.enabled:
                judged.append(AppliedWindow(rule, name))
        return OwnerRules(
            tuple(budgets), tuple(judged), any(budget.rule.per == "user_id" for budget in budgets)
        )


def _budget(rule: Spend, policy: str) -> Budget:
    limit = amount_nanos(rule.limit_usd)
    return Budget(rule, policy, limit, int(limit * rule.warn_at) if rule.warn_at else 0)
