"""schemas/README.md agrees with the code: tables are current, examples are accepted."""

from __future__ import annotations

import json
import re
from typing import Any, Final

import pytest
from jsonschema import Draft202012Validator

from stepstream.schemas.accept import Accepted, accept_value
from stepstream.schemas.step import StepEvent
from stepstream.schemas.topics import (
    DEADLETTER_BY,
    DEADLETTER_DETAIL,
    DEADLETTER_OFFSET,
    DEADLETTER_PARTITION,
    DEADLETTER_REASON,
    DEADLETTER_TOPIC,
)
from tests.support.generated import README, marked_sections, sections
from tests.support.step_events import NOW_US

TEXT: Final = README.read_text()
EXAMPLES: Final[list[dict[str, Any]]] = [
    json.loads(block) for block in re.findall(r"```json\n(.*?)```", TEXT, re.DOTALL)
]


@pytest.mark.parametrize("name", sections())
def test_generated_sections_are_current(name: str) -> None:
    """Fields, limits, vectors, reasons and clamps: ``python -m tests.support.generated``
    writes them.
    """
    assert marked_sections(TEXT).get(name) == sections()[name]


def test_the_examples_show_the_cases_that_matter() -> None:
    """A start, an end, a model call with usage, a tool's error and a retrieval: one complete
    run.
    """
    shown = {(e["phase"], e["kind"], e.get("status", "")) for e in EXAMPLES}
    assert shown == {
        ("start", "agent", ""),
        ("end", "agent", "ok"),
        ("end", "llm_call", "ok"),
        ("end", "tool_call", "error"),
        ("end", "retrieval", ""),
    }
    assert len({e["trace_id"] for e in EXAMPLES}) == 1


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda e: f"{e['phase']} of {e['name']}")
def test_examples_are_accepted_as_they_stand(example: dict[str, Any]) -> None:
    """Each example fits the schema, uses only fields of version 1, and is accepted with
    nothing clamped.
    """
    verdict = accept_value(json.dumps(example).encode(), timestamp_us=NOW_US)
    assert isinstance(verdict, Accepted)
    assert verdict.clamped == ()
    assert example.keys() <= StepEvent.model_fields.keys()
    Draft202012Validator(StepEvent.model_json_schema()).validate(example)


def test_the_dead_letter_s_headers_are_named() -> None:
    """The headers of the dead letter are documented."""
    headers = (
        DEADLETTER_TOPIC,
        DEADLETTER_PARTITION,
        DEADLETTER_OFFSET,
        DEADLETTER_REASON,
        DEADLETTER_DETAIL,
        DEADLETTER_BY,
    )
    assert [header for header in headers if f"`{header}`" not in TEXT] == []
