"""Values of answers as people read them."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from stepstream.render.answers import answer_cells, cell


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("cost_usd", Decimal("2.46"), "$2.46"),
        ("normal_usd", 0.5, "$0.50"),
        ("share", 0.756, "75.6%"),
        ("duration_us", 1_500_000, "1.5 s"),
        ("input_tokens", 12_345, "12k"),
        ("steps", 12_345, "12,345"),
        ("times", 70.000001, "70"),
        ("closed", True, "yes"),
        ("value", "", "(none)"),
        (
            "read",
            [("id", "tool_call", "a"), ("id2", "retrieval", "b")],
            "id (tool_call, a), id2 (retrieval, b)",
        ),
        ("normal_usd", None, ""),
        ("trace_id", "0123456789abcdef", "01234567"),
        ("output", "a\n\x1b[31mb", "a \ufffd[31mb"),
    ],
)
def test_a_value_is_shown_by_the_name_of_its_column(name: str, value: Any, shown: str) -> None:
    assert cell(name, value) == shown


def test_times_are_local_and_long_texts_are_cut() -> None:
    time = datetime(2026, 3, 1, tzinfo=UTC)
    assert cell("time", time) == cell("time", time.replace(tzinfo=None))
    assert len(cell("output", "x" * 10_000)) <= 400


def test_numbers_stand_on_the_right() -> None:
    columns, cells = answer_cells(["value", "steps"], [("a", 1), ("b", None)])
    assert [column.right for column in columns] == [False, True]
    assert [[one.plain for one in row] for row in cells] == [["a", "1"], ["b", ""]]
