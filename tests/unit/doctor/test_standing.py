"""Doctor's result for a part: idle is up to date; without progress, or gone, it fails."""

from __future__ import annotations

from typing import Any

import pytest

from stepstream.doctor.standing import Standing, evaluate
from stepstream.schemas.times import MINUTE_US


def status_of(moved: bool = False, open_runs: int | None = None, **facts: Any) -> tuple[str, str]:
    """Status and text of a sink with these facts; the rest are defaults."""
    usual: dict[str, Any] = {"part": "sink", "group": "g", "members": 1, "ever": True, "waiting": 0}
    standing = Standing(**(usual | facts))
    check = evaluate(
        standing,
        moved=moved,
        watched_us=12_000_000,
        stalled_after_us=MINUTE_US,
        open_runs=open_runs,
    )
    assert (check.status == "ok") == (not check.todo)
    return check.status, check.text


@pytest.mark.parametrize(
    ("facts", "status", "words"),
    [
        ({}, "ok", "1 running, up to date"),
        ({"waiting": 130, "waits_us": 2_000_000}, "ok", "up to date"),
        ({"part": "worker", "open_runs": 1}, "ok", "1 running, up to date; 1 run open"),
        ({"part": "worker", "open_runs": 6_185}, "ok", "up to date; 6,185 runs open"),
        (
            {"part": "worker", "waiting": 9, "waits_us": 29_000_000, "open_runs": 0},
            "ok",
            "up to date; 0 runs open",
        ),
        (
            {"waiting": 130, "waits_us": 20_000_000, "reads": "steps"},
            "warn",
            "makes no progress: 130 records of steps wait",
        ),
        (
            {"waiting": 1, "waits_us": 75_000_000, "reads": "steps"},
            "fail",
            "1 record of steps waits, the oldest for 1 m 15 s",
        ),
        (
            {"waiting": 130, "waits_us": 75_000_000, "reads": "steps", "moved": True},
            "ok",
            "it makes progress",
        ),
        (
            {"waiting": 60_000, "waits_us": 75_000_000, "reads": "steps", "moved": True},
            "warn",
            "it makes progress",
        ),
        ({"members": 0, "ever": False}, "warn", "none is running (group g), and no records wait"),
        ({"members": 0}, "fail", "none is running (group g), one ran earlier"),
        (
            {"members": 0, "waiting": 5, "reads": "steps"},
            "fail",
            "none is running (group g), 5 records of steps wait",
        ),
        (
            {"members": 0, "ever": False, "waiting": 5, "reads": "steps"},
            "fail",
            "none is running (group g), 5 records of steps wait",
        ),
    ],
)
def test_how_a_part_stands(facts: dict[str, Any], status: str, words: str) -> None:
    """Status and words of each case."""
    found = status_of(**facts)
    assert found[0] == status
    assert words in found[1]
