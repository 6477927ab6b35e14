"""Cases out of the files of other evaluation tools. Pure.

The format is recognised by the fields of each record: Inspect (``input``, ``target``), OpenAI evals
(``input``, ``ideal``), LangSmith (``inputs``, ``outputs``), Braintrust (``input``, ``expected``),
Langfuse (``input``, ``expectedOutput``), promptfoo (``vars``, ``assert``), and cases of our own.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import yaml
from pydantic import ValidationError

from stepstream.evals.cases import Case, CasesError
from stepstream.schemas.wording import sentences

MAX_ID_CHARS: Final = 200
MAX_CASES: Final = 100_000
_LISTS: Final = ("tests", "examples", "samples", "items", "data", "rows", "events")

Record = Mapping[str, Any]
Check = dict[str, Any]


@dataclass
class Imported:
    """The cases of a file, and what of it has no form here."""

    cases: list[Case] = field(default_factory=list)
    formats: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    """Assertions without a check of ours, by name."""

    @property
    def undecided(self) -> int:
        """Cases without anything that decides whether they succeed."""
        return sum(case.criteria() is None for case in self.cases)


def cases_from(name: str, text: str) -> Imported:
    """The cases in a file: JSON, one JSON object a line, or YAML. Raises ``CasesError``."""
    found = Imported()
    lines: dict[str, int] = {}
    for number, record in enumerate(_records(name, text), 1):
        place = f"{name}, record {number}"
        if number > MAX_CASES:
            raise CasesError(f"{name}: more than {MAX_CASES} records")
        if not isinstance(record, Mapping):
            raise CasesError(f"{place}: not an object")
        case = _case(record, f"{_stem(name)}-{number}", place, found)
        if case.id in lines:
            raise CasesError(f"{place}: the id {case.id!r} is that of record {lines[case.id]} too")
        lines[case.id] = number
        found.cases.append(case)
    if not found.cases:
        raise CasesError(f"{name}: no records")
    return found


def case_line(case: Case) -> str:
    """A case as a line of a suite, without fields that have their defaults."""
    return json.dumps(case.model_dump(mode="json", exclude_defaults=True))


def _records(name: str, text: str) -> Iterator[Any]:
    try:
        value = json.loads(text)
    except RecursionError:
        raise CasesError(f"{name}: nested too deeply") from None
    except ValueError:
        value = None
    if value is not None:
        yield from _listed(value)
        return
    if text.lstrip().startswith("{"):
        for number, line in enumerate(text.splitlines(), 1):
            if not line.strip():
                continue
            try:
                yield json.loads(line)
            except (ValueError, RecursionError) as error:
                raise CasesError(f"{name}, line {number}: not JSON: {error}") from None
        return
    try:
        loaded = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise CasesError(f"{name}: neither JSON nor YAML: {error}") from None
    yield from _listed(loaded)


def _stem(name: str) -> str:
    return name.replace("\\", "/").rsplit("/", 1)[-1].split(".", 1)[0] or "case"


def _listed(value: Any) -> Iterator[Any]:
    """The records of a file's value: a list, a list under a known name, or one record."""
    if isinstance(value, Mapping):
        for name in _LISTS:
            if isinstance(value.get(name), list):
                yield from value[name]
                return
        yield value
    elif isinstance(value, list):
        yield from value


def _case(record: Record, default_id: str, place: str, found: Imported) -> Case:
    for label, fits, convert in _FORMATS:
        if fits(record):
            found.formats[label] += 1
            data = convert(record, found.left_out)
            named = record.get("id") or record.get("description") or default_id
            data = {"id": str(named)[:MAX_ID_CHARS], **data}
            tags = record.get("tags")
            if isinstance(tags, list):
                data["tags"] = [str(tag) for tag in tags]
            try:
                return Case.model_validate(data)
            except ValidationError as error:
                raise CasesError(f"{place}: {sentences(error, Case, data)}") from None
    fields = ", ".join(sorted(map(str, record))[:8]) or "none"
    raise CasesError(
        f"{place}: no known format has these fields: {fields}; known are Inspect, OpenAI evals, "
        "LangSmith, Braintrust, Langfuse, promptfoo, and cases as in docs/evaluation.md"
    )


def _own(record: Record, _left_out: Counter[str]) -> dict[str, Any]:
    return dict(record)


def _inspect(record: Record, _left_out: Counter[str]) -> dict[str, Any]:
    given = _prompt(record["input"])
    if choices := record.get("choices"):
        given = {"question": given, "choices": choices}
    return {"input": given, **_expected(record["target"])}


