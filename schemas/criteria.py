"""Criteria: documents that define what success is for the runs that they match.

One document is evaluated in three places by the same code (``stream.detectors.criteria``): in the
worker as runs close, over recorded runs, and in suites of cases.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from stepstream.schemas.alert import FindingSeverity
from stepstream.schemas.policy_match import Match
from stepstream.schemas.rule_base import Limit, Positive
from stepstream.schemas.rules import rule_from
from stepstream.schemas.suggestions import did_you_mean

MAX_CHECKS: Final = 50
MAX_TOOLS: Final = 200
MAX_TEXTS: Final = 50
MAX_JSON_CHARS: Final = 20_000

Tool = Annotated[str, Field(min_length=1, max_length=512)]
Tools = Annotated[tuple[Tool, ...], Field(min_length=1, max_length=MAX_TOOLS)]
Text = Annotated[str, Field(min_length=1, max_length=4_000)]
Texts = Annotated[tuple[Text, ...], Field(max_length=MAX_TEXTS)]


class _Check(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @property
    def named_tools(self) -> tuple[str, ...]:
        """The tools that it names."""
        return ()


class ToolsCheck(_Check):
    """Which tools were called. Repeated attempts of a call are one call."""

    check: Literal["tools"]
    calls: Tools
    order: Literal["exact", "in_order", "any_order", "subset", "superset"] = Field(
        "superset",
        description="exact: these calls and no others, in this order; in_order: in this order, "
        "others between; any_order: these and no others; subset: no others than these; superset: "
        "these, and any others",
    )

    @property
    def named_tools(self) -> tuple[str, ...]:
        return self.calls


class NeverCheck(_Check):
    """Tools that must not be called."""

    check: Literal["never"]
    tools: Tools

    @property
    def named_tools(self) -> tuple[str, ...]:
        return self.tools


class AtMostCheck(_Check):
    """How often a tool may be called."""

    check: Literal["at_most"]
    tool: Tool
    times: int = Field(ge=0, le=100_000)

    @property
    def named_tools(self) -> tuple[str, ...]:
        return (self.tool,)


def _small(value: dict[str, Any]) -> dict[str, Any]:
    if len(json.dumps(value)) > MAX_JSON_CHARS:
        raise ValueError(f"at most {MAX_JSON_CHARS} characters of JSON")
    return value


Object = Annotated[dict[str, Any], AfterValidator(_small)]


class ArgumentsCheck(_Check):
    """What a tool must be called with."""

    check: Literal["arguments"]
    tool: Tool
    contains: Object = Field(
        default_factory=dict, description="fields with these values; objects may have others"
    )
    json_schema: Object = Field(default_factory=dict, description="JSON Schema of the arguments")
    of: Literal["any", "all"] = Field("any", description="one of its calls, or each of them")

    @model_validator(mode="after")
    def _checks_something(self) -> ArgumentsCheck:
        if not self.contains and not self.json_schema:
            raise ValueError("arguments needs contains or json_schema")
        return self

    @property
    def named_tools(self) -> tuple[str, ...]:
        return (self.tool,)


class AnswerCheck(_Check):
    """What the run's answer must be; every given field must hold. Case and spaces are ignored."""

    check: Literal["answer"]
    equals: Text | None = None
    contains: Texts = ()
    excludes: Texts = ()
    regex: str = Field(
        "", max_length=1_000, description="found anywhere in it; the syntax is that of RE2"
    )
    number: float | None = Field(None, description="a number that it contains")
    within: float = Field(0.0, ge=0, description="how far from it the number may be")
    path: str = Field(
        "",
        max_length=200,
        pattern=r"^$|^[^.\s]+(\.[^.\s]+)*$",
        description="a field of an answer in JSON that the checks are about: order.status, items.0",
    )
    cites: bool = Field(False, description="contains the id of a document that was retrieved")

    @model_validator(mode="after")
    def _fits(self) -> AnswerCheck:
        given = self.equals, self.contains, self.excludes, self.regex, self.cites
        if not any(given) and self.number is None:
            raise ValueError("answer needs equals, contains, excludes, regex, number or cites")
        if self.within and self.number is None:
            raise ValueError("within needs number")
        both = {*map(folded, self.contains)} & {*map(folded, self.excludes)}
        if both:
            raise ValueError(f"{min(both)!r} is in contains and in excludes")
        if self.equals is not None:
            whole = folded(self.equals)
            for text in self.contains:
                if folded(text) not in whole:
                    raise ValueError(f"equals does not contain {text!r}, which contains requires")
            for text in self.excludes:
                if folded(text) in whole:
                    raise ValueError(f"equals contains {text!r}, which excludes forbids")
        return self


class NoHiddenErrorCheck(_Check):
    """No tool's last output reports a failure while its step is marked ok."""

    check: Literal["no_hidden_error"]


class StatusCheck(_Check):
    """The run's own status."""

    check: Literal["status"]
    equals: Literal["ok", "error", "cancelled", "stopped"] = "ok"


class LimitsCheck(_Check):
    """What the run may use."""

    check: Literal["limits"]
    cost_usd: Limit | None = None
    steps: Positive | None = None
    seconds: float | None = Field(None, gt=0)
    tokens: Positive | None = None
    tool_errors: int | None = Field(None, ge=0)

    @model_validator(mode="after")
    def _limits_something(self) -> LimitsCheck:
        if not self.model_fields_set - {"check"}:
            raise ValueError("limits needs cost_usd, steps, seconds, tokens or tool_errors")
        return self


class ExprCheck(_Check):
    """An expression over the whole run that must be true, as in the rule ``expr``."""

    check: Literal["expr"]
    when: str = Field(min_length=1, max_length=2_000, description="e.g. run.errors == 0")

    @field_validator("when")
    @classmethod
    def _compiles(cls, when: str) -> str:
        # The compiler belongs to the detectors, which the registry of rules loads.
        rule_from({"rule": "expr", "when": when})
        return when


