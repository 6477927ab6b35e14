"""Prints pictures and listings: on a terminal in colour and its width, else as plain lines."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any, Final

from rich.console import RenderableType
from rich.style import Style
from rich.table import Table
from rich.text import Text

from stepstream.cli.options import Format
from stepstream.cli.queries import Trace
from stepstream.common import terminal
from stepstream.render.answers import answer_cells
from stepstream.render.glyphs import Glyphs, glyphs_for
from stepstream.render.heading import View
from stepstream.render.listing import Column, below_one_another, fits, left_out_words, listing
from stepstream.render.tables import fields_text, records_cells, records_csv, records_json
from stepstream.render.tree import render_trace
from stepstream.render.values import fold_text

PICTURE_CELLS: Final = 120
"""Width of a picture in a file or a pipe; a terminal gets at most 20 cells more."""
PIPE_CELLS: Final = 500
"""Wider rows are printed with one column a line, in a file or a pipe as well."""
MOST_AS_FIELDS: Final = 5
"""Up to this many rows of an answer that are too wide are printed with one column a line."""
MIN_FOLDED: Final = 20
RUN_COLUMNS: Final = ("run", "trace_id")
RUN_ID: Final = re.compile(r"[0-9a-f]{8,32}")
_ENDLESS: Final = 100_000


def glyphs() -> Glyphs:
    """The symbols that the encoding of standard output has."""
    return glyphs_for(sys.stdout.encoding)


def picture_width() -> int:
    """Cells for a picture on standard output."""
    return (
        min(terminal.console().width, PICTURE_CELLS + 20) if sys.stdout.isatty() else PICTURE_CELLS
    )


def show(what: RenderableType) -> None:
    """Print; for a file or a pipe without truncation, padding and colour."""
    terminal.tolerate(sys.stdout)
    if sys.stdout.isatty():
        what = linked(what) if isinstance(what, Text) else what
        console = terminal.console(soft_wrap=isinstance(what, Text))
        # A table was made for this width, or cannot be narrower: the terminal wraps the rest.
        if isinstance(what, Table):
            console.width = max(console.width, console.measure(what).minimum)
        console.print(what)
        return
    # Rich pads to the width: lines are stripped below, so that files have no trailing spaces.
    console = terminal.console(width=_ENDLESS, color_system=None)
    with console.capture() as captured:
        console.print(what)
    terminal.echo(*(line.rstrip() for line in captured.get().splitlines()))


def linked(text: Text) -> Text:
    """The text with hyperlinks on the runs and alerts that it names."""
    links = terminal.links().of(text.plain)
    if not links:
        return text
    text = text.copy()
    for link in links:
        text.stylize(Style(link=link.address), link.start, link.end)
    return text


def show_folded(text: Text, *, indent: int) -> None:
    """Print lines, wrapped between words if the terminal is too narrow."""
    if not sys.stdout.isatty():
        show(text)
        return
    width = max(indent + MIN_FOLDED, terminal.console().width)
    show(
        Text("\n").join(
            piece
            for line in text.split("\n", allow_blank=True)
            for piece in fold_text(line, width, indent)
        )
    )


def note(text: str) -> None:
    """Print a note on standard error: it is not part of the output."""
    terminal.remark(text)


def print_records(columns: Sequence[str], rows: Iterable[Sequence[Any]], format: Format) -> None:
    """Print a listing in the given format."""
    if format is Format.JSON:
        terminal.echo_json(records_json(columns, rows))
    elif format is Format.CSV:
        terminal.echo_csv(records_csv(columns, rows))
    else:
        _show_records(columns, list(rows))


def print_answer(
    columns: Sequence[str], rows: Sequence[Sequence[Any]], sentence: str, format: Format
) -> None:
    """Print the answer to a question; as a table with the sentence that explains it."""
    if format is not Format.TABLE:
        print_records(columns, rows, format)
        return
    shaped, cells = answer_cells(columns, rows)
    width = terminal.console().width if sys.stdout.isatty() else PIPE_CELLS
    if rows and (len(rows) > MOST_AS_FIELDS or fits(shaped, cells, width)):
        show_listing(shaped, cells)
    elif rows:
        show(below_one_another([column.name for column in shaped], cells))
    show_folded(Text(sentence if not rows else f"\n{sentence}"), indent=0)


def show_listing(columns: Sequence[Column], rows: Sequence[Sequence[Text]]) -> None:
    """Print a table of the terminal's width, and the names of columns that do not fit."""
    is_terminal = sys.stdout.isatty()
    width = terminal.console().width if is_terminal else None
    columns, rows = linked_cells(columns, rows, is_terminal=is_terminal)
    table, left_out = listing(columns, rows, width, ellipsis=glyphs().ellipsis)
    show(table)
    if left_out:
        show_folded(Text(left_out_words(left_out), style="dim"), indent=2)


def linked_cells(
    columns: Sequence[Column], rows: Iterable[Sequence[Text]], *, is_terminal: bool
) -> tuple[Sequence[Column], list[Sequence[Text]]]:
    """A table with hyperlinks on its runs; for a file or a pipe with a column of addresses."""
    listed = list(rows)
    place = next((i for i, one in enumerate(columns) if one.name in RUN_COLUMNS), None)
    base = terminal.links().base if place is not None and listed else ""
    if place is None or not base:
        return columns, listed
    for row in listed:
        if is_terminal and RUN_ID.fullmatch(row[place].plain):
            row[place].stylize(Style(link=f"{base}/runs/{row[place].plain}"))
    if is_terminal:
        return columns, listed
    addresses = [
        Text(f"{base}/runs/{cell}" if RUN_ID.fullmatch(cell := row[place].plain) else "")
        for row in listed
    ]
    return [*columns, Column("link")], [
        [*row, to] for row, to in zip(listed, addresses, strict=True)
    ]


def _show_records(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """All columns of a query; rows that are too wide for a table with one column a line."""
    if not rows:
        note("no rows")
        return
    shaped, cells = records_cells(columns, rows)
    if fits(shaped, cells, terminal.console().width if sys.stdout.isatty() else PIPE_CELLS):
        found = linked_cells(shaped, cells, is_terminal=sys.stdout.isatty())
        show(listing(*found, None)[0])
    else:
        show(below_one_another([column.name for column in shaped], cells))


def steps_text(trace: Trace) -> Text:
    """The steps of a trace with every field that has a value, in full."""
    parts = []
    for record in trace.step_records:
        filled = {
            name: value for name, value in record.items() if value not in (None, "", 0, [], {})
        }
        parts.append(fields_text(f"step {record['step_id']}", filled))
    return Text("\n").join(parts)


def trace_text(
    trace: Trace, *, width: int | None, contents: bool, full: bool, limit: int, now_us: int
) -> Text:
    """The picture of a run, for standard output."""
    cells = width or picture_width()
    view = View(
        width=cells, now_us=now_us, contents=contents, full=full, limit=limit, glyphs=glyphs()
    )
    return render_trace(trace.steps, trace.run, trace.alerts, view, trace.notes)
