"""Listings for people and for programs."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime
from decimal import Decimal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from stepstream.render.listing import Column, below_one_another, fits, left_out_words, listing
from stepstream.render.rows import RunRow
from stepstream.render.tables import records_cells, records_csv, records_json, runs_cells

COLUMNS = ["agent", "usd", "at", "tags", "ratio"]
ROW = (
    "support",
    Decimal("0.300000000"),
    datetime(2026, 3, 1, 12, 3, 7, tzinfo=UTC),
    {"a": [1, None]},
    float("nan"),
)


def printed(table: Table, width: int = 400) -> str:
    out = io.StringIO()
    Console(file=out, width=width, color_system=None).print(table)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def test_json_is_json_and_money_keeps_every_digit() -> None:
    """Decimals are strings as on the wire, times are UTC, values that JSON lacks are null."""
    assert json.loads(records_json(COLUMNS, [ROW])) == [
        {
            "agent": "support",
            "usd": "0.3",
            "at": "2026-03-01T12:03:07.000000Z",
            "tags": {"a": [1, None]},
            "ratio": None,
        }
    ]
    assert json.loads(records_json(COLUMNS, [])) == []


def test_csv_reads_back() -> None:
    """Commas, quotes and line breaks are kept; nested values are JSON; NULL is empty."""
    text = records_csv(["a", "b", "c"], [('x,"y"\nz', [1, 2], None)])
    assert list(csv.reader(io.StringIO(text))) == [["a", "b", "c"], ['x,"y"\nz', "[1, 2]", ""]]


def test_values_of_an_answer_are_whole_and_markup_is_text() -> None:
    """However long a value is: what does not fit a table is shown below one another."""
    # Square brackets are rich's markup: text of an agent must not colour anything.
    columns, cells = records_cells(["n", "text"], [(7, "long " * 100), (8, "[red]x[/red]")])
    text = printed(listing(columns, cells, None)[0], width=2_000)
    assert ("long " * 100).strip() in text
    assert "[red]x[/red]" in text
    assert not fits(columns, cells, 80)
    lines = below_one_another([column.name for column in columns], cells).plain.splitlines()
    assert lines == [
        "row 1 --------",
        "n     7",
        "text  " + ("long " * 100).strip(),
        "row 2 --------",
        "n     8",
        "text  [red]x[/red]",
    ]


def test_what_does_not_fit_is_left_out_by_whole_columns_and_named() -> None:
    """Prose is folded first; ids and numbers are complete or left out and listed below."""
    columns = [
        Column("trace_id"), Column("name", leaves=1), Column("tokens", right=True, leaves=2),
        Column("why", prose=True, leaves=3),
    ]  # fmt: skip
    cells = [
        [Text("f" * 32), Text("n" * 20), Text("1,234,567"), Text("because of this and that " * 4)]
    ]
    # Every width: errors of one cell show only at the widths where a column just fits.
    for width in range(20, 200):
        table, left_out = listing(columns, cells, width)
        lines = printed(table, width=max(width, 32)).splitlines()
        assert "f" * 32 in lines[1]
        assert ("1,234,567" in lines[1]) == ("tokens" not in left_out)
        assert ("n" * 20 in lines[1]) == ("name" not in left_out)
        if width >= 32:
            assert max(map(len, lines)) <= width
        folded = " ".join(
            line[len("f" * 32) :].split("1,234,567")[-1].strip() for line in lines[1:]
        )
        assert ("why" in left_out) or folded.endswith(("because of this and that " * 4).strip())
    assert listing(columns, cells, 60)[1] == ["tokens", "why"]
    assert left_out_words(["tokens", "why"]).startswith("2 columns left out: tokens, why ")
    assert listing(columns, cells, None)[1] == []


def test_at_80_columns_runs_have_whole_ids_costs_and_states() -> None:
    """At 80 columns the id can be pasted, the cost is a number, missing columns are listed."""
    start = 1_772_366_587_000_000
    runs = [
        RunRow(
            trace_id="4bf92f3577b34da6a3ce929d0e0e4736", status="incomplete", start_us=start,
            end_us=start + 3_723_000_000,
            agent="support-of-the-shop", task="refund-of-an-order", steps=1_234, error_steps=12,
            cost_nanos=1_234_567_800_000,
            unpriced_steps=2,
        ),
    ]  # fmt: skip
    table, left_out = listing(*runs_cells(runs, {}, now_us=start, zone=UTC), 80)
    text = printed(table, width=80)
    assert all(
        part in text for part in ("4bf92f35", "$1,234.57 + ?", "incomplete", "support-of-t…")
    )
    assert max(map(len, text.splitlines())) <= 80
    assert left_out


def test_runs_are_listed_with_what_matters_and_the_zone() -> None:
    """Time with zone, run, agent, status, duration, cost.

    Open times and unknown costs are marked.
    """
    start = 1_772_366_587_000_000
    runs = [
        RunRow(
            trace_id="4bf92f3577b34da6a3ce929d0e0e4736", status="running", start_us=start,
            end_us=start, agent="support",
            task="refund", steps=12, error_steps=1, cost_nanos=12_300_000, unpriced_steps=2,
        ),
        RunRow(trace_id="a" * 32, status="ok", start_us=start, end_us=start + 1_250_000,
        agent="buyer", steps=3),
    ]  # fmt: skip
    text = printed(
        listing(*runs_cells(runs, {"a" * 32: 2}, now_us=start + 3_000_000, zone=UTC), None)[0]
    )
    assert text.splitlines() == [
        "started (UTC)        run       agent    task    status     time  steps  failed"
        "         cost  alerts",
        "2026-03-01 12:03:07  4bf92f35  support  refund  running    3 s+     12       1"
        "  $0.0123 + ?",
        "2026-03-01 12:03:07  aaaaaaaa  buyer            ok       1.25 s      3        "
        "           $0       2",
    ]
