"""The tables of options that ``--help`` prints, with the names of options in full."""

from __future__ import annotations

from typing import Any

import typer.rich_utils
from rich.table import Table
from rich.text import Text

# Typer's columns: names, short names, negative names, their short ones, type, help; before them one
# with a mark where an option is required.
_COLUMNS = 6


class OptionTable(Table):
    """Prints the name of an option in full, whatever the width; its help has more lines then.

    Of a switch both names are one: ``--[no-]follow``.
    """

    def add_row(self, *cells: Any, **settings: Any) -> None:
        """Add a row, and keep the columns of names from being truncated."""
        row = list(cells)
        if len(row) >= _COLUMNS:
            first = len(row) - _COLUMNS
            row[first], row[first + 2] = _one_name(row[first], row[first + 2])
        super().add_row(*row, **settings)
        if len(row) >= _COLUMNS:
            for column in self.columns[: len(row) - 2]:
                column.no_wrap = True
            for column in self.columns[len(row) - 2 :]:
                column.overflow = "fold"


def _one_name(name: Any, negative: Any) -> tuple[Any, Any]:
    if not isinstance(name, Text) or not isinstance(negative, Text):
        return name, negative
    if not negative.plain or negative.plain != f"--no-{name.plain[2:]}":
        return name, negative
    return Text(f"--[no-]{name.plain[2:]}", style="bold cyan"), Text("")


def keep_names_whole() -> None:
    """Make Typer print its tables so, from now on."""
    setattr(typer.rich_utils, "Table", OptionTable)  # noqa: B010 (Typer does not export the name)
