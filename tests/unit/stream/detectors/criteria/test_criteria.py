"""Criteria: every check on runs that meet it, that fail it, and that lack facts."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from stepstream.backtest.history import Event
from stepstream.backtest.pipeline import OfflinePipeline
from stepstream.backtest.score import score
from stepstream.schemas.criteria import Criteria
from stepstream.schemas.policy import Policy
from stepstream.schemas.step import Document, StepEvent
from stepstream.schemas.times import DAY_US, MINUTE_US
from stepstream.schemas.trajectory import TrajectoryStruct
from stepstream.testing import ended, root

ANSWER = "Order 4711 was refunded: 129.50 EUR."


def criteria(*checks: dict[str, Any], **more: Any) -> Criteria:
    return Criteria.model_validate({"name": "refunds", "checks": list(checks), **more})


def call(number: int, tool: str, given: Any = None, output: str = "done", **more: Any) -> StepEvent:
    text = "" if given is None else json.dumps(given)
    return ended(number, float(number), tool=tool, name=tool, input=text, output=output, **more)


def end(answer: str = ANSWER, **more: Any) -> StepEvent:
    return root(60.0, output=answer, **more)


RUN = [
    root(),
    call(2, "find_order", {"order": 4711}, documents=[Document(id="Order 4711")]),
    call(3, "refund", {"order": 4711, "amount": 129.5}),
    call(4, "refund", {"order": 4711, "amount": 5}),
    end(),
]


def scored(document: Criteria, events: list[StepEvent]) -> TrajectoryStruct:
    """The run's trajectory once it has closed."""
    in_order = [
        Event(event.end_time or event.start_time, event.trace_id, event.model_dump_json().encode())
        for event in events
    ]
    return score(in_order, [document])[events[0].trace_id]


@pytest.mark.parametrize(
    ("check", "success", "reason"),
    [
        ({"check": "tools", "calls": ["find_order", "refund"]}, "true", ""),
        ({"check": "tools", "calls": ["find_order", "refnd"]}, "false", "not called: refnd"),
        (
            {"check": "tools", "calls": ["find_order", "refund", "refund"], "order": "exact"},
            "true",
            "",
        ),
        (
            {"check": "tools", "calls": ["refund", "find_order", "refund"], "order": "exact"},
            "false",
            "called in another order: find_order, refund, refund",
        ),
        (
            {"check": "tools", "calls": ["find_order", "refund"], "order": "exact"},
            "false",
            "called more often: refund",
        ),
        ({"check": "tools", "calls": ["find_order", "refund"], "order": "in_order"}, "true", ""),
        (
            {"check": "tools", "calls": ["refund", "find_order"], "order": "in_order"},
            "false",
            "not called in the order refund, find_order",
        ),
        (
            {"check": "tools", "calls": ["refund", "find_order", "refund"], "order": "any_order"},
            "true",
            "",
        ),
        (
            {"check": "tools", "calls": ["refund"], "order": "subset"},
            "false",
            "also called: find_order",
        ),
        ({"check": "never", "tools": ["delete_order"]}, "true", ""),
        ({"check": "never", "tools": ["refund"]}, "false", "must not be called: refund"),
        ({"check": "at_most", "tool": "refund", "times": 2}, "true", ""),
        (
            {"check": "at_most", "tool": "refund", "times": 1},
            "false",
            "refund was called 2 times, at most 1 are allowed",
        ),
        ({"check": "arguments", "tool": "refund", "contains": {"amount": 129.5}}, "true", ""),
        (
            {"check": "arguments", "tool": "refund", "contains": {"amount": 7}},
            "false",
            "refund was not called with these arguments",
        ),
        (
            {"check": "arguments", "tool": "refund", "contains": {"amount": 5}, "of": "all"},
            "false",
            "refund was called with other arguments",
        ),
        (
            {"check": "arguments", "tool": "refund", "json_schema": {"required": ["order"]}},
            "true",
            "",
        ),
        (
            {"check": "arguments", "tool": "cancel", "contains": {"order": 1}},
            "false",
            "cancel was not called",
        ),
        # Case and runs of spaces are not compared: models vary both.
        ({"check": "answer", "contains": ["order  4711", "REFUNDED"]}, "true", ""),
        ({"check": "answer", "equals": "no"}, "false", "the answer is not 'no'"),
        ({"check": "answer", "excludes": ["refunded"]}, "false", "the answer contains 'refunded'"),
        ({"check": "answer", "regex": r"Order \d{4}\b"}, "true", ""),
        ({"check": "answer", "regex": "^Refund"}, "false", "the answer does not match '^Refund'"),
        ({"check": "answer", "number": 129.5}, "true", ""),
        # 129.50 is near enough; the answer's other number, 4711, is not.
        ({"check": "answer", "number": 130, "within": 1}, "true", ""),
        ({"check": "answer", "number": 130}, "false", "the answer has no number 130"),
        ({"check": "answer", "cites": True}, "true", ""),
        ({"check": "no_hidden_error"}, "true", ""),
        ({"check": "status"}, "true", ""),
        ({"check": "status", "equals": "error"}, "false", "its status is ok"),
        ({"check": "limits", "steps": 4, "seconds": 60, "tool_errors": 0}, "true", ""),
        ({"check": "limits", "steps": 3}, "false", "it took 4 steps, more than 3"),
        ({"check": "limits", "seconds": 59.5}, "false", "it took 60.0 s, more than 59.5 s"),
        ({"check": "expr", "when": "run.calls['refund'] == 2"}, "true", ""),
        ({"check": "expr", "when": "run.errors > 0"}, "false", "not true: run.errors > 0"),
    ],
)
def test_each_check_decides(check: dict[str, Any], success: str, reason: str) -> None:
    found = scored(criteria(check), RUN)
    assert (found.success, found.success_reason) == (success, reason)


