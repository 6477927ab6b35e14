"""The rules of a run: those of the policies that match its owner, and the default rules that no
such policy replaces.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from stepstream.schemas.policy import Policy, matching_policies
from stepstream.schemas.policy_match import Match
from stepstream.schemas.rule_base import RuleBase
from stepstream.schemas.rules import RULES, default_rules, rule_from
from stepstream.stream.run.steps import StepInfo

log = logging.getLogger("stepstream.worker")


@dataclass(frozen=True, slots=True)
class Applied:
    """A rule as it applies to a run: the policy that it is from, and whether its action may be
    taken.
    """

    rule: RuleBase
    policy: str = ""
    enforce: bool = False
    revision: int = 0
    """The policy's revision."""
    own_key: str = ""

    @property
    def key(self) -> str:
        """What its state in a run is kept by: the alert's name, unless another rule has it."""
        return self.own_key or self.rule.alert_name


@dataclass(frozen=True, slots=True)
class Further:
    """A rule of a document that is no policy, for the runs that match it."""

    match: Match
    applied: Applied


class RuleSet:
    """Rules with the detectors made for them, shared by all runs that the rules apply to.

    ``pinned`` is the set as text, kept in a run's state so that the same rules apply after a
    restart; empty for the default rules alone.
    """

    __slots__ = (
        "_observers",
        "_readers",
        "applied",
        "deciding",
        "detectors",
        "observing",
        "pinned",
        "timers",
        "wanted_runs",
    )

    def __init__(self, applied: tuple[Applied, ...], make: Callable[[Applied], Any]) -> None:
        self.applied = applied
        self.detectors = tuple(
            detector
            for item in with_distinct_keys(applied)
            if (detector := _made(item, make)) is not None
        )
        self.observing = tuple(detector for detector in self.detectors if detector.follows_steps)
        self.deciding = tuple(d for d in self.detectors if getattr(d, "decides_success", False))
        """The detectors that decide whether a run is a success."""
        self.timers = tuple(detector for detector in self.detectors if detector.has_timer)
        self.wanted_runs: int = max(
            (detector.wanted_runs for detector in self.detectors), default=0
        )
        self._observers: dict[tuple[bool, str], tuple[Any, ...]] = {}
        self._readers: dict[str, tuple[Any, ...]] = {}
        self.pinned = "" if applied == default_applied() else _to_text(applied)

    def observers(self, step: StepInfo) -> tuple[Any, ...]:
        """The detectors to call for a step in a run without findings so far."""
        key = (step.ended, step.kind)
        found = self._observers.get(key)
        if found is None:
            found = self._observers[key] = tuple(
                d for d in self.observing if d.wants_step(step.kind, ended=step.ended)
            )
        return found

    def readers(self, kind: str) -> tuple[Any, ...]:
        """The detectors that read the contents of steps of a kind."""
        found = self._readers.get(kind)
        if found is None:
            found = self._readers[kind] = tuple(
                d for d in self.detectors if d.reads_contents and d.wants_content(kind)
            )
        return found


def with_distinct_keys(applied: Iterable[Applied]) -> Iterator[Applied]:
    """The rules, with a key of its own for each.

    Two policies may have rules with the same alert name; with one key each would count what the
    other has seen, and the first to fire would hide the other.
    """
    known: set[str] = set()
    for item in applied:
        name = item.rule.alert_name
        yield replace(item, own_key=f"{name}@{item.policy}") if name in known else item
        known.add(name)


def _made(applied: Applied, make: Callable[[Applied], Any]) -> Any:
    """The detector of a rule; None, with a log line, where it cannot be made, so that one rule does
    not stop every run that it applies to.
    """
    try:
        return make(applied)
    except Exception:
        log.exception(
            "rule %s of policy %s is left out: its detector cannot be made",
            applied.rule.rule,
            applied.policy or "-",
        )
        return None


def default_applied() -> tuple[Applied, ...]:
    """The rules of a run that no policy matches."""
    return tuple(map(Applied, default_rules("run")))


class RuleBook:
    """The policies in force. Immutable: a changed policy makes a new book, and runs keep the rules
    that they began with.
    """

    def __init__(
        self,
        policies: Iterable[Policy],
        make: Callable[[Applied], Any],
        further: Iterable[Further] = (),
    ) -> None:
        self._policies = tuple(sorted(policies, key=lambda policy: policy.name))
        self._further = tuple(sorted(further, key=lambda one: one.applied.policy))
        self._make = make
        self._by_owner: dict[tuple[str, ...], RuleSet] = {}
        self._by_text: dict[str, RuleSet] = {}
        self._default = RuleSet(default_applied(), make)

    def rules_for(
        self, project: str, environment: str, agent: str, agent_version: str, task: str
    ) -> RuleSet:
        """The rules for a run of this owner."""
        if not self._policies and not self._further:
            return self._default
        owner = (project, environment, agent, agent_version, task)
        found = self._by_owner.get(owner)
        if found is None:
            # A project may make up agent names without end: the cache starts anew then.
            if len(self._by_owner) > 10_000:
                self._by_owner.clear()
            found = self._by_owner[owner] = self._match(*owner)
        return found

    def restored(self, pinned: str) -> RuleSet:
        """The rules that a run's state names."""
        if not pinned:
            return self._default
        found = self._by_text.get(pinned)
        if found is None:
            found = self._by_text[pinned] = RuleSet(_from_text(pinned), self._make)
        return found

    def _match(
        self, project: str, environment: str, agent: str, agent_version: str, task: str
    ) -> RuleSet:
        owner = (project, environment, agent, agent_version, task)
        matching = matching_policies(self._policies, owner)
        further = matching_policies(self._further, owner)
        if not matching and not further:
            return self._default
        # A policy that names a rule replaces the default rule of that name.
        named = {rule.rule for policy in matching for rule in policy.rules}
        applied = [item for item in default_applied() if item.rule.rule not in named]
        for policy in matching:
            applied += [
                Applied(rule, policy.name, policy.mode == "enforce", policy.revision)
                for rule in policy.rules
                if rule.enabled and rule.scope == "run"
            ]
        applied += [one.applied for one in further]
        made = RuleSet(tuple(applied), self._make)
        return self._by_text.setdefault(made.pinned, made)


def _to_text(applied: tuple[Applied, ...]) -> str:
    rows = [
        (
            item.policy,
            item.enforce,
            item.rule.model_dump(mode="json", exclude_defaults=True),
            item.revision,
        )
        for item in applied
    ]
    return msgspec.json.encode(rows).decode()


def _from_text(text: str) -> tuple[Applied, ...]:
    return tuple(
        # State records of older workers have no revision.
        Applied(rule_from(rule), policy, enforce, *revision)
        for policy, enforce, rule, *revision in msgspec.json.decode(text.encode())
        if _is_installed(rule, policy)
    )


def _is_installed(rule: dict[str, Any], policy: str) -> bool:
    """Whether a rule of a state is known: the package of its detector may have been removed."""
    name = rule.get("rule")
    if name in RULES:
        return True
    log.warning("rule %s of policy %s is left out for an open run: no such rule", name, policy)
    return False
