"""What commands share when they print: tables, JSON, CSV; and the check of an option's words."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from stepstream.cli.options import Format
from stepstream.common.terminal import echo, echo_csv, echo_json, remark
from stepstream.schemas.printable import printable


def one_of(option: str, given: str | None, known: Sequence[str]) -> None:
    """Raise ``Failure`` where something was given for an option that is none of the known words."""
    if given and given not in known:
        # Imported here, as in all commands: `stepstream --help` and valid calls load less.
        from stepstream.cli.errors import USAGE, Failure
        from stepstream.schemas.suggestions import did_you_mean

        hint = did_you_mean(given, known, otherwise=f"one of {', '.join(known)}")
        raise Failure(f"{option} {given}: {hint}", USAGE)


def print_rows(
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
    format: Format = Format.TABLE,
    *,
    empty: str = "",
    prose: Sequence[str] = (),
    leave: Sequence[str] = (),
    keep: Sequence[str] = (),
) -> None:
    """Print a listing as a table, a JSON array of objects, or CSV.

    An empty table is the note ``empty``. On a terminal the columns ``prose`` are wrapped, and
    columns that do not fit are left out: first those of ``leave`` in that order, then from the last
    on, but never the first one and those of ``keep``.
    """
    # A list, because the widths of all rows are needed before the first one is printed.
    listed = list(rows)
    if format is not Format.TABLE:
        from stepstream.render.tables import records_csv, records_json

        if format is Format.JSON:
            echo_json(records_json(columns, listed))
        else:
            echo_csv(records_csv(columns, listed))
    elif not listed and empty:
        remark(empty)
    else:
        _print_table(
            columns, [[_cell(value) for value in row] for row in listed], prose, leave, keep
        )


def print_json(data: Any, *, indent: int | None = 1) -> None:
    """Print data as JSON."""
    echo_json(json.dumps(data, indent=indent, default=str, ensure_ascii=False))


def _print_table(
    columns: Sequence[str],
    texts: list[list[str]],
    prose: Sequence[str],
    leave: Sequence[str],
    keep: Sequence[str],
) -> None:
    if not sys.stdout.isatty():
        # Plain text without wrapping: in a pipe every row stays on one line, for grep and awk.
        widths = [max(map(len, column)) for column in zip(columns, *texts, strict=True)]
        for line in ([column.upper() for column in columns], *texts):
            echo(
                "  ".join(
                    text.ljust(width) for text, width in zip(line, widths, strict=True)
                ).rstrip()
            )
        return
    from rich.text import Text

    from stepstream.cli.printing import show_listing
    from stepstream.render.listing import Column

    # The first columns identify a row, so a narrow terminal loses the last ones first.
    order = [
        *leave,
        *(name for name in reversed(columns[1:]) if name not in leave and name not in keep),
    ]
    ranks = {name: len(order) - place for place, name in enumerate(order)}
    shaped = [Column(name, prose=name in prose, leaves=ranks.get(name, 0)) for name in columns]
    show_listing(shaped, [[Text(text) for text in row] for row in texts])


def _cell(value: Any) -> str:
    """The value on one line; a time in the zone of this machine."""
    if isinstance(value, datetime):
        return value.astimezone().isoformat(timespec="seconds")
    return "" if value is None else " ".join(printable(str(value)).split())