@pytest.mark.parametrize(
    ("check", "events", "reason"),
    [
        ({"check": "answer", "contains": ["x"]}, [root(), end("")], "no answer is recorded"),
        (
            {"check": "arguments", "tool": "refund", "contains": {"amount": 7}},
            # A size without a text: contents are captured off, or were truncated.
            [root(), call(2, "refund", None, input_bytes=900), end()],
            "the arguments of refund are not recorded completely",
        ),
        (
            {"check": "no_hidden_error"},
            [root(), call(2, "refund", {"a": 1}, "", output_bytes=900), end()],
            "outputs of tools are not recorded completely",
        ),
        (
            {"check": "limits", "cost_usd": "0.5"},
            [root(), ended(2, 2.0, kind="llm_call", model="unheard-of", name="m"), end()],
            "a part of its cost is unknown",
        ),
        # RE2 does not support (?=...), and so has no pattern that takes exponential time.
        ({"check": "answer", "regex": "(?=x)"}, RUN, "'(?=x)' is no regular expression of RE2"),
        # Without its root a run closes by idle time; how it ended is not known.
        ({"check": "status"}, RUN[1:-1], "the run has no end"),
    ],
)
def test_what_cannot_be_evaluated_is_unknown(
    check: dict[str, Any], events: list[StepEvent], reason: str
) -> None:
    found = scored(criteria(check), events)
    assert (found.success, found.success_reason) == ("unknown", reason)


def test_a_failure_outweighs_what_is_unknown() -> None:
    document = criteria({"check": "answer", "contains": ["x"]}, {"check": "never", "tools": ["t"]})
    found = scored(document, [root(), call(2, "t"), end("")])
    assert (found.success, found.success_reason) == ("false", "must not be called: t")


def test_a_hidden_error_of_the_last_call_fails_and_a_repaired_one_does_not() -> None:
    failed = [root(), call(2, "pay", {"a": 1}, '{"error": "card declined"}'), end()]
    # The same tool again, with another argument: the error was noticed and corrected.
    repaired = [*failed[:2], call(3, "pay", {"a": 2}, '{"status": "paid"}'), end()]
    document = criteria({"check": "no_hidden_error"})
    assert scored(document, failed).success == "false"
    assert scored(document, repaired).success == "true"


def test_a_field_of_an_answer_in_json() -> None:
    run = [root(), end('{"order": {"status": "refunded", "items": [4711]}}')]
    for path, equals, success in (
        ("order.status", "refunded", "true"),
        ("order.items.0", "4711", "true"),
        ("order.items.1", "4711", "false"),
        ("order.total", "1", "false"),
    ):
        found = scored(criteria({"check": "answer", "path": path, "equals": equals}), run)
        assert found.success == success, path


def test_a_pattern_that_python_would_take_years_for_is_evaluated() -> None:
    # Each letter doubles the time of a backtracking engine.
    run = [root(), end("a" * 5_000)]
    assert scored(criteria({"check": "answer", "regex": "(a+)+$b"}), run).success == "false"


def test_runs_that_do_not_match_have_no_success() -> None:
    document = criteria({"check": "status"}, match={"agent": "another"})
    events = [Event(e.end_time or e.start_time, e.trace_id, e.model_dump_json().encode())
              for e in RUN]  # fmt: skip
    assert score(events, [document]) == {}


