"""Listings for people and for programs."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime
from decimal import Decimal

from rich.console import Console
from rich.table import Table

from stepstream.render.rows import RunRow
from stepstream.render.tables import records_csv, records_json, records_table, runs_table

COLUMNS = ["agent", "usd", "at", "tags", "ratio"]
ROW = ("support", Decimal("0.300000000"), datetime(2026, 3, 1, 12, 3, 7, tzinfo=UTC), {"a": [1, None]}, float("nan"))


def printed(table: Table) -> str:
    out = io.StringIO()
    Console(file=out, width=400, color_system=None).print(table)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def test_json_is_json_and_money_keeps_every_digit() -> None:
    """A decimal is a string as on the wire, a time is UTC, what JSON cannot say is null; a program can read it all."""
    assert json.loads(records_json(COLUMNS, [ROW])) == [
        {"agent": "support", "usd": "0.3", "at": "2026-03-01T12:03:07Z", "tags": {"a": [1, None]}, "ratio": None}
    ]
    assert json.loads(records_json(COLUMNS, [])) == []


def test_csv_reads_back() -> None:
    """Commas, quotes and line breaks in a value stay in it; nested values are JSON; NULL is empty."""
    text = records_csv(["a", "b", "c"], [('x,"y"\nz', [1, 2], None)])
    assert list(csv.reader(io.StringIO(text))) == [["a", "b", "c"], ['x,"y"\nz', "[1, 2]", ""]]


def test_a_table_cuts_long_cells_and_shows_it() -> None:
    """One long output does not push the other columns away, and markup in a value is text."""
    text = printed(records_table(["n", "text"], [(7, "long " * 100), (8, "[red]x[/red]")]))
    assert "…" in text
    assert "[red]x[/red]" in text
    assert max(map(len, text.splitlines())) < 100


def test_runs_are_listed_with_what_matters_and_the_zone() -> None:
    """When (with the zone), which, whose, how, how long, how much; open time and unknown cost have a sign."""
    start = 1_772_366_587_000_000
    runs = [
        RunRow(
            trace_id="4bf92f3577b34da6a3ce929d0e0e4736", status="running", start_us=start, end_us=start, agent="support",
            task="refund", steps=12, error_steps=1, cost_nanos=12_300_000, unpriced_steps=2,
        ),
        RunRow(trace_id="a" * 32, status="ok", start_us=start, end_us=start + 1_250_000, agent="buyer", steps=3),
    ]  # fmt: skip
    text = printed(runs_table(runs, {"a" * 32: 2}, now_us=start + 3_000_000, zone=UTC))
    assert text.splitlines() == [
        "started (UTC)        run       agent    task    status     time  steps  failed         cost  alerts",
        "2026-03-01 12:03:07  4bf92f35  support  refund  running    3 s+     12       1  $0.0123 + ?",
        "2026-03-01 12:03:07  aaaaaaaa  buyer            ok       1.25 s      3                   $0       2",
    ]
