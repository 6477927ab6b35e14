"""What `stepstream fleet` lists, made from records of the fleet topic."""

from __future__ import annotations

from typing import Any

import msgspec

from stepstream.fleet import BASELINES, BUDGETS, HOURS, baseline_rows, budget_rows, hour_rows
from stepstream.schemas.fleet import FleetBaselineStruct, FleetBudgetStruct
from tests.unit.usage_world import HOUR_US, MINUTE_US, T0, closed, play, progress, records, used


def test_an_hour_is_listed_once() -> None:
    """Parts of an hour are summed while it lasts; when it is over its own record stands for them."""
    items = [used("x", 1, 2, 5, input_tokens=7), closed("x", 1, 3, "error"), progress(20), used("y", 21, 2, 7), progress(40)]
    for log in (items, [*items, progress(200)]):
        kafka, _ = play(records(log), 0)
        values = [value for key, value in kafka.newest().items() if b"|window|" in key]
        (row,) = hour_rows(values, 0)
        got = dict(zip(HOURS, row, strict=True))
        assert (got["runs"], got["failed_runs"], got["steps"], got["tokens"], got["cost_usd"]) == (1, 1, 2, 7, "0.000000012")
        assert got["hour"] == "2023-11-15 00:00:00Z"
        assert float(got["p50_s"]) >= 1
        assert hour_rows(values, T0 + HOUR_US) == []


def test_budgets_are_listed_by_how_full_they_are() -> None:
    """The fullest first; what is over is not listed."""
    base: dict[str, Any] = {
        "project": "shop",
        "policy": "p",
        "per": "agent",
        "window": "day",
        "start": T0,
        "as_of": T0,
        "limit_usd": "10",
    }
    made = [
        FleetBudgetStruct(**base, alert=name, group="a", end=end, spent_usd=spent)
        for name, end, spent in (("low", T0 + HOUR_US, "1"), ("full", T0 + HOUR_US, "9.5"), ("over", T0, "99"))
    ]
    rows = [dict(zip(BUDGETS, row, strict=True)) for row in budget_rows(map(msgspec.json.encode, made), T0 + MINUTE_US)]
    assert [(row["alert"], row["share"], row["window"]) for row in rows] == [
        ("full", "95 %", "2023-11-15"),
        ("low", "10 %", "2023-11-15"),
    ]


def test_baselines_say_what_they_still_need() -> None:
    """Learning 12 of 30, until there are enough."""
    base: dict[str, Any] = {"project": "shop", "agent": "a", "as_of": T0, "wanted_runs": 30, "shares": [0.5, 0.99]}
    values = {"cost_nanos": [2e9, 5e9], "duration_us": [1e6, 4e6]}
    made = [FleetBaselineStruct(**base, task=task, runs=runs, values=values) for task, runs in (("x", 12), ("y", 40))]
    rows = [dict(zip(BASELINES, row, strict=True)) for row in baseline_rows(map(msgspec.json.encode, made))]
    assert [row["state"] for row in rows] == ["learning 12 of 30", "known"]
    assert (rows[0]["p50_usd"], rows[0]["p99_usd"], rows[0]["p99_s"]) == ("2", "5", "4")
