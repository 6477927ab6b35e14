"""The cases of a suite: one JSON object a line."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from stepstream.schemas.criteria import Check, Criteria
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
    content = [one.model_dump(mode="json") for one in (*cases, *criteria)]
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return Suite(name, cases, digest[:12])


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
