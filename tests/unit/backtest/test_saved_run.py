"""Saved runs: made of a recorded run, without secrets, and evaluated with policies."""

from __future__ import annotations

from typing import Any

import pytest

from stepstream.backtest.saved_run import (
    SavedRun,
    SavedRunError,
    evaluate_saved_run,
    saved_run_of,
)
from stepstream.schemas.policy_tests import ExpectedAlert
from stepstream.schemas.times import time_of
from tests.support.step_events import NOW_US, TRACE_ID
from tests.support.stream_bench import policy

LIMIT = policy({"rule": "run_cost", "limit_usd": "0.10"}, name="cost")
KEY = "sk-ant-api03-" + "Ab3" * 31 + "AA"


def rows() -> list[dict[str, Any]]:
    """A run of five calls for $0.04 each, as the store has it; one input has a key."""
    shared = {"trace_id": TRACE_ID, "phase": "end", "status": "ok", "agent": "support"}
    root = {
        **shared,
        "step_id": f"{1:016x}",
        "parent_step_id": "",
        "kind": "agent",
        "name": "run",
        "start_time": time_of(NOW_US),
        "end_time": time_of(NOW_US + 6_000_000),
    }
    calls = [
        {
            **shared,
            "step_id": f"{n + 2:016x}",
            "parent_step_id": f"{1:016x}",
            "kind": "llm_call",
            "name": "call",
            "model": "m",
            "cost_usd": "0.04",
            "input": f"key {KEY} {n}",
            "start_time": time_of(NOW_US + n * 1_000_000),
            "end_time": time_of(NOW_US + n * 1_000_000 + 500_000),
        }
        for n in range(5)
    ]
    return [root, *calls]


def saved(**changes: Any) -> SavedRun:
    made = saved_run_of(rows(), [{"alert": "run-cost", "subject": ""}], "costly")
    return made.model_copy(update=changes)


def test_a_saved_run_has_what_was_raised_and_no_secret() -> None:
    """The file is read back as it was written."""
    named = [{**row, "attributes": {"db_password": "correct horse"}} for row in rows()]
    secret = saved_run_of(named, [{"alert": "run-cost", "subject": ""}], "costly")
    assert "correct horse" not in secret.model_dump_json()
    run = saved()
    assert run.expect == (ExpectedAlert(alert="run-cost"),)
    assert run.trace_id == TRACE_ID
    text = run.model_dump_json()
    assert KEY not in text
    assert text.count("agent") > 1
    assert SavedRun.model_validate_json(text) == run


def test_it_passes_with_the_policy_and_fails_without() -> None:
    """What was found, at which step and at what share of the cost."""
    result = evaluate_saved_run(saved(), [LIMIT])
    assert result.problems == ()
    (found,) = result.found
    assert (found.alert, found.steps, round(found.cost_share or 0, 2)) == ("run-cost", 4, 0.6)
    assert evaluate_saved_run(saved(), []).problems == ("run-cost was not raised",)


def test_the_share_is_known_of_a_run_with_many_totals() -> None:
    """The totals of a run stand before its kind in the summary: it may begin with many bytes."""
    wide = [
        {**row, "input_tokens": 4_000, "output_tokens": 500} if "model" in row else row
        for row in rows()
    ]
    wide.append({**wide[-1], "step_id": f"{9:016x}", "kind": "tool_call", "cost_usd": "0"})
    made = saved_run_of(wide, [{"alert": "run-cost", "subject": ""}], "wide")
    (found,) = evaluate_saved_run(made, [LIMIT]).found
    assert found.cost_share == 0.6


@pytest.mark.parametrize(
    ("expect", "problem"),
    [
        ({"alert": "run-cost", "by_cost_share": 0.7}, ""),
        (
            {"alert": "run-cost", "by_cost_share": 0.5},
            "run-cost came when 60% of the cost was spent, wanted by 50%",
        ),
        ({"alert": "run-cost", "severity": "critical"}, "run-cost (critical) was not raised"),
        ({"alert": "run-cost", "subject": "search"}, "run-cost about search was not raised"),
    ],
)
def test_each_expectation_is_checked(expect: dict[str, Any], problem: str) -> None:
    """One sentence for each one that does not hold."""
    run = saved(expect=(ExpectedAlert.model_validate(expect),), allow_others=True)
    assert evaluate_saved_run(run, [LIMIT]).problems == ((problem,) if problem else ())


def test_an_alert_that_is_not_expected_fails() -> None:
    """Unless the file allows others."""
    (problem,) = evaluate_saved_run(saved(expect=()), [LIMIT]).problems
    assert problem.startswith("run-cost was raised and is not expected: ")
    allowed = saved(expect=(), allow_others=True)
    assert not evaluate_saved_run(allowed, [LIMIT]).problems


def test_an_event_that_is_none_is_named() -> None:
    """With its number in the file."""
    with pytest.raises(SavedRunError, match="event 2 is not a step event: "):
        evaluate_saved_run(saved(events=(saved().events[0], {"a": 1})), [LIMIT])
    late = {**saved().events[0], "start_time": 2**60}
    with pytest.raises(SavedRunError, match="event 1 is not a step event: times are before "):
        evaluate_saved_run(saved(events=(late,)), [LIMIT])
    with pytest.raises(SavedRunError, match="no steps"):
        saved_run_of([], [], "empty")
