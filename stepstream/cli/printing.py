"""Putting pictures and listings on standard output: a terminal gets colour and its width, anything else plain whole lines."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any, Final

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from stepstream.cli.options import Format
from stepstream.cli.queries import Trace
from stepstream.common import terminal
from stepstream.render.glyphs import Glyphs, glyphs_for
from stepstream.render.heading import View
from stepstream.render.listing import Column, below_one_another, fits, left_out_words, listing
from stepstream.render.tables import fields_text, records_cells, records_csv, records_json
from stepstream.render.tree import render_trace
from stepstream.render.values import fold_text

PICTURE_CELLS: Final = 120
"""Width of a picture that goes to a file or a pipe, and the most that a wide terminal gets."""
PIPE_CELLS: Final = 500
"""Rows that are wider than this are shown one below another in a file or a pipe, too."""
MIN_FOLDED: Final = 20
_ENDLESS: Final = 100_000


def glyphs() -> Glyphs:
    """The signs that standard output can say."""
    return glyphs_for(sys.stdout.encoding)


def picture_width() -> int:
    """Cells for a picture on standard output."""
    return (
        min(terminal.console().width, PICTURE_CELLS + 20) if sys.stdout.isatty() else PICTURE_CELLS
    )


def show(what: RenderableType) -> None:
    """Print; lines that go to a file or a pipe are neither cut nor padded, and what cannot be encoded is replaced."""
    terminal.tolerate(sys.stdout)
    if sys.stdout.isatty():
        console = terminal.console(soft_wrap=isinstance(what, Text))
        if isinstance(
            what, Table
        ):  # it was made for this width, or cannot be narrower: what would be cut is wrapped instead
            console.width = max(console.width, console.measure(what).minimum)
        console.print(what)
        return
    console = terminal.console(width=_ENDLESS, color_system=None)
    with console.capture() as captured:
        console.print(what)
    terminal.say(*(line.rstrip() for line in captured.get().splitlines()))


def show_folded(text: Text, *, indent: int) -> None:
    """Lines that are folded between words where the terminal is too narrow, what follows of each under an indent."""
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
    """A remark that is not part of the answer."""
    terminal.remark(text)


def print_records(columns: Sequence[str], rows: Iterable[Sequence[Any]], format: Format) -> None:
    """Print a listing in the form asked for."""
    if format is Format.JSON:
        terminal.say_json(records_json(columns, rows))
    elif format is Format.CSV:
        terminal.say(records_csv(columns, rows))
    else:
        _show_records(columns, list(rows))


def show_listing(columns: Sequence[Column], rows: Sequence[Sequence[Text]]) -> None:
    """A table within the terminal's width, and below it the names of the columns that were left out."""
    is_terminal = sys.stdout.isatty()
    width = terminal.console().width if is_terminal else None
    table, left_out = listing(columns, rows, width, ellipsis=glyphs().ellipsis)
    show(table)
    if left_out:
        show_folded(Text(left_out_words(left_out), style="dim"), indent=2)


def _show_records(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """An answer of the store, with nothing left out: rows that are too wide for a table are shown one below another."""
    if not rows:
        note("no rows")
        return
    shaped, cells = records_cells(columns, rows)
    if fits(shaped, cells, terminal.console().width if sys.stdout.isatty() else PIPE_CELLS):
        show(listing(shaped, cells, None)[0])
    else:
        show(below_one_another([column.name for column in shaped], cells))


def steps_text(trace: Trace) -> Text:
    """The steps of a trace with every field that has a value, in full."""
    parts = []
    for record in trace.step_records:
        said = {name: value for name, value in record.items() if value not in (None, "", 0, [], {})}
        parts.append(fields_text(f"step {record['step_id']}", said))
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
