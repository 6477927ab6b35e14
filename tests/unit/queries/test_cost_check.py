"""Usage exports of providers: columns by their usual names, days, models, wrong lines."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

import pytest

from stepstream.queries.cost_check import compared, plain_model, read_export
from stepstream.queries.parameters import QuestionError

DAY = date(2026, 3, 1)


@pytest.mark.parametrize(
    ("head", "row"),
    [
        ("date,model,cost", "2026-03-01,gpt-4o,1.5"),
        ("Usage_Date,Line_Item,Amount", "2026-03-01,gpt-4o,$1.50"),
        ("start_time,x,snapshot,amount_value", "1772323200,1,gpt-4o,1.5"),
        ("timestamp,model,cost_usd", "2026-03-01T23:30:00+00:00,gpt-4o,1.50"),
        ("timestamp,model,cost_usd", "2026-03-02T00:30:00+02:00,gpt-4o,1.50"),
    ],
)
def test_columns_and_days_are_found_by_their_usual_names(head: str, row: str) -> None:
    (billed,) = read_export([head, row])
    assert (billed.day, billed.model, billed.cost_usd) == (DAY, "gpt-4o", Decimal("1.5"))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "no column with a day: one of date.* it has no heading"),
        (["date,model", "2026-03-01,a"], "no column with a cost"),
        (["date,model,cost"], "the file has no rows"),
        (
            ["date,model,cost", "2026-03-01,a,1", "2026-03-01,a,much"],
            "line 3: 'much' is not a cost",
        ),
        (["date,model,cost", "2026-03-01,a,nan"], "line 2: 'nan' is not a cost"),
        (["date,model,cost", "March,a,1"], "line 2: 'March' is not a day"),
        (["date,model,cost", "99999999999999999,a,1"], "is not a day"),
        (["date,model,cost", "0001-01-01T00:00:00+14:00,a,1"], "line 2: .* is not a day"),
        (["date,model,cost", "2026-03-01,a,9e999999"], "line 2: '9e999999' is not a cost"),
        (["date,model,cost", "2026-03-01,a,1e-999999"], "line 2: '1e-999999' is not a cost"),
        (
            ["date,model,cost", f"2026-03-01,{'a' * 200_000},1"],
            "after line 1: field larger than field limit",
        ),
    ],
)
def test_what_cannot_be_read_is_an_error_with_its_line(lines: list[str], message: str) -> None:
    with pytest.raises(QuestionError, match=message):
        read_export(lines)


@pytest.mark.parametrize(
    ("model", "plain"),
    [
        ("gpt-4o-2024-08-06", "gpt-4o"),
        ("claude-sonnet-4-20250514", "claude-sonnet-4"),
        ("claude-3-5-sonnet-latest", "claude-3-5-sonnet"),
        ("openai/GPT-4o", "gpt-4o"),
        ("gpt-4o", "gpt-4o"),
    ],
)
def test_models_are_compared_without_date_and_provider(model: str, plain: str) -> None:
    assert plain_model(model) == plain


def test_rows_of_one_side_alone_are_compared_with_nothing() -> None:
    billed = read_export(["date,model,cost", "2026-03-01,a-2026-01-01,1", "2026-03-01,b,2"])
    ours = [
        {"day": DAY, "model": "a", "steps": 3, "usd": Decimal("0.9"), "unpriced_steps": 1},
        {"day": DAY, "model": "c", "steps": 1, "usd": Decimal(5), "unpriced_steps": 0},
    ]
    rows = compared(billed, ours)
    assert [(row["model"], row["difference_usd"]) for row in rows] == [
        ("c", Decimal(5)),
        ("b", Decimal(-2)),
        ("a", Decimal("-0.1")),
    ]
    assert rows[2]["difference_share"] == pytest.approx(-0.1)
    assert rows[0]["difference_share"] is None
