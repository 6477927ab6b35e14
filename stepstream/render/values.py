"""Single values as people read them: money, counts, times, ids, and text that is safe to print."""

from __future__ import annotations

from datetime import datetime, tzinfo

from rich.cells import cell_len
from rich.text import Text

from stepstream.schemas.times import time_of

SHORT_ID_CHARS = 8


def format_clock(time_us: int, zone: tzinfo | None = None) -> str:
    """The time of day: ``12:03:07``. ``zone`` None is this machine's."""
    return _local(time_us, zone).strftime("%H:%M:%S")


def format_time(time_us: int, zone: tzinfo | None = None) -> str:
    """Date and time without a zone, for a column whose heading has it: ``2026-03-01 12:03:07``."""
    return _local(time_us, zone).strftime("%Y-%m-%d %H:%M:%S")


def zone_name(time_us: int, zone: tzinfo | None = None) -> str:
    """The zone that holds at a time: ``CET``, ``UTC``, ``+03``."""
    return _local(time_us, zone).tzname() or "local"


def _local(time_us: int, zone: tzinfo | None) -> datetime:
    return time_of(time_us).astimezone(zone)


def short_id(trace_id: str) -> str:
    """The beginning of an id, enough to name it by."""
    return trace_id[:SHORT_ID_CHARS]


def one_line(text: str) -> str:
    """Text on one line with control characters replaced."""
    # Agents' texts must not control the terminal (colours, cursor, title, clipboard).
    return _printable(" ".join(text.split()))


def _printable(line: str) -> str:
    return (
        line
        if line.isprintable()
        else "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line)
    )


def clean_lines(text: str) -> list[str]:
    """The lines of a text, spaces kept, tabs as spaces and control characters replaced."""
    return [_printable(line) for line in text.expandtabs(4).splitlines() or [""]]


def folded(line: str, cells: int) -> list[str]:
    """The line split into pieces of at most ``cells``, at spaces if possible."""
    pieces, start = [], 0
    while (end := _fold_end(line, start, cells)) < len(line):
        pieces.append(line[start:end])
        start = end + 1 if line[end] == " " else end
    return [*pieces, line[start:]]


def _fold_end(line: str, start: int, cells: int) -> int:
    """Where the piece that begins at ``start`` ends."""
    # Only the next characters are measured: measuring all of the rest for each piece took 60 s for
    # a line of 1 MB. Characters of no width may make a piece longer than this.
    measured = 2 * cells + 1
    while cell_len(rest := line[start : start + measured]) <= cells:
        if start + measured >= len(line):
            return len(line)
        measured *= 2
    end = max(1, _chars_that_fit(rest, cells))
    space = rest.rfind(" ", 1, end + 1)
    return start + (space if space > 0 and rest[:space].strip() else end)


def _chars_that_fit(text: str, cells: int) -> int:
    # Not rich's set_cell_size: it raises for some texts with modifiers of emoji (rich 15.0).
    end = min(cells, len(text))
    while end > 0 and cell_len(text[:end]) > cells:  # wide characters
        end -= 1
    # Characters of no width may follow: measured one by one, 4,000 of them took 2 s.
    step = 1
    while step and end < len(text):
        if cell_len(text[: end + step]) <= cells:
            end = min(end + step, len(text))
            step *= 2
        else:
            step //= 2
    return end


def fold_text(line: Text, width: int, indent: int) -> list[Text]:
    """The line split to fit ``width``, with its styles; further pieces are indented."""
    plain, found, start, room = line.plain, [], 0, width
    while (end := _fold_end(plain, start, room)) < len(plain):
        found.append(line[start:end])
        # The space at which the line breaks is not repeated on the next one.
        start = end + 1 if plain[end] == " " else end
        room = max(1, width - indent)
    return [
        piece if number == 0 else Text(" " * indent) + piece
        for number, piece in enumerate([*found, line[start:]])
    ]


def clip(text: str, cells: int, ellipsis: str = "…") -> str:
    """The text cut to a width in terminal cells; a cut is shown by ``ellipsis``, one cell wide."""
    if cells <= 0:
        return ""
    if cell_len(text) <= cells:
        return text
    return text[: _chars_that_fit(text, cells - 1)].rstrip() + ellipsis


def fit(text: str, cells: int, *, right: bool = False, ellipsis: str = "…") -> str:
    """The text at exactly a width in terminal cells, cut or padded."""
    clipped = clip(text, cells, ellipsis)
    padding = " " * max(0, cells - cell_len(clipped))
    return padding + clipped if right else clipped + padding
