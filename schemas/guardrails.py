"""Guardrails: the part of a policy that is evaluated in the agent, before a step begins.

A policy's ``rules`` are evaluated by the worker, from what has been recorded. Its ``guardrails``
are evaluated by the SDK before a tool, a model or a search is called: the call is refused, its
arguments are repaired, or it waits for an approval.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cached_property, lru_cache
from typing import Annotated, Any, Final, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from stepstream.schemas.expression.compiler import Expression
from stepstream.schemas.expression.values import DOUBLE, DYN, INT, STRING, Variable
from stepstream.schemas.json_schema import ToolSchema
from stepstream.schemas.json_schema_fast import quick_test
from stepstream.schemas.policy_match import Match
from stepstream.schemas.rule_base import Dollars, Glob

MAX_GUARDRAILS: Final = 100
"""Guardrails of one policy."""
MAX_SCHEMA_BYTES: Final = 64_000
MAX_RECORD_BYTES: Final = 512_000
"""The guardrails of one policy as a record: more than a thousand usual ones."""
GUARDRAIL_KIND: Final = "guardrail"
"""The kind of the steps that report what a guardrail did."""
GUARDRAIL_ATTRIBUTE: Final = "guardrail"
"""Of such a step: the guardrail's name. Programs' own steps of this kind lack it."""
KINDS: Final = frozenset({"tool_call", "llm_call", "retrieval"})
"""The kinds of steps that guardrails are evaluated for."""
NO_BUDGET: Final = 1e12
"""What ``run.budget_left_usd`` and the like are in a run without such a limit."""

Decision = Literal["refused", "repaired", "suspended", "observed", "failed"]
"""What a guardrail did: refused the call, repaired its arguments, suspended it until an approval;
observed where the policy's mode is ``observe``; failed where it could not be evaluated."""
DECISIONS: Final[tuple[str, ...]] = ("refused", "repaired", "suspended", "observed", "failed")

VARIABLES: Final[dict[str, Variable]] = {
    "args": Variable(DYN, lambda m: m.args, "the call's arguments: its input as a JSON value"),
    "step.kind": Variable(STRING, lambda m: m.kind, "`tool_call`, `llm_call` or `retrieval`"),
    "step.name": Variable(STRING, lambda m: m.name, "the step's name"),
    "step.tool": Variable(STRING, lambda m: m.tool, "the tool; empty for a model call"),
    "step.model": Variable(STRING, lambda m: m.model, "the model; empty for other calls"),
    "step.attempt": Variable(INT, lambda m: m.attempt, "1, or more for a repeated call"),
    "run.project": Variable(STRING, lambda m: m.label("project"), "the run's project"),
    "run.environment": Variable(STRING, lambda m: m.label("environment"), "its environment"),
    "run.agent": Variable(STRING, lambda m: m.label("agent"), "its agent"),
    "run.agent_version": Variable(
        STRING, lambda m: m.label("agent_version"), "the agent's version"
    ),
    "run.task": Variable(STRING, lambda m: m.label("task"), "its task"),
    "run.user_id": Variable(
        STRING, lambda m: m.label("user_id"), "its user, as the program gave it"
    ),
    "run.session_id": Variable(STRING, lambda m: m.label("session_id"), "its session"),
    "run.budget_left_usd": Variable(
        DOUBLE, lambda m: m.left("usd"),
        "US dollars left of the run's `Budget`; 1e12 without such a limit"
    ),
    "run.budget_left_tokens": Variable(DOUBLE, lambda m: m.left("tokens"), "tokens left of it"),
    "run.budget_left_steps": Variable(DOUBLE, lambda m: m.left("steps"), "steps left of it"),
    "run.budget_left_seconds": Variable(DOUBLE, lambda m: m.left("seconds"), "seconds left of it"),
}  # fmt: skip
"""What an expression of a guardrail may use."""


@lru_cache(maxsize=1_024)
def compiled(text: str) -> Expression:
    """The condition of a guardrail, compiled once per process. Raises ``ExpressionError``."""
    return Expression(text, VARIABLES)


