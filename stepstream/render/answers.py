"""The answer to a question as cells of a table: money, times and shares as people read them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

from rich.text import Text

from stepstream.render.listing import Column
from stepstream.render.values import clip, format_time, one_line, short_id
from stepstream.schemas.formatting import format_count, format_dollars, format_duration

MAX_CELL: Final = 400
"""Characters of a cell; ``--format json`` prints all."""
PROSE: Final = frozenset({"error_message", "message", "evidence", "excerpt", "output", "input_end"})
SHARES: Final = ("share", "rate", "similarity")


def answer_cells(
    columns: Sequence[str], rows: Sequence[Sequence[Any]]
) -> tuple[list[Column], list[list[Text]]]:
    """Columns and cells of an answer. Columns that do not fit are left out from the last on."""
    shaped = [
        Column(
            name,
            right=all(isinstance(row[place], int | float | Decimal | None) for row in rows),
            prose=name in PROSE,
            leaves=place,
        )
        for place, name in enumerate(columns)
    ]
    cells = [
        [Text(cell(name, value)) for name, value in zip(columns, row, strict=True)] for row in rows
    ]
    return shaped, cells


def cell(name: str, value: Any) -> str:
    """A value in one line; the name of its column decides the form of a number."""
    if value is None:
        return ""
    if isinstance(value, datetime):
        aware = value if value.tzinfo else value.replace(tzinfo=UTC)
        return aware.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float | Decimal):
        return _number(name, value)
    if isinstance(value, list | tuple):
        return clip(", ".join(_item(item) for item in value), MAX_CELL)
    text = one_line(str(value)[: 10 * MAX_CELL])
    if name == "value" and not text:
        return "(none)"
    return short_id(text) if name == "trace_id" else clip(text, MAX_CELL)


def _number(name: str, value: Any) -> str:
    if name.endswith("_usd"):
        return format_dollars(value)
    if name == "start_us":
        return format_time(int(value))
    if name.endswith("_us"):
        return format_duration(value)
    if name.endswith(SHARES):
        return f"{value:.1%}"
    if name.endswith("tokens"):
        return format_count(int(value))
    return f"{value:,}" if isinstance(value, int) else f"{float(value):,.4g}"


def _item(item: Any) -> str:
    if isinstance(item, tuple | list):
        first, *rest = [_item(part) for part in item]
        return f"{first} ({', '.join(rest)})" if rest else first
    return cell("", item)
