"""Contradictions between the limits of policies, and inside of one. Pure.

A rule contradicts another one where it has no effect on any of its runs because of the other:

- it has an action, and the other one stops the run at a lower limit,
- it has another action than the other one at the same limit,
- it is a budget of a shorter time than the other one, with a higher limit,
- it is turned off, and the other one is applied.

A policy for fewer runs with a lower limit is no contradiction: the higher one has an effect on the
other runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from itertools import combinations
from typing import Any, Final

from stepstream.schemas.durations import shorten_durations
from stepstream.schemas.policy import Policy
from stepstream.schemas.policy_match import Match
from stepstream.schemas.rule_base import RuleBase

# The fields above which rules fire. A rule of an installed package with such a field takes part.
LIMITS: Final = ("limit_usd", "limit", "after", "repeats")
_ACTIONS: Final = ("none", "warn", "pause", "stop")
_LONGER: Final = {"hour": ("day", "month"), "day": ("month",)}
"""The calendar windows that a window is a part of."""


@dataclass(frozen=True)
class RuleRef:
    """A rule of a policy, by its place in the list."""

    policy: Policy
    index: int

    @property
    def rule(self) -> RuleBase:
        return self.policy.rules[self.index]


@dataclass(frozen=True)
class Conflict:
    """Two rules that contradict each other."""

    at: RuleRef
    """The rule that has no effect."""
    other: RuleRef
    why: str
    """A sentence about ``at`` with ``{other}`` in the place of the other rule's name."""


@dataclass(frozen=True)
class _Level:
    """A limit of a rule, and what happens above it."""

    ref: RuleRef
    name: str
    """The name of the field."""
    value: Any
    action: str

    @property
    def shown(self) -> str:
        dumped = self.ref.rule.model_dump(mode="json", include={self.name})
        return f"{self.name}: {shorten_durations(dumped)[self.name]}"


def conflicts(policies: Iterable[Policy]) -> list[Conflict]:
    """Every contradiction, by the names of the rules and in the order of the policies."""
    groups: dict[tuple[str, str], list[RuleRef]] = {}
    for policy in policies:
        for index, rule in enumerate(policy.rules):
            key = (rule.rule, _about(rule))
            groups.setdefault(key, []).append(RuleRef(policy, index))
    found = [
        conflict
        for group in groups.values()
        for first, second in combinations(group, 2)
        for conflict in _between(first, second)
        if is_within(conflict.at.policy.match, conflict.other.policy.match)
    ]
    return [*_turned_off(groups), *found]


def _about(rule: RuleBase) -> str:
    """What a rule is about: its own fields, without its limits."""
    left_out = {*RuleBase.model_fields, *LIMITS, "warn_usd", "warn_at", "window"}
    return rule.model_dump_json(exclude=left_out)


def _turned_off(groups: Mapping[tuple[str, str], Sequence[RuleRef]]) -> Iterator[Conflict]:
    by_rule: dict[str, list[RuleRef]] = {}
    for (name, _), refs in groups.items():
        by_rule.setdefault(name, []).extend(refs)
    for refs in by_rule.values():
        enabled = [ref for ref in refs if ref.rule.enabled]
        for off in (ref for ref in refs if not ref.rule.enabled):
            for on in enabled:
                # Within one policy, a rule that is off may stand there for later.
                is_other = on.policy.name != off.policy.name
                if is_other and is_within(off.policy.match, on.policy.match):
                    yield Conflict(off, on, "it is turned off here, and {other} applies it")


def _between(first: RuleRef, second: RuleRef) -> Iterator[Conflict]:
    if not first.rule.enabled or not second.rule.enabled:
        return
    if hasattr(first.rule, "window"):
        yield from _windows(first, second)
        return
    for level in _levels(first):
        for other in _levels(second):
            # A warning and a limit are compared, dollars and repeats are not.
            if level.name == other.name or {level.name, other.name} == {"limit_usd", "warn_usd"}:
                yield from _limits(level, other)


def _levels(ref: RuleRef) -> Iterator[_Level]:
    rule = ref.rule
    action = rule.action if ref.policy.mode == "enforce" else "none"
    for name in LIMITS:
        if (value := getattr(rule, name, None)) is not None:
            yield _Level(ref, name, value, action)
    if (warn := getattr(rule, "warn_usd", None)) is not None:
        # What run_cost does at warn_usd is an alert, whatever its action is.
        yield _Level(ref, "warn_usd", warn, "warn")


def _limits(one: _Level, two: _Level) -> Iterator[Conflict]:
    if "none" in (one.action, two.action):
        return
    low, high = sorted((one, two), key=lambda level: level.value)
    if low.value == high.value:
        low, high = sorted((one, two), key=lambda level: -_ACTIONS.index(level.action))
    if _ACTIONS.index(low.action) > _ACTIONS.index(high.action) or (
        low.action == "stop" and low.value < high.value
    ):
        does = "stops" if low.action == "stop" else "pauses"
        why = f"{high.shown} has no effect: {{other}} {does} the run at {low.shown}"
        yield Conflict(high.ref, low.ref, why)


def _windows(first: RuleRef, second: RuleRef) -> Iterator[Conflict]:
    for short, long in ((first, second), (second, first)):
        one: Any = short.rule
        two: Any = long.rule
        if two.window in _LONGER.get(one.window, ()) and one.limit_usd > two.limit_usd:
            why = (
                f"limit_usd: {one.limit_usd} a {one.window} has no effect: the limit of "
                f"{{other}} is {two.limit_usd} a {two.window}"
            )
            yield Conflict(short, long, why)


# -- patterns --------------------------------------------------------------------------------------


def is_within(one: Match, other: Match) -> bool:
    """Whether every run that ``one`` matches is matched by the other."""
    narrow, wide = one.model_dump(), other.model_dump()
    return all(is_part(narrow[name], wide[name]) for name in narrow)


@lru_cache(maxsize=10_000)
def is_part(narrow: str, wide: str) -> bool:
    """Whether every text that the pattern ``narrow`` matches is matched by ``wide``.

    False in some cases where it is so: ``*?`` and ``?*`` match the same texts.
    """
    parts, tokens = _tokens(narrow), _tokens(wide)
    # Whether the first i parts are within the first j tokens, for every j.
    known = [all(token == "*" for token in tokens[:j]) for j in range(len(tokens) + 1)]
    for part in parts:
        row = [False]
        for j, token in enumerate(tokens):
            if token == "*":
                row.append(known[j + 1] or row[j])
            else:
                row.append(known[j] and _is_part_of_one(part, token))
        known = row
    return known[-1]


def _is_part_of_one(part: str, token: str) -> bool:
    """Whether the characters that a part of a pattern stands for are among those of the other."""
    if part == token:
        return True
    if token == "?":
        return part != "*"
    return len(part) == 1 and part not in "*?" and fnmatchcase(part, token)


def _tokens(pattern: str) -> list[str]:
    """The characters, stars, question marks and sets of a pattern."""
    found: list[str] = []
    place = 0
    while place < len(pattern):
        end = pattern.find("]", place + 2) if pattern[place] == "[" else -1
        found.append(pattern[place : end + 1] if end > 0 else pattern[place])
        place += len(found[-1])
    return found