class GuardrailBase(BaseModel):
    """What every guardrail has: its name, and the calls that it is evaluated for."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, serialize_by_alias=True, validate_by_alias=True
    )

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$", max_length=100)
    check: str
    enabled: bool = True
    tools: tuple[Glob, ...] = Field(
        (), max_length=100, description="names of tools and searches, or patterns"
    )
    models: tuple[Glob, ...] = Field(
        (), max_length=100, description="names of models, or patterns; with tools: these as well"
    )
    message: str = Field(
        "", max_length=300, description="why, for the agent and the trace; default: what is wrong"
    )
    on_failure: Literal["allow", "refuse"] = Field(
        "allow", description="what happens to a call for which it cannot be evaluated"
    )


def _needs_calls(guardrail: GuardrailBase) -> None:
    if not guardrail.tools and not guardrail.models:
        raise ValueError("name the calls that it is for: tools: [...] or models: [...]")


class Forbidden(GuardrailBase):
    """The calls that it names are refused."""

    check: Literal["forbidden"]

    @model_validator(mode="after")
    def _names_calls(self) -> Forbidden:
        _needs_calls(self)
        return self


class Arguments(GuardrailBase):
    """The arguments must fit a JSON Schema."""

    check: Literal["arguments"]
    schema_: dict[str, Any] = Field(alias="schema", description="a JSON Schema of the arguments")
    action: Literal["refuse", "repair", "suspend"] = Field(
        "refuse",
        description="repair: set defaults, keep numbers within their bounds, convert texts to "
        "numbers, leave out unknown arguments; refused where that does not help",
    )

    @cached_property
    def _fits(self) -> Callable[[Any], bool]:
        return quick_test(self.schema_)

    def problems(self, arguments: Any) -> list[str]:
        """What is wrong with the arguments, in words; at most five."""
        return [] if self._fits(arguments) else ToolSchema(self.schema_).errors(arguments)

    @model_validator(mode="after")
    def _can_check(self) -> Arguments:
        _needs_calls(self)
        size = len(json.dumps(self.schema_, default=str))
        if size > MAX_SCHEMA_BYTES:
            raise ValueError(f"schema has {size:,} characters, {MAX_SCHEMA_BYTES:,} are the most")
        if ToolSchema(self.schema_).is_empty:
            raise ValueError("schema is empty: it would allow everything")
        return self


class Condition(GuardrailBase):
    """A condition of the arguments under which the call is refused, repaired or suspended."""

    check: Literal["expr"]
    when: str = Field(min_length=1, description="CEL over args, step and run: args.usd > 100")
    action: Literal["refuse", "repair", "suspend"] = "refuse"
    set: dict[str, Any] = Field(
        default_factory=dict, max_length=50, description="with action repair: arguments to set"
    )

    @model_validator(mode="after")
    def _can_act(self) -> Condition:
        compiled(self.when)
        if (self.action == "repair") != bool(self.set):
            raise ValueError("action: repair and set: {argument: value} go together")
        return self


class Approval(GuardrailBase):
    """A person must approve the call."""

    check: Literal["approval"]
    when: str = Field("", description="only if this is true, e.g. args.usd > 100")

    @model_validator(mode="after")
    def _can_check(self) -> Approval:
        if self.when:
            compiled(self.when)
        else:
            _needs_calls(self)
        return self


class BudgetLeft(GuardrailBase):
    """The call is refused unless this much is left of the run's budget."""

    check: Literal["budget_left"]
    usd: Dollars | None = None
    tokens: int | None = Field(None, ge=0)
    steps: int | None = Field(None, ge=0)
    seconds: float | None = Field(None, ge=0)
    action: Literal["refuse", "suspend"] = "refuse"

    @property
    def least(self) -> dict[str, float]:
        """What must be left, by the name of the limit."""
        given = {name: getattr(self, name) for name in ("usd", "tokens", "steps", "seconds")}
        return {name: float(amount) for name, amount in given.items() if amount is not None}

    @model_validator(mode="after")
    def _has_a_limit(self) -> BudgetLeft:
        if not self.least:
            raise ValueError("name what must be left: usd, tokens, steps or seconds")
        return self


Guardrail = Annotated[
    Forbidden | Arguments | Condition | Approval | BudgetLeft, Field(discriminator="check")
]


class GuardedPolicy(BaseModel):
    """The part of a policy that agents read, as a record of the topic ``guardrails``."""

    # A newer release may add fields to the record; those of a guardrail are forbidden there,
    # because one that is not understood must not be evaluated without them.
    model_config = ConfigDict(extra="ignore", frozen=True)

    name: str
    match: Match = Match()
    mode: Literal["observe", "enforce"] = "observe"
    revision: int = Field(0, ge=0)
    guardrails: tuple[Guardrail, ...] = ()


class UnreadableGuardrails(ValueError):
    """A record that is not a policy's guardrails, or one of a newer release."""


def encode_guarded(policy: GuardedPolicy) -> bytes:
    """The record's value."""
    return policy.model_dump_json(exclude_defaults=True, by_alias=True).encode()


def decode_guarded(value: bytes) -> GuardedPolicy:
    """The policy in a record. Raises ``UnreadableGuardrails``."""
    if len(value) > MAX_RECORD_BYTES:
        raise UnreadableGuardrails(f"it has {len(value):,} bytes")
    try:
        return GuardedPolicy.model_validate_json(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UnreadableGuardrails(f"{where}: {first['msg']}"[:300]) from None
    except (RecursionError, ValueError) as error:
        raise UnreadableGuardrails(type(error).__name__) from None
