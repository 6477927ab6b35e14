"""A case out of the steps of a recorded run. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from stepstream.evals.cases import Case
from stepstream.schemas.redaction import redacted_value

MAX_TOOLS: Final = 50


class RunLost(ValueError):
    """The run does not have what a case needs; the message states what."""


def case_of_run(trace_id: str, steps: Sequence[Mapping[str, Any]], expected: str | None) -> Case:
    """The case: the root's input, and what makes it succeed.

    With ``expected`` an answer with this text; without it the tools that were called, in any
    order, and a status of ok. Raises ``RunLost``.
    """
    root = next((step for step in steps if not step["parent_step_id"]), None)
    given = input_of(trace_id, root)
    assert root is not None
    tools = sorted({step["tool"] for step in steps if step["kind"] == "tool_call" and step["tool"]})
    checks: list[dict[str, Any]] = []
    if expected is None:
        checks.append({"check": "status"})
        if tools:
            checks.append({"check": "tools", "calls": tools[:MAX_TOOLS]})
    return Case.model_validate(
        {
            "id": f"{root['agent'] or 'run'}-{trace_id[:8]}",
            "input": given,
            "expected": expected,
            "checks": checks,
            "source_trace": trace_id,
        }
    )


def input_of(trace_id: str, root: Mapping[str, Any] | None) -> Any:
    """What a root was called with, without known secrets. Raises ``RunLost``."""
    if root is None:
        raise RunLost(f"run {trace_id} has no root in the store")
    given = root["input"] or ""
    size = root.get("input_bytes") or 0
    if not given or len(given.encode()) < size:
        kept = f"{len(given.encode())} of {size} bytes" if given else "nothing"
        raise RunLost(
            f"the input of run {trace_id} is not recorded whole ({kept}): raise max_content_bytes, "
            "or turn capture_content on, where the agent runs"
        )
    return redacted_value(_value(given))


def _value(text: str) -> Any:
    """The input as the agent got it: inputs that are no texts are recorded as JSON."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return value if isinstance(value, dict | list) else text
