"""Listings: the same rows as a table for people, as JSON or as CSV for programs."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, tzinfo
from decimal import Decimal
from typing import Any, Final

from rich.text import Text

from stepstream.render.glyphs import UNICODE, Glyphs
from stepstream.render.heading import STATUS_STYLES
from stepstream.render.listing import Column
from stepstream.render.rows import RunRow
from stepstream.render.values import (
    clean_lines,
    clip,
    format_time,
    one_line,
    short_id,
    zone_name,
)
from stepstream.schemas.formatting import format_duration, format_usd
from stepstream.schemas.printable import printable
from stepstream.schemas.times import iso_time

MIN_NAME: Final = 10
"""Cells down to which the names of agents and tasks are cut before a column is left out."""
_FORMULA: Final = "=+-@\t\n\uff1d\uff0b\uff0d\uff20"
"""What a cell must not begin with; the last four are the wide forms of the first."""
_NUMBER: Final = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")


def runs_cells(
    runs: Sequence[RunRow],
    alerts: dict[str, int],
    *,
    now_us: int,
    zone: tzinfo | None = None,
    glyphs: Glyphs = UNICODE,
) -> tuple[list[Column], list[list[Text]]]:
    """Columns and rows of runs, as given: when, which, whose, how it went, how long, how much.

    ``alerts`` counts them by trace_id.
    """
    zone_now = zone_name(runs[0].start_us if runs else now_us, zone)
    columns = [
        Column(f"started ({zone_now})", leaves=2),
        Column("run"),
        Column("agent", leaves=1, least=MIN_NAME),
        Column("task", leaves=4, least=MIN_NAME),
        Column("status"),
        Column("time", right=True, leaves=3),
        Column("steps", right=True, leaves=5),
        Column("failed", right=True, leaves=6),
        Column("cost", right=True),
        Column("alerts", right=True, leaves=1),
    ]
    return columns, [_run_cells(run, alerts, now_us, zone, glyphs) for run in runs]


def _run_cells(
    run: RunRow, alerts: dict[str, int], now_us: int, zone: tzinfo | None, glyphs: Glyphs
) -> list[Text]:
    end_us = max(run.end_us, now_us) if run.running else run.end_us
    return [
        Text(format_time(run.start_us, zone)),
        Text(short_id(run.trace_id)),
        Text(clip(one_line(run.agent), 24, glyphs.ellipsis)),
        Text(clip(one_line(run.task), 24, glyphs.ellipsis)),
        Text(run.status, style=STATUS_STYLES.get(run.status, "")),
        Text(format_duration(end_us - run.start_us) + ("+" if run.running else "")),
        Text(f"{run.steps:,}"),
        Text(str(run.error_steps or ""), style="red"),
        Text(format_usd(run.cost_nanos) + (" + ?" if run.unpriced_steps else "")),
        Text(str(alerts.get(run.trace_id) or ""), style="bold yellow"),
    ]


def records_cells(
    columns: Sequence[str], rows: Sequence[Sequence[Any]]
) -> tuple[list[Column], list[list[Text]]]:
    """Columns and cells of any answer of the store, each value in full and on one line."""
    shaped = [
        Column(
            one_line(name),
            right=all(isinstance(row[i], int | float | Decimal) or row[i] is None for row in rows),
        )
        for i, name in enumerate(columns)
    ]
    return shaped, [[Text(one_line(_cell(value))) for value in row] for row in rows]


def fields_text(title: str, fields: Mapping[str, Any]) -> Text:
    """One record, a field a line; a text of several lines stands below its name, as it is."""
    most = max(map(len, fields), default=0)
    text = Text(title, style="bold")
    for name, value in fields.items():
        lines = clean_lines(_cell(value))
        text.append(f"\n  {name.ljust(most)}  ", style="dim")
        text.append(
            lines[0] if len(lines) == 1 else "".join(f"\n    {line}" for line in lines),
            style="not bold",
        )
    return text


def records_json(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A JSON array with one object a line; decimals as strings, times as ISO 8601 in UTC."""
    named = (dict(zip(columns, map(_finite, row), strict=True)) for row in rows)
    lines = [json.dumps(row, ensure_ascii=False, default=_plain, allow_nan=False) for row in named]
    return "[" + ",\n ".join(lines) + "]"


def records_csv(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """CSV with a heading; nested values as JSON, texts as ``csv_text`` makes them."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(map(csv_text, columns))
    writer.writerows(map(_csv_cell, row) for row in rows)
    return out.getvalue().rstrip("\n")


def csv_text(text: str) -> str:
    """A text for a spreadsheet: printable, and with a quotation mark before what would be taken for
    a formula.

    A text that is nothing but a number stays as it is.
    """
    clean = printable(text)
    # A spreadsheet skips leading spaces before it takes a cell for a formula (CSV injection,
    # https://owasp.org/www-community/attacks/CSV_Injection).
    begins = clean.lstrip(" \N{REPLACEMENT CHARACTER}")[:1]
    return f"'{clean}" if begins and begins in _FORMULA and not _NUMBER.fullmatch(clean) else clean


def _csv_cell(value: Any) -> str:
    cell = _cell(value, "")
    return cell if value is None or isinstance(value, int | float | Decimal) else csv_text(cell)


def _cell(value: Any, nothing: str = "NULL") -> str:
    if value is None:
        return nothing
    if isinstance(value, str):
        return value
    # Before the numbers: a bool is an int in Python.
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, datetime | date | Decimal | bytes):
        return str(_plain(value))
    if isinstance(value, dict | list | tuple | set | frozenset):
        return json.dumps(value, ensure_ascii=False, default=_plain)
    return str(value)


def _finite(value: Any) -> Any:
    """The value with null for infinities and NaN, which JSON does not have."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    return (
        [_finite(item) for item in value]
        if isinstance(value, list | tuple | set | frozenset)
        else value
    )


def _plain(value: Any) -> Any:
    """What JSON has no word for."""
    if isinstance(value, datetime):
        return iso_time(value)
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Decimal):
        # "f" because normalize() turns 100 into 1E+2; zero would keep its exponent.
        return format(value.normalize(), "f") if value else "0"
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return str(value)
