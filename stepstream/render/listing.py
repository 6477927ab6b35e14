"""Tables that fit the terminal, or rows with one column a line.

What does not fit is left out by whole columns, whose names are printed below. Ids, numbers and
times are never truncated. Prose is wrapped; long names are truncated with an ellipsis.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from stepstream.render.values import clip
from stepstream.schemas.formatting import format_number_of

GAP: Final = 2
"""Cells between two columns."""
LEAST_PROSE: Final = 24
"""A column of prose is folded down to this many cells before other columns are left out."""
MOST_PROSE: Final = 60
"""And up to this many it is not folded while there is room."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its heading, and what becomes of it where there is too little room."""

    name: str
    right: bool = False
    prose: bool = False
    """Sentences, which may be folded."""
    leaves: int = 0
    """When it is left out: the highest first; 0: never."""
    least: int = 0
    """A name may be cut down to this many cells; 0: never."""


def listing(
    columns: Sequence[Column],
    rows: Iterable[Sequence[Text]],
    width: int | None,
    *,
    ellipsis: str = "…",
) -> tuple[Table, list[str]]:
    """The table within ``width`` (None: any width), and the names of the columns left out."""
    listed = [list(row) for row in rows]
    widths = [_natural(column, [row[i] for row in listed]) for i, column in enumerate(columns)]
    shown, left_out = list(range(len(columns))), list[int]()
    if width is not None:
        if _taken(shown, widths) > width:  # leave out columns without any value first
            shown = [
                i for i in shown if not columns[i].leaves or any(row[i].plain for row in listed)
            ]
        while _taken(shown, _least(columns, widths)) > width:
            # Columns with 0 are never left out: the table is then wider than asked, and is wrapped.
            candidates = [i for i in shown if columns[i].leaves]
            if not candidates:
                break
            gone = max(candidates, key=lambda i: (columns[i].leaves, i))
            shown.remove(gone)
            left_out.append(gone)
        _fold(columns, widths, shown, width)
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1))
    for i in shown:
        column = columns[i]
        table.add_column(
            Text(column.name),
            justify="right" if column.right else "left",
            no_wrap=not column.prose,
            overflow="fold" if column.prose else "crop",
            width=widths[i],
        )
    for row in listed:
        table.add_row(
            *(_cut(row[i], widths[i], ellipsis) if columns[i].least else row[i] for i in shown)
        )
    return table, [columns[i].name for i in sorted(left_out)]


def left_out_words(names: Sequence[str]) -> str:
    """What stands below a table from which columns were left out."""
    count = format_number_of(len(names), "column")
    return (
        f"{count} left out: {', '.join(names)} (wider terminal or --format json)" if names else ""
    )


def fits(columns: Sequence[Column], rows: Sequence[Sequence[Text]], width: int) -> bool:
    """Whether every column fits without being folded."""
    widths = [_natural(column, [row[i] for row in rows]) for i, column in enumerate(columns)]
    return _taken(range(len(columns)), widths) <= width


def below_one_another(
    columns: Sequence[str], rows: Iterable[Sequence[Text]], rule: str = "-"
) -> Text:
    """Each row as lines of ``column  value``, in full; for rows that are too wide for a table."""
    most = max(map(cell_len, columns), default=0)
    lines: list[Text] = []
    for number, row in enumerate(rows, start=1):
        heading = f"row {number:,} "
        lines.append(Text(heading + rule * max(3, most + 10 - cell_len(heading)), style="bold"))
        for name, value in zip(columns, row, strict=True):
            line = Text(name + " " * (most - cell_len(name) + GAP), style="dim")
            line.append_text(Text(value.plain))
            lines.append(line)
    return Text("\n").join(lines)


def _natural(column: Column, cells: Sequence[Text]) -> int:
    widest = max((cell_len(line) for cell in cells for line in cell.plain.split("\n")), default=0)
    return max(cell_len(column.name), widest)


def _least(columns: Sequence[Column], widths: Sequence[int]) -> list[int]:
    return [
        min(wide, _narrowest(column) or wide) for column, wide in zip(columns, widths, strict=True)
    ]


def _narrowest(column: Column) -> int:
    """How narrow the column may become; 0: no narrower than it is."""
    return max(
        LEAST_PROSE if column.prose else column.least, cell_len(column.name) if column.least else 0
    )


def _cut(cell: Text, cells: int, ellipsis: str) -> Text:
    return (
        cell
        if cell_len(cell.plain) <= cells
        else Text(clip(cell.plain, cells, ellipsis), style=cell.style)
    )


def _taken(shown: Iterable[int], widths: Sequence[int]) -> int:
    listed = list(shown)
    return sum(widths[i] for i in listed) + GAP * max(0, len(listed) - 1)


def _fold(columns: Sequence[Column], widths: list[int], shown: Sequence[int], width: int) -> None:
    """Narrow the columns that may be narrowed, the widest first, down to their minimum."""
    while (excess := _taken(shown, widths) - width) > 0:
        narrower = [i for i in shown if 0 < _narrowest(columns[i]) < widths[i]]
        if not narrower:
            return
        widest = max(narrower, key=lambda i: widths[i])
        # Step by step down to the next widest, so that two wide columns share the loss.
        next_widest = max(
            [widths[i] for i in narrower if i != widest and widths[i] < widths[widest]], default=0
        )
        least = max(_narrowest(columns[widest]), min(next_widest, widths[widest] - 1))
        widths[widest] = max(least, widths[widest] - excess)
