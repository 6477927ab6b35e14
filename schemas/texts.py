"""Templates in subscriptions with ``{fields}``, checked when the subscription is applied."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import Final

from stepstream.schemas.suggestions import did_you_mean

TEXT_FIELDS: Final = frozenset(
    (
        "action",
        "agent",
        "agent_version",
        "alert",
        "alert_id",
        "baseline",
        "command",
        "count",
        "detail",
        "duration",
        "environment",
        "evidence",
        "firing",
        "link",
        "message",
        "policy",
        "project",
        "quoted",
        "resolved",
        "rule",
        "run_link",
        "runs",
        "severity",
        "since",
        "state",
        "subject",
        "task",
        "threshold",
        "trace_id",
        "value",
        "who",
    )
)
"""Fields of titles and bodies."""
LINK_FIELDS: Final = frozenset(
    (
        "agent",
        "agent_version",
        "alert",
        "alert_id",
        "environment",
        "opened_at_ms",
        "opened_at_us",
        "project",
        "rule",
        "step_id",
        "subject",
        "task",
        "trace_id",
        "updated_at_ms",
        "updated_at_us",
    )
)
"""Fields of links."""

_PART = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


def check_template(text: str, fields: Collection[str]) -> str:
    """Return the text. Raises ``ValueError`` for an unknown field and for a single brace."""
    for found in _PART.finditer(text):
        name = found[1]
        if found[0] in ("{{", "}}") or (name is not None and name in fields):
            continue
        if name is None:
            raise ValueError(
                f"a single {found[0]} at character {found.start() + 1}: "
                "write {{ or }} for a brace"
            )
        raise ValueError(f"{{{name}}} is no field; {did_you_mean(name, sorted(fields))}")
    return text


def fill(template: str, values: Mapping[str, str], quote: Callable[[str], str] = str) -> str:
    """The template with its fields filled in through ``quote``; empty for missing values."""

    # One pass: a value with braces is not a template and is not filled in again.
    def part(found: re.Match[str]) -> str:
        if found[0] in ("{{", "}}"):
            return found[0][0]
        return quote(values.get(found[1] or "", ""))

    return _PART.sub(part, template)
