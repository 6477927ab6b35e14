"""Evaluates guardrails for one call. Pure: the SDK does what is decided here.

A call passes through the guardrails in the order of the policies' names and of each list. The
first one that refuses it decides; a repair changes the arguments that the following ones see; an
approval is asked for only where none of them refuses the call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import translate
from re import compile as regular_expression
from typing import Any, Final, NamedTuple

from stepstream.schemas.argument_repair import repaired
from stepstream.schemas.expression.compiler import EvaluationError
from stepstream.schemas.guardrails import (
    NO_BUDGET,
    Approval,
    Arguments,
    BudgetLeft,
    Condition,
    Decision,
    Forbidden,
    GuardedPolicy,
    Guardrail,
    compiled,
)

MAX_CACHED: Final = 1_000
"""Owners, and names of calls of an owner, whose guardrails are kept selected."""
MAX_REASON: Final = 300
Labels = Mapping[str, str]


class Unreadable(Exception):
    """The arguments cannot be evaluated, because they are too large or no JSON value."""


@dataclass(slots=True)
class Call:
    """One call as guardrails see it. ``read_args`` gives its arguments as a JSON value, once."""

    kind: str
    name: str
    model: str = ""
    attempt: int = 1
    labels: Labels = field(default_factory=dict)
    read_args: Callable[[], Any] = dict
    read_left: Callable[[], Mapping[str, float]] = dict
    """What is left of the run's budget, by the name of each limit that it has."""
    local: Any = None
    _args: Any = None
    _has_args: bool = False

    @property
    def tool(self) -> str:
        return "" if self.kind == "llm_call" else self.name

    @property
    def args(self) -> Any:
        """The arguments as a JSON value. Raises ``Unreadable``."""
        if not self._has_args:
            self._args, self._has_args = self.read_args(), True
        return self._args

    def repair(self, args: Mapping[str, Any]) -> None:
        """Take other arguments: what the following guardrails see."""
        self._args, self._has_args = args, True

    def label(self, name: str) -> str:
        return self.labels.get(name, "")

    def left(self, what: str) -> float:
        return self.read_left().get(what, NO_BUDGET)


class Bound(NamedTuple):
    """A guardrail and the policy that it is part of."""

    guardrail: Guardrail
    policy: str
    revision: int
    enforces: bool

    @property
    def title(self) -> str:
        return f"{self.policy}/{self.guardrail.name}"


@dataclass(frozen=True, slots=True)
class Made:
    """What one guardrail decided."""

    bound: Bound
    decision: Decision
    would: str
    """What it would have done, where it only observes: refused, repaired or suspended."""
    reason: str
    """Why, without contents of the call."""
    detail: str = ""
    """More of it, which may quote the call's arguments."""


@dataclass(slots=True)
class Verdict:
    """What all guardrails of a call decided together."""

    made: list[Made] = field(default_factory=list)
    refused: Made | None = None
    suspended: list[Made] = field(default_factory=list)
    changes: dict[str, Any] = field(default_factory=dict)
    """Arguments to set."""
    dropped: set[str] = field(default_factory=set)
    """Arguments to leave out."""

    @property
    def repairs(self) -> bool:
        return bool(self.changes or self.dropped)


class GuardrailBook:
    """The guardrails in force, selected by the run's labels and the call's name."""

    def __init__(self, policies: Iterable[GuardedPolicy]) -> None:
        self.policies = tuple(sorted(policies, key=lambda policy: policy.name))
        self._by_owner: dict[tuple[str, ...], Selection] = {}

    @property
    def count(self) -> int:
        return sum(len(policy.guardrails) for policy in self.policies)

    def of(self, kind: str, name: str, model: str, labels: Labels) -> Sequence[Bound]:
        """The guardrails for a call of such a run."""
        return self.selection(labels).of(kind, model if kind == "llm_call" else name)

    def selection(self, labels: Labels) -> Selection:
        """The guardrails for all calls of such a run."""
        owner = (
            labels.get("project", ""),
            labels.get("environment", ""),
            labels.get("agent", ""),
            labels.get("agent_version", ""),
            labels.get("task", ""),
        )
        selection = self._by_owner.get(owner)
        if selection is None:
            # Tasks and tool names come from programs: nothing here grows without a bound.
            if len(self._by_owner) >= MAX_CACHED:
                self._by_owner = {}
            selection = self._by_owner[owner] = Selection(self, self._matching(owner))
        return selection

    def _matching(self, owner: tuple[str, ...]) -> list[Bound]:
        project, environment, agent, agent_version, task = owner
        return [
            Bound(guardrail, policy.name, policy.revision, policy.mode == "enforce")
            for policy in self.policies
            if policy.match.matches(
                project=project,
                environment=environment,
                agent=agent,
                agent_version=agent_version,
                task=task,
            )
            for guardrail in policy.guardrails
            if guardrail.enabled
        ]


class Selection:
    """The guardrails of one owner, by kind and name of the call. ``book`` is what it is from."""

    def __init__(self, book: GuardrailBook, bounds: list[Bound]) -> None:
        self.book = book
        self._bounds = bounds
        self._by_call: dict[tuple[str, str], tuple[Bound, ...]] = {}

    def of(self, kind: str, name: str) -> tuple[Bound, ...]:
        found = self._by_call.get((kind, name))
        if found is None:
            if len(self._by_call) >= MAX_CACHED:
                self._by_call = {}
            found = tuple(one for one in self._bounds if _is_for(one.guardrail, kind, name))
            self._by_call[kind, name] = found
        return found


