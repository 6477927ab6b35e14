"""The cases of a suite: one JSON object a line."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from stepstream.schemas.criteria import Check, Criteria
from stepstream.schemas.scenario import MAX_TURNS, Stubs, Turns
from stepstream.schemas.wording import sentences


class CasesError(ValueError):
    """Cases that cannot be used; the message has the line and what is wrong."""


class Case(BaseModel):
    """One input of a suite, with what is expected of the agent."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(min_length=1, max_length=200)
    input: Any = Field(description="what the agent is called with")
    expected: str | None = Field(None, description="a text that the answer contains")
    checks: tuple[Check, ...] = Field((), max_length=50, description="as in a Criteria document")
    tags: tuple[str, ...] = ()
    turns: Turns = Field((), description="further messages of the user")
    user: str = Field(
        "",
        pattern=r"^$|^[\w.]+:\w+$",
        description="module:function that gets the conversation and returns the user's next "
        "message, or None at its end; instead of turns",
    )
    max_turns: int = Field(10, ge=1, le=MAX_TURNS, description="messages of the user at most")
    stubs: Stubs = Field((), description="what stands for tools")
    source_trace: str = Field("", max_length=64, description="the run that the case is made of")

    @model_validator(mode="after")
    def _has_one_user(self) -> Case:
        if self.turns and self.user:
            raise ValueError("turns and user exclude each other")
        return self

    @property
    def is_conversation(self) -> bool:
        """Whether the user sends more than the input."""
        return bool(self.turns or self.user)

    def criteria(self) -> Criteria | None:
        """The document that its own checks make; None where it has none."""
        checks = [check.model_dump() for check in self.checks]
        if self.expected is not None:
            checks.append({"check": "answer", "contains": [self.expected]})
        return Criteria.model_validate({"name": "case", "checks": checks}) if checks else None


@dataclass(frozen=True)
class Suite:
    """Cases that are run together."""

    name: str
    cases: Sequence[Case]
    version: str
    """A digest of the cases and of the Criteria documents."""


def parse_suite(name: str, text: str, criteria: Sequence[Criteria] = ()) -> Suite:
    """The suite in a file with this name. Raises ``CasesError``."""
    cases: list[Case] = []
    lines: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        place = f"{name}, line {number}"
        case = _case(line, place, bool(criteria))
        if case.id in lines:
            raise CasesError(f"{place}: the case {case.id!r} stands in line {lines[case.id]} too")
        lines[case.id] = number
        cases.append(case)
    if not cases:
        raise CasesError(f"{name}: no cases; a case is a line like {_EXAMPLE}")
    content = [*map(_content, cases), *(one.model_dump(mode="json") for one in criteria)]
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return Suite(name, cases, digest[:12])


def _content(case: Case) -> dict[str, Any]:
    """What the digest is made of: fields that came later count only where they are used."""
    content = case.model_dump(mode="json")
    # Where a case comes from is no part of what it is.
    del content["source_trace"]
    if not (case.is_conversation or case.stubs):
        for name in ("turns", "user", "max_turns", "stubs"):
            del content[name]
    return content


_EXAMPLE = '{"id": "refund", "input": "Refund order 7", "expected": "refunded"}'


def _case(line: str, place: str, has_criteria: bool) -> Case:
    try:
        data = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise CasesError(f"{place}: not JSON: {error}") from None
    try:
        case = Case.model_validate(data)
        if case.criteria() is None and not has_criteria:
            raise CasesError(
                f"{place}: nothing decides whether the case {case.id!r} succeeds: give it expected "
                "or checks, or the suite a Criteria document"
            )
    except ValidationError as error:
        raise CasesError(f"{place}: {sentences(error, Case, data)}") from None
    return case
