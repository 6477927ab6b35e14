"""Events through the stages in memory: findings, alerts, windows and baselines as a worker's."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from stepstream.backtest.pipeline import OfflinePipeline
from stepstream.backtest.timeline import PolicyChange
from stepstream.schemas.policy import Policy
from stepstream.schemas.times import DAY_US, HOUR_US, MINUTE_US
from tests.support.stream_bench import Bench, policy, root, step, us

LIMIT = policy({"rule": "run_cost", "limit_usd": "0.10", "action": "stop"}, mode="enforce")


def fed(pipeline: OfflinePipeline, *events: tuple[float, dict[str, object]]) -> OfflinePipeline:
    """The pipeline after the events at their seconds, when all runs have closed."""
    for at_s, event in events:
        pipeline.event(str(event["trace_id"]), msgspec.json.encode(event), us(at_s))
    pipeline.finish(DAY_US)
    return pipeline


def expensive_run() -> list[tuple[float, dict[str, object]]]:
    """Five calls for $0.04 each, a second apart."""
    calls = [
        (n + 0.5, step(n + 2, "end", n, n + 0.5, kind="llm_call", model="m", cost_usd="0.04"))
        for n in range(5)
    ]
    return [(0, root("start", 0)), *calls, (6, root("end", 0, 6))]


def test_it_finds_what_a_worker_finds() -> None:
    """The same findings with the same ids, and the alert that opens."""
    bench = Bench(LIMIT)
    for at_s, event in expensive_run():
        bench.send(dict(event), at_s)
    bench.wait(60)
    pipeline = fed(OfflinePipeline([LIMIT]), *expensive_run())
    raised = [one.finding.finding_id for one in pipeline.outcome.raised]
    assert raised
    assert raised == [value["finding_id"] for value in bench.values("findings")]
    (alert,) = pipeline.outcome.alerts.values()
    assert (alert.alert, alert.state) == ("run-cost", "resolved")
    assert pipeline.open_runs == 0


def test_it_notes_what_the_run_had_used() -> None:
    """When the limit was exceeded three of five calls had been paid."""
    pipeline = fed(OfflinePipeline([LIMIT]), *expensive_run())
    first = pipeline.outcome.raised[0]
    assert (first.finding.action, first.cost_nanos, first.steps) == ("stop", 120_000_000, 4)
    (summary,) = pipeline.outcome.runs.values()
    assert (summary.status, summary.cost_usd) == ("ok", "0.2")


def test_timers_fire_between_events_and_after_the_last() -> None:
    """A step that hangs is found at its limit, not when the next event comes an hour later."""
    slow = policy({"rule": "step_duration", "limit": "30s"}, name="slow")
    events = [(0, root("start", 0)), (1, step(2, "start", 1, kind="tool_call", tool="t"))]
    pipeline = fed(OfflinePipeline([slow]), *events)
    (found,) = [
        one.finding
        for one in pipeline.outcome.raised
        if one.finding.alert != "stuck-run"
        and one.finding.rule == "step_duration"
        and one.finding.state == "firing"
    ]
    assert us(31) <= found.time <= us(33)


@pytest.mark.parametrize("hours", [0, 30])
def test_windows_are_evaluated(hours: int) -> None:
    """A rule over a day's spend fires; runs of other days do not count for it."""
    spend = Policy.model_validate(
        {"name": "w", "rules": [{"rule": "spend", "window": "day", "limit_usd": "0.30"}]}
    )
    pipeline = OfflinePipeline([spend])
    for number in range(2):
        shift = number * hours * HOUR_US
        for at_s, event in expensive_run():
            moved = {**event, "trace_id": f"{number + 1:032x}"}
            for name in ("start_time", "end_time"):
                if name in moved:
                    moved[name] = int(str(moved[name])) + shift
            pipeline.event(str(moved["trace_id"]), msgspec.json.encode(moved), us(at_s) + shift)
    pipeline.finish(DAY_US)
    # Windows are evaluated by the watermark, which moves on while no event comes.
    pipeline.wait(us(0) + 2 * hours * HOUR_US + 30 * MINUTE_US)
    fired = {one.finding.rule for one in pipeline.outcome.raised}
    assert ("spend" in fired) is (hours == 0)


def test_alerts_name_the_revision_of_the_policy() -> None:
    """Of rules about a run and of rules over windows."""
    rules = [{"rule": "run_cost", "limit_usd": "0.10"}, {"rule": "spend", "limit_usd": "0.10"}]
    policy = Policy.model_validate({"name": "p", "revision": 4, "rules": rules})
    pipeline = fed(OfflinePipeline([policy]), *expensive_run())
    found = {alert.rule: alert.policy_revision for alert in pipeline.outcome.alerts.values()}
    assert found == {"run_cost": 4, "spend": 4}


def test_a_run_that_hangs_alone_is_found() -> None:
    """Nothing else happens for half an hour: timers are longer than two minutes, and fire."""
    events = [(0, root("start", 0)), (1, step(2, "start", 1, kind="tool_call", tool="t"))]
    raised = [one.finding for one in fed(OfflinePipeline(), *events).outcome.raised]
    found = {one.alert: one for one in raised if one.state == "firing"}
    assert us(301) <= found["hung-step"].time <= us(320)
    assert us(1801) <= found["stuck-run"].time <= us(1830)


def test_policies_change_at_their_times() -> None:
    """A run is evaluated by the revision that was in effect when it began."""
    loose = policy({"rule": "run_cost", "limit_usd": "0.15"}, revision=1)
    strict = policy({"rule": "run_cost", "limit_usd": "0.05"}, revision=2)
    changes = [PolicyChange(us(30), "p", strict), PolicyChange(us(90), "p", None)]
    pipeline = OfflinePipeline([loose], changes=changes)
    events: list[tuple[float, dict[str, object]]] = []
    for number, begins_s in enumerate((0, 29, 31, 91)):
        for at_s, event in expensive_run():
            moved: dict[str, Any] = {**event, "trace_id": f"{number + 1:032x}"}
            for name in ("start_time", "end_time"):
                if name in moved:
                    moved[name] += us(begins_s) - us(0)
            events.append((at_s + begins_s, moved))
    events.sort(key=lambda one: one[0])
    raised = [one.finding for one in fed(pipeline, *events).outcome.raised]
    found = [
        (int(one.trace_id, 16), one.policy_revision, one.threshold)
        for one in raised
        if one.alert == "run-cost" and one.state == "firing"
    ]
    assert sorted(found) == [(1, 1, 0.15), (2, 1, 0.15), (3, 2, 0.05)]
