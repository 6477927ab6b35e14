"""Putting pictures and listings on standard output: a terminal gets colour and its width, anything else plain whole lines."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any, Final

from rich.console import RenderableType
from rich.text import Text

from stepstream import terminal
from stepstream.cli.common import Format
from stepstream.cli.queries import Trace
from stepstream.render.glyphs import Glyphs, glyphs_for
from stepstream.render.heading import View
from stepstream.render.tables import records_csv, records_json, records_table
from stepstream.render.tree import render_trace

PICTURE_CELLS: Final = 120
"""Width of a picture that goes to a file or a pipe, and the most that a wide terminal gets."""
_ENDLESS: Final = 100_000


def glyphs() -> Glyphs:
    """The signs that standard output can say."""
    return glyphs_for(sys.stdout.encoding)


def picture_width() -> int:
    """Cells for a picture on standard output."""
    return min(terminal.console().width, PICTURE_CELLS + 20) if sys.stdout.isatty() else PICTURE_CELLS


def show(what: RenderableType) -> None:
    """Print; lines that go to a file or a pipe are neither cut nor padded, and what cannot be encoded is replaced."""
    terminal.tolerate(sys.stdout)
    if sys.stdout.isatty():
        terminal.console(soft_wrap=isinstance(what, Text)).print(what)
        return
    console = terminal.console(width=_ENDLESS, color_system=None)
    with console.capture() as captured:
        console.print(what)
    terminal.say(*(line.rstrip() for line in captured.get().splitlines()))


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
        show(records_table(columns, rows, glyphs=glyphs()))


def trace_text(trace: Trace, *, width: int | None, contents: bool, limit: int, now_us: int) -> Text:
    """The picture of a run, for standard output."""
    view = View(width=width or picture_width(), now_us=now_us, contents=contents, limit=limit, glyphs=glyphs())
    return render_trace(trace.steps, trace.run, trace.alerts, view)
