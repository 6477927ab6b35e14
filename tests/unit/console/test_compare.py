"""Steps of two runs are aligned by what they did."""

from __future__ import annotations

from typing import Any

from stepstream.console.compare import COLUMNS, aligned, sentence


def steps(*names: str) -> list[dict[str, Any]]:
    return [
        {
            "step_id": f"{number}",
            "parent_step_id": "",
            "start_us": number,
            "kind": "tool_call",
            "name": name,
            "tool": name,
            "model": "",
            "status": "ok",
            "duration_us": 5,
            "cost_usd": None,
            "error_type": "",
        }
        for number, name in enumerate(names)
    ]


def test_an_inserted_step_does_not_shift_the_rest() -> None:
    rows = aligned(steps("search", "refund", "mail"), steps("search", "ask", "refund", "mail"))

    assert [(row[0], row[2]) for row in rows] == [
        ("both", "search"),
        ("b", "ask"),
        ("both", "refund"),
        ("both", "mail"),
    ]
    assert all(len(row) == len(COLUMNS) for row in rows)
    assert sentence(rows).startswith("3 steps are the same in both runs, 0 only in the first, 1")


def test_a_run_without_steps() -> None:
    assert [row[0] for row in aligned([], steps("search"))] == ["b"]
    assert aligned([], []) == []
