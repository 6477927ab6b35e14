"""The cases of one tool: what a call with these arguments must return or raise."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from stepstream.evals.cases import CasesError
from stepstream.schemas.json_schema import ToolSchema
from stepstream.schemas.wording import sentences

_EXPECTATIONS: Final = ("returns", "contains", "json_schema", "raises", "message", "seconds")
_EXAMPLE: Final = '{"id": "known", "arguments": {"order": 4711}, "returns": {"amount": 129.5}}'
MAX_SHOWN: Final = 200


class ToolCase(BaseModel):
    """One call of a tool; every given expectation must hold."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(min_length=1, max_length=200)
    arguments: dict[str, Any] = Field({}, description="what the tool is called with, by name")
    returns: Any = Field(None, description="the result, compared as JSON")
    contains: tuple[str, ...] = Field((), max_length=50, description="texts in the result as JSON")
    json_schema: dict[str, Any] | None = Field(None, description="JSON Schema of the result")
    raises: str | None = Field(
        None, max_length=200, description="name of the exception, or of a class that it is one of"
    )
    message: str | None = Field(None, max_length=4_000, description="text in the exception's text")
    seconds: float | None = Field(None, gt=0, description="the longest time that the call may take")
    tags: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _expects_something(self) -> ToolCase:
        given = self.model_fields_set & {*_EXPECTATIONS}
        if not given:
            raise ValueError(f"give it one of {', '.join(_EXPECTATIONS)}")
        fails = given & {"raises", "message"}
        if fails and given & {"returns", "contains", "json_schema"}:
            raise ValueError(f"{min(fails)} means that it returns nothing")
        return self


@dataclass(frozen=True)
class Called:
    """What a call came to: a result, or the classes and the text of what it raised."""

    seconds: float
    result: Any = None
    raised: tuple[str, ...] = field(default=())
    """The exception's class and its bases by name; empty where the call returned."""
    message: str = ""


def parse_tool_cases(name: str, text: str) -> list[ToolCase]:
    """The cases in a file with this name. Raises ``CasesError``."""
    found: dict[str, ToolCase] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        place = f"{name}, line {number}"
        try:
            data = json.loads(line)
            case = ToolCase.model_validate(data)
        except ValidationError as error:
            raise CasesError(f"{place}: {sentences(error, ToolCase, data)}") from None
        except (ValueError, RecursionError) as error:
            raise CasesError(f"{place}: not JSON: {error}") from None
        if case.id in found:
            raise CasesError(f"{place}: the case {case.id!r} stands in an earlier line too")
        found[case.id] = case
    if not found:
        raise CasesError(f"{name}: no cases; a case is a line like {_EXAMPLE}")
    return list(found.values())


def problem_of(case: ToolCase, called: Called) -> str:
    """The first expectation that does not hold, in words; empty if all do."""
    if case.seconds is not None and called.seconds > case.seconds:
        return f"it took {called.seconds:.3f} s, more than {case.seconds:g} s"
    expects_error = case.raises is not None or case.message is not None
    if called.raised:
        return _of_error(case, called, expected=expects_error)
    if expects_error:
        return f"it returned {_short(called.result)} and should raise {case.raises or 'an error'}"
    return _of_result(case, called.result)


def _of_error(case: ToolCase, called: Called, *, expected: bool) -> str:
    name = called.raised[0]
    if not expected:
        return f"it raised {name}: {called.message[:MAX_SHOWN]}"
    if case.raises is not None and case.raises not in called.raised:
        return f"it raised {name} and should raise {case.raises}"
    if case.message is not None and case.message not in called.message:
        return f"the text of {name} does not contain {case.message!r}"
    return ""


def _of_result(case: ToolCase, result: Any) -> str:
    if "returns" in case.model_fields_set and result != case.returns:
        return f"it returned {_short(result)} and should return {_short(case.returns)}"
    text = result if isinstance(result, str) else json.dumps(result, ensure_ascii=False)
    for wanted in case.contains:
        if wanted not in text:
            return f"the result does not contain {wanted!r}: {_short(result)}"
    if case.json_schema is not None:
        # A schema of arguments is that of an object: the result becomes a field of one.
        schema = {"type": "object", "properties": {"result": case.json_schema}}
        errors = ToolSchema(schema).errors({"result": result})
        if errors:
            return "; ".join(errors)
    return ""


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"