def test_late_steps_change_the_outcome() -> None:
    pipeline = OfflinePipeline(criteria=[criteria({"check": "never", "tools": ["refund"]})])
    first, *calls, last = RUN
    for event in (first, calls[0], last):
        at_us = event.end_time or event.start_time
        pipeline.event(event.trace_id, event.model_dump_json().encode(), at_us)
    pipeline.finish(DAY_US)
    assert pipeline.outcome.trajectories[first.trace_id].success == "true"
    # Later than close_after, so the run is closed, and within late_horizon.
    late_us = (last.end_time or 0) + 400_000_000
    pipeline.event(first.trace_id, calls[1].model_dump_json().encode(), late_us)
    pipeline.finish(DAY_US)
    assert pipeline.outcome.trajectories[first.trace_id].success == "false"


def test_failed_criteria_burn_the_error_budget_of_a_quality_objective() -> None:
    """From the steps to the alert: every run ends ok, and none is what the Criteria ask for."""
    slo = {"rule": "success_slo", "alert": "quality", "objective": 0.9}
    policy = Policy.model_validate({"kind": "Policy", "name": "shop", "rules": [slo]})
    document = criteria({"check": "never", "tools": ["refund"]})
    pipeline = OfflinePipeline([policy], criteria=[document])
    for number in range(30):
        for event in RUN:
            moved = moved_by(event, number)
            at_us = moved.end_time or moved.start_time
            pipeline.event(moved.trace_id, moved.model_dump_json().encode(), at_us)
    pipeline.finish(DAY_US)
    outcome = pipeline.outcome
    assert {(run.status, run.success) for run in outcome.runs.values()} == {("ok", "false")}
    (alert,) = [alert for alert in outcome.alerts.values() if alert.alert == "quality"]
    assert "runs failed their Criteria in the last 1 h 0 m" in alert.message


def moved_by(event: StepEvent, minutes: int) -> StepEvent:
    """The same step in another run, so many minutes later."""
    later = minutes * MINUTE_US
    return event.model_copy(
        update={
            "trace_id": f"{minutes:032x}",
            "start_time": event.start_time + later,
            "end_time": event.end_time + later if event.end_time else None,
        }
    )


def test_a_failed_run_has_a_finding_with_its_evidence() -> None:
    pipeline = OfflinePipeline(criteria=[criteria({"check": "never", "tools": ["refund"]})])
    for event in RUN:
        at_us = event.end_time or event.start_time
        pipeline.event(event.trace_id, event.model_dump_json().encode(), at_us)
    pipeline.finish(DAY_US)
    (found,) = [one.finding for one in pipeline.outcome.raised if one.finding.policy == "refunds"]
    assert (found.alert, found.rule, found.severity) == (
        "criteria.refunds",
        "criteria_failed",
        "note",
    )
    assert found.message == (
        "the run does not meet the criteria refunds: must not be called: refund"
    )
    # Both calls of the tool, not only the first.
    assert len(found.step_ids) == 2


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (
            {"tools": ["refund"], "checks": [{"check": "never", "tools": ["refnd"]}]},
            "never names refnd, which is not in tools; did you mean refund?",
        ),
        (
            {
                "checks": [
                    {"check": "tools", "calls": ["a"]},
                    {"check": "never", "tools": ["a"]},
                ]
            },
            "a must never be called, and tools .superset. requires it",
        ),
        (
            {
                "checks": [
                    {"check": "tools", "calls": ["a"], "order": "subset"},
                    {"check": "arguments", "tool": "b", "contains": {"x": 1}},
                ]
            },
            "arguments requires b, and other checks allow only a",
        ),
        (
            {"checks": [{"check": "answer", "equals": "yes", "excludes": ["YES"]}]},
            "equals contains 'YES', which excludes forbids",
        ),
        (
            {
                "checks": [
                    {"check": "answer", "equals": "yes"},
                    {"check": "answer", "equals": "no"},
                ]
            },
            "the answer must be equal to different texts",
        ),
        (
            {"checks": [{"check": "status"}, {"check": "status", "equals": "error"}]},
            "the status must be error and ok",
        ),
        ({"checks": [{"check": "expr", "when": "run.erors == 0"}]}, "did you mean run.errors"),
        ({"checks": [{"check": "answer"}]}, "answer needs"),
        ({"checks": [{"check": "limits"}]}, "limits needs"),
        ({"checks": [{"check": "answer", "number": float("nan")}]}, "finite"),
        ({"checks": []}, "at least 1"),
    ],
)
def test_documents_that_no_run_can_meet_are_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Criteria.model_validate({"name": "x", **fields})