def _openai(record: Record, _left_out: Counter[str]) -> dict[str, Any]:
    return {"input": _prompt(record["input"]), **_expected(record["ideal"])}


def _langsmith(record: Record, _left_out: Counter[str]) -> dict[str, Any]:
    return {"input": _only(record["inputs"]), **_expected(_only(record.get("outputs")))}


def _braintrust(record: Record, _left_out: Counter[str]) -> dict[str, Any]:
    return {"input": _prompt(record["input"]), **_expected(record["expected"])}


def _langfuse(record: Record, _left_out: Counter[str]) -> dict[str, Any]:
    expected = record.get("expectedOutput", record.get("expected_output"))
    return {"input": _prompt(_only(record["input"])), **_expected(_only(expected))}


def _promptfoo(record: Record, left_out: Counter[str]) -> dict[str, Any]:
    checks = []
    for one in record.get("assert") or []:
        made = _assertion(one) if isinstance(one, Mapping) else None
        if made is None:
            kind = one.get("type") if isinstance(one, Mapping) else type(one).__name__
            left_out[str(kind)] += 1
        else:
            checks.append(made)
    return {"input": _only(record.get("vars")), "checks": checks}


def _assertion(one: Record) -> Check | None:
    """The check of one assertion of promptfoo; None where there is none."""
    kind, value, limit = one.get("type"), one.get("value"), one.get("threshold")
    texts = [str(text) for text in value] if isinstance(value, list) else [str(value)]
    match kind:
        case "equals":
            return {"check": "answer", "equals": texts[0]}
        case "contains" | "icontains" | "contains-all" | "icontains-all":
            return {"check": "answer", "contains": texts}
        case "not-contains" | "not-icontains":
            return {"check": "answer", "excludes": texts}
        case "contains-any" | "icontains-any":
            return {"check": "answer", "regex": _any_of(texts)}
        case "regex":
            return {"check": "answer", "regex": texts[0]}
        case "latency" if isinstance(limit, int | float):
            return {"check": "limits", "seconds": limit / 1000}
        case "cost" if isinstance(limit, int | float):
            return {"check": "limits", "cost_usd": limit}
        case _:
            return None


_FORMATS: Final[
    tuple[tuple[str, Callable[[Record], bool], Callable[[Record, Counter[str]], Any]], ...]
] = (
    ("promptfoo", lambda one: "vars" in one, _promptfoo),
    ("Inspect", lambda one: {"input", "target"} <= one.keys(), _inspect),
    ("OpenAI evals", lambda one: {"input", "ideal"} <= one.keys(), _openai),
    ("LangSmith", lambda one: "inputs" in one, _langsmith),
    (
        "Langfuse",
        lambda one: "input" in one and bool({"expectedOutput", "expected_output"} & one.keys()),
        _langfuse,
    ),
    ("stepstream", lambda one: "checks" in one or "stubs" in one or "turns" in one, _own),
    ("Braintrust", lambda one: {"input", "expected"} <= one.keys(), _braintrust),
    ("input alone", lambda one: "input" in one, lambda one, _: {"input": _prompt(one["input"])}),
)


def _prompt(value: Any) -> Any:
    """An input; a list of messages with one of the user alone is its text."""
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], Mapping):
        content = value[0].get("content")
        if isinstance(content, str) and value[0].get("role") in ("user", "human", None):
            return content
    return value


def _only(value: Any) -> Any:
    """The value of a mapping with one field, else the value as it is."""
    return next(iter(value.values())) if isinstance(value, Mapping) and len(value) == 1 else value


def _expected(value: Any) -> dict[str, Any]:
    """What an expected output makes of a case."""
    if value is None or value == "":
        return {}
    if isinstance(value, str):
        return {"expected": value}
    if isinstance(value, bool):
        return {"expected": str(value).lower()}
    if isinstance(value, int | float):
        return {"checks": [{"check": "answer", "number": value}]}
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        if len(value) == 1:
            return {"expected": value[0]}
        # A list of texts: any of them is right.
        return {"checks": [{"check": "answer", "regex": _any_of(value)}]}
    if isinstance(value, Mapping):
        checks = [
            {"check": "answer", "path": str(name), "equals": str(one)}
            for name, one in value.items()
            if isinstance(one, str | int | float) and not isinstance(one, bool) and str(one)
        ]
        return {"checks": checks}
    return {}


def _any_of(texts: list[str]) -> str:
    return f"(?i){'|'.join(map(re.escape, texts))}"
