"""Rows of the fleet topic: an unreadable or invalid record is left out, others are shown."""

from __future__ import annotations

import json
from typing import Any

import pytest

from stepstream.admin.fleet import baseline_rows, budget_rows, hour_rows
from stepstream.schemas.times import HOUR_US

NOW_US = 1_790_000_000_000_000 // HOUR_US * HOUR_US
BUDGET = {
    "policy": "p",
    "alert": "spend",
    "project": "shop",
    "per": "project",
    "group": "shop",
    "window": "day",
    "timezone": "UTC",
    "start": NOW_US,
    "end": NOW_US + 24 * HOUR_US,
    "spent_usd": "2500000.5",
    "limit_usd": "5000000",
    "as_of": NOW_US,
}
WINDOW = {
    "project": "shop",
    "start": NOW_US,
    "end": NOW_US + HOUR_US,
    "through": 1,
    "minutes": [{"minute": 1, "steps": 1}],
}
BASELINE = {
    "project": "shop",
    "agent": "a",
    "runs": 500,
    "wanted_runs": 100,
    "shares": [0.5],
    "values": {},
    "as_of": NOW_US,
}
RAW = [b"x", b"", b"[]", b"\xff", b'{"x":', b"[" * 5_000, b'{"shares":5}']
ODD: list[dict[str, Any]] = [
    {
        "spent_usd": "\u00b2",
        "minutes": [{"minute": 1, "latency": {"\u00b2": 1}}],
        "values": {"cost_nanos": [1.0, 2.0]},
    },
    {"limit_usd": "NaN", "start": 10**18, "as_of": 10**18},
    {"start": -(10**20), "as_of": -1},
    {"window": "eon", "end": 0, "shares": "x"},
]


@pytest.mark.parametrize(
    ("valid", "rows"),
    [
        (BUDGET, lambda values: budget_rows(values, NOW_US)),
        (WINDOW, lambda values: hour_rows(values, NOW_US)),
        (BASELINE, baseline_rows),
    ],
    ids=["budgets", "hours", "baselines"],
)
def test_a_record_that_cannot_be_leaves_out_only_itself(valid: dict[str, Any], rows: Any) -> None:
    value = json.dumps(valid).encode()
    whole = rows([value])
    assert len(whole) == 1
    for odd in [*RAW, *(json.dumps(valid | fields).encode() for fields in ODD)]:
        assert whole[0] in rows([odd, value])
