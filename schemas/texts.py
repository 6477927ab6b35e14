"""Templates that people write into subscriptions: ``{fields}`` and nothing more, checked when they are written."""

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
"""What a title or a body may name."""
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
"""What a link may name."""

_PART = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


def check_template(text: str, fields: Collection[str]) -> str:
    """The text as it is. Raises ``ValueError`` for a field that there is not, and for a brace that stands alone."""
    for found in _PART.finditer(text):
        name = found[1]
        if found[0] in ("{{", "}}") or (name is not None and name in fields):
            continue
        if name is None:
            raise ValueError(
                f"a single {found[0]} at character {found.start() + 1}: write {{{{ or }}}} for a brace"
            )
        raise ValueError(f"{{{name}}} is no field; {did_you_mean(name, sorted(fields))}")
    return text


def fill(template: str, values: Mapping[str, str], quote: Callable[[str], str] = str) -> str:
    """The template with its fields filled in, each through ``quote``; a field without a value is empty."""

    def part(found: re.Match[str]) -> str:
        if found[0] in ("{{", "}}"):
            return found[0][0]
        return quote(values.get(found[1] or "", ""))

    return _PART.sub(part, template)