class _OutsideCheck(_Check):
    """Code outside of the worker, which is called in suites only; elsewhere it is unknown."""

    seconds: float = Field(30.0, gt=0, le=3600, description="time limit; after it: unknown")


class GraderCheck(_OutsideCheck):
    """The score of the answer by a grader. The check is unknown where the grader fails."""

    check: Literal["grader"]
    grader: str = Field(
        min_length=1,
        max_length=200,
        description="module:function, or the name of an entry point of stepstream.graders",
    )
    rubric: Annotated[str, Field(max_length=20_000)] = Field(
        "", description="what the grader evaluates"
    )
    at_least: float = Field(0.5, ge=0, le=1, description="the lowest score that passes")


class FunctionCheck(_OutsideCheck):
    """A function of the agent's project, for example one that checks the end state of a test
    system."""

    check: Literal["function"]
    function: str = Field(
        pattern=r"^[\w.]+:\w+$",
        max_length=200,
        description="module:function that gets input, answer and steps; returns True, False, None "
        "(unknown), or a text with what is wrong",
    )


class SqlCheck(_OutsideCheck):
    """What a query finds in a test system after the run; the check is unknown where it fails."""

    check: Literal["sql"]
    connect: str = Field(
        pattern=r"^[\w.]+:\w+$",
        max_length=200,
        description="module:function that returns a connection of Python's DB API (PEP 249)",
    )
    query: str = Field(min_length=1, max_length=20_000, description="one statement; rolled back")
    equals: str | float | None = Field(
        None, description="the only value of the result; numbers are compared as numbers"
    )
    rows: int | None = Field(None, ge=0, le=10_000, description="number of rows of the result")

    @model_validator(mode="after")
    def _expects_something(self) -> SqlCheck:
        if (self.equals is None) == (self.rows is None):
            raise ValueError("sql needs either equals or rows")
        return self


OUTSIDE_CHECKS: Final = (GraderCheck, FunctionCheck, SqlCheck)

Check = Annotated[
    ToolsCheck
    | NeverCheck
    | AtMostCheck
    | ArgumentsCheck
    | AnswerCheck
    | NoHiddenErrorCheck
    | StatusCheck
    | LimitsCheck
    | ExprCheck
    | GraderCheck
    | FunctionCheck
    | SqlCheck,
    Field(discriminator="check"),
]
Checks = Annotated[tuple[Check, ...], Field(min_length=1, max_length=MAX_CHECKS)]


class Criteria(BaseModel):
    """What success is for the runs that match: every check must hold.

    A check that cannot be evaluated, because contents or costs are missing, is unknown; so is then
    the run, unless another check failed. Unknown is not a failure.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["Criteria"] = "Criteria"
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$", max_length=100)
    match: Match = Match()
    tools: Annotated[tuple[Tool, ...], Field(max_length=MAX_TOOLS)] = Field(
        (), description="the agent's tools; a check that names another one is refused"
    )
    severity: FindingSeverity = Field(
        "note", description="of the finding about a run that fails; a note opens no alert"
    )
    checks: Checks

    @model_validator(mode="after")
    def _is_consistent(self) -> Criteria:
        for problem in (*_unknown_tools(self), *contradictions(self.checks)):
            raise ValueError(problem)
        return self


def folded(text: str) -> str:
    """A text as answers are compared: lower case, with single spaces."""
    return " ".join(text.casefold().split())


def _unknown_tools(criteria: Criteria) -> Iterator[str]:
    if not criteria.tools:
        return
    for check in criteria.checks:
        for tool in check.named_tools:
            if tool not in criteria.tools:
                hint = did_you_mean(tool, criteria.tools)
                yield f"the check {check.check} names {tool}, which is not in tools; {hint}"


def contradictions(checks: Sequence[Any]) -> Iterator[str]:
    """What no run can satisfy, in words."""
    required, allowed = _required(checks), _allowed(checks)
    for check in checks:
        forbidden = check.tools if isinstance(check, NeverCheck) else ()
        if isinstance(check, AtMostCheck) and check.times == 0:
            forbidden = (check.tool,)
        for tool in forbidden:
            if tool in required:
                yield f"{tool} must never be called, and {required[tool]} requires it"
    for tool, by in required.items():
        if allowed is not None and tool not in allowed:
            others = ", ".join(sorted(allowed)) or "none"
            yield f"{by} requires {tool}, and other checks allow only {others}"
    texts = {
        (check.path, folded(check.equals))
        for check in checks
        if isinstance(check, AnswerCheck) and check.equals is not None
    }
    if len({path for path, _ in texts}) < len(texts):
        yield "the answer must be equal to different texts"
    statuses = {check.equals for check in checks if isinstance(check, StatusCheck)}
    if len(statuses) > 1:
        yield f"the status must be {' and '.join(sorted(statuses))}"


def _required(checks: Sequence[Any]) -> dict[str, str]:
    """The tools that must be called, each with the check that requires it."""
    found: dict[str, str] = {}
    for check in checks:
        if isinstance(check, ToolsCheck) and check.order != "subset":
            found |= dict.fromkeys(check.calls, f"tools ({check.order})")
        elif isinstance(check, ArgumentsCheck) and check.of == "any":
            found[check.tool] = "arguments"
    return found


def _allowed(checks: Sequence[Any]) -> set[str] | None:
    """The only tools that may be called; None where any may be."""
    limited = [
        set(check.calls)
        for check in checks
        if isinstance(check, ToolsCheck) and check.order in {"exact", "any_order", "subset"}
    ]
    return set.intersection(*limited) if limited else None
