"""What `stepstream fleet` lists, made from records of the fleet topic."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from stepstream.admin.fleet import (
    BASELINES,
    BUDGETS,
    HOURS,
    baseline_rows,
    budget_rows,
    hour_rows,
    uncounted_rows,
)
from stepstream.schemas.alert import Alert
from stepstream.schemas.fleet import FleetBaselineStruct, FleetBudgetStruct
from stepstream.schemas.policy import Policy
from stepstream.schemas.times import HOUR_US, MINUTE_US
from tests.support.usage_world import T0, closed, play, progress, records, used


def test_an_hour_is_listed_once() -> None:
    """Parts of an hour are summed while it lasts; when it is over its own record replaces them."""
    items = [
        used("x", 1, 2, 5, input_tokens=7),
        closed("x", 1, 3, "error"),
        progress(20),
        used("y", 21, 2, 7),
        progress(40),
    ]
    # While the hour lasts, and after its end, when its own record replaces the parts.
    for log in (items, [*items, progress(200)]):
        kafka, _ = play(records(log), 0)
        values = [value for key, value in kafka.newest().items() if b"|window|" in key]
        (row,) = hour_rows(values, 0)
        got = dict(zip(HOURS, row, strict=True))
        assert (got["runs"], got["failed_runs"], got["steps"], got["tokens"], got["cost_usd"]) == (
            1,
            1,
            2,
            7,
            "0.000000012",
        )
        assert got["hour"] == datetime(2023, 11, 15, tzinfo=UTC)
        assert float(got["p50_s"]) >= 1
        # The second argument is the first hour that is listed.
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
        for name, end, spent in (
            ("low", T0 + HOUR_US, "1"),
            ("full", T0 + HOUR_US, "9.5"),
            ("over", T0, "99"),
        )
    ]
    rows = [
        dict(zip(BUDGETS, row, strict=True))
        for row in budget_rows(map(msgspec.json.encode, made), T0 + MINUTE_US)
    ]
    assert [(row["alert"], row["share"], row["window"]) for row in rows] == [
        ("full", "95 %", "2023-11-15"),
        ("low", "10 %", "2023-11-15"),
    ]


def test_a_limit_in_force_is_listed_before_anything_is_counted() -> None:
    """Without an amount, or with its alert's where one fires; not together with its own record."""
    rules = [
        {"rule": "spend", "limit_usd": 20},
        {"rule": "spend", "alert": "small", "per": "user_id", "limit_usd": 0.5},
    ]
    policy = Policy.model_validate(
        {"name": "p", "match": {"project": "shop"}, "rules": [*rules, {"rule": "loop"}]}
    )
    alert = Alert(
        alert_id="a",
        seq=1,
        state="firing",
        severity="critical",
        alert="small",
        rule="spend",
        policy="p",
        project="shop",
        subject="user_id u-9, 2026-11",
        value=2.56,
        opened_at=T0,
        updated_at=T0,
    )
    rows = [dict(zip(BUDGETS, row, strict=True)) for row in uncounted_rows([policy], [alert], [])]
    assert [(row["alert"], row["spent_usd"], row["limit_usd"], row["share"]) for row in rows] == [
        ("spend", None, "20", "nothing counted yet"),
        ("small", "2.56", "0.5", "512 %"),
    ]
    assert [row["project"] for row in rows] == ["shop", "shop"]
    # A budget that the worker has counted has a record; it must not be listed a second time.
    counted = [("p", "small", "shop", "user_id", "u-9", "2026-11", "2", "0.5", "400 %", None)]
    assert [row[1] for row in uncounted_rows([policy], [alert], counted)] == ["spend"]


def test_baselines_show_what_they_still_need() -> None:
    """Learning 12 of 30, until there are enough."""
    base: dict[str, Any] = {
        "project": "shop",
        "agent": "a",
        "as_of": T0,
        "wanted_runs": 30,
        "shares": [0.5, 0.99],
    }
    values = {"cost_nanos": [2e9, 5e9], "duration_us": [1e6, 4e6]}
    made = [
        FleetBaselineStruct(**base, task=task, runs=runs, values=values)
        for task, runs in (("x", 12), ("y", 40))
    ]
    rows = [
        dict(zip(BASELINES, row, strict=True))
        for row in baseline_rows(map(msgspec.json.encode, made))
    ]
    assert [row["state"] for row in rows] == ["learning 12 of 30", "known"]
    assert (rows[0]["p50_usd"], rows[0]["p99_usd"], rows[0]["p99_s"]) == ("2", "5", "4")