def _is_for(guardrail: Guardrail, kind: str, name: str) -> bool:
    if not guardrail.tools and not guardrail.models:
        return True
    patterns = guardrail.models if kind == "llm_call" else guardrail.tools
    return any(regular_expression(translate(pattern)).match(name) for pattern in patterns)


def evaluate(bounds: Sequence[Bound], call: Call) -> Verdict:
    """What the guardrails decide about the call. Raises nothing."""
    verdict = Verdict()
    for bound in bounds:
        try:
            made = _CHECKS[type(bound.guardrail)](bound, call, verdict)
        except Exception as error:
            made = _failed(bound, error)
        if made is None:
            continue
        verdict.made.append(made)
        if made.decision == "suspended":
            verdict.suspended.append(made)
        if made.decision == "refused" or (
            made.decision == "failed" and bound.enforces and bound.guardrail.on_failure == "refuse"
        ):
            verdict.refused = made
            verdict.suspended.clear()
            break
    return verdict


def refused_by_failure(bounds: Sequence[Bound], error: Exception) -> Verdict | None:
    """The refusal of a call whose evaluation failed as a whole; None if no guardrail wants it."""
    for bound in bounds:
        if bound.enforces and bound.guardrail.on_failure == "refuse":
            made = _failed(bound, error)
            return Verdict([made], refused=made)
    return None


def _failed(bound: Bound, error: Exception) -> Made:
    # The messages of these two are ours and have nothing of the data.
    known = isinstance(error, EvaluationError | Unreadable)
    reason = str(error) if known else type(error).__name__
    return Made(bound, "failed", "", f"it could not be evaluated: {reason}"[:MAX_REASON])


def _decided(bound: Bound, action: str, reason: str, detail: str = "") -> Made:
    would = {"refuse": "refused", "repair": "repaired", "suspend": "suspended"}[action]
    decision: Any = would if bound.enforces else "observed"
    text = bound.guardrail.message or reason
    return Made(bound, decision, would, text[:MAX_REASON], detail[:MAX_REASON])


def _forbidden(bound: Bound, call: Call, _verdict: Verdict) -> Made:
    what = "the model" if call.kind == "llm_call" else "the tool"
    return _decided(bound, "refuse", f"{what} is forbidden")


def _arguments(bound: Bound, call: Call, verdict: Verdict) -> Made | None:
    guardrail: Any = bound.guardrail
    given = call.args
    wrong = guardrail.problems({} if given is None else given)
    if not wrong:
        return None
    detail = "; ".join(wrong)
    reason = "the arguments do not fit the schema"
    if guardrail.action != "repair":
        return _decided(bound, guardrail.action, reason, detail)
    if isinstance(given, dict) or given is None:
        better = repaired(guardrail.schema_, given or {})
        left = guardrail.problems(better)
        if not left:
            return _repaired(bound, call, verdict, better, detail)
        detail = "; ".join(left)
    return _decided(bound, "refuse", f"{reason} and cannot be repaired", detail)


def _condition(bound: Bound, call: Call, verdict: Verdict) -> Made | None:
    guardrail: Any = bound.guardrail
    expression = compiled(guardrail.when)
    if not expression.holds(call):
        return None
    reason = f"{expression.text.strip()[:200]} is true"
    if guardrail.action != "repair":
        return _decided(bound, guardrail.action, reason)
    given = call.args
    if given is not None and not isinstance(given, dict):
        return _decided(bound, "refuse", f"{reason}, and the arguments have no names")
    return _repaired(bound, call, verdict, {**(given or {}), **guardrail.set}, "", reason)


def _repaired(
    bound: Bound,
    call: Call,
    verdict: Verdict,
    better: dict[str, Any],
    detail: str,
    reason: str = "the arguments did not fit the schema",
) -> Made | None:
    before = call.args or {}
    changes = {
        name: value
        for name, value in better.items()
        if name not in before or before[name] != value or type(before[name]) is not type(value)
    }
    dropped = {name for name in before if name not in better}
    if not changes and not dropped:
        return None
    made = _decided(bound, "repair", reason, detail)
    if bound.enforces:
        verdict.changes.update(changes)
        verdict.dropped = (verdict.dropped | dropped) - set(better)
        call.repair(better)
    return made


def _approval(bound: Bound, call: Call, _verdict: Verdict) -> Made | None:
    guardrail: Any = bound.guardrail
    if guardrail.when and not compiled(guardrail.when).holds(call):
        return None
    return _decided(bound, "suspend", "it needs an approval")


def _budget_left(bound: Bound, call: Call, _verdict: Verdict) -> Made | None:
    guardrail: Any = bound.guardrail
    for what, least in guardrail.least.items():
        left = call.left(what)
        if left < least:
            unit = "$" if what == "usd" else ""
            end = "" if what == "usd" else f" {what}"
            return _decided(
                bound,
                guardrail.action,
                f"{unit}{max(0.0, left):.6g}{end} of the run's budget are left, "
                f"{unit}{least:.6g}{end} are needed",
            )
    return None


_CHECKS: Final[dict[type, Callable[[Bound, Call, Verdict], Made | None]]] = {
    Forbidden: _forbidden,
    Arguments: _arguments,
    Condition: _condition,
    Approval: _approval,
    BudgetLeft: _budget_left,
}
