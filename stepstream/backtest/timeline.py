"""Which policies were in force when, from their revisions. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from stepstream.schemas.criteria import Criteria
from stepstream.schemas.policy import Policy


@dataclass(frozen=True)
class PolicyChange:
    """A policy was applied, changed or deleted."""

    at_us: int
    name: str
    policy: Policy | None
    """None: it was deleted."""


@dataclass(frozen=True)
class Timeline:
    """The policies in force at each time, and the criteria."""

    policies: tuple[Policy, ...] = ()
    """Those at the beginning."""
    changes: tuple[PolicyChange, ...] = ()
    """In the order of their times."""
    criteria: tuple[Criteria, ...] = ()
    """Their revisions are not kept: those in force now stand for the whole time."""

    def between(self, since_us: int, until_us: int) -> Timeline:
        """The same for a part of the time."""
        before = [change for change in self.changes if change.at_us <= since_us]
        return Timeline(
            changed(self.policies, before),
            tuple(change for change in self.changes if since_us < change.at_us < until_us),
            self.criteria,
        )

    def replaced(self, given: Iterable[Policy]) -> Timeline:
        """The same with the given policies all the time, added or in the place of those of their
        name.
        """
        given = tuple(given)
        names = {policy.name for policy in given}
        kept = tuple(policy for policy in self.policies if policy.name not in names)
        changes = tuple(change for change in self.changes if change.name not in names)
        return replace(self, policies=(*kept, *given), changes=changes)


def changed(policies: Iterable[Policy], changes: Iterable[PolicyChange]) -> tuple[Policy, ...]:
    """The policies in force after changes to those before."""
    by_name = {policy.name: policy for policy in policies}
    for change in changes:
        if change.policy is None:
            by_name.pop(change.name, None)
        else:
            by_name[change.name] = change.policy
    return tuple(by_name.values())
