"""Scenarios: equal for equal seeds, valid events, faults where they should be, and their checks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from stepstream.cli.app import run as stepstream
from stepstream.schemas.accept import Accepted, accept_value
from stepstream.simulate.check import check
from stepstream.simulate.generate import FAULT_ATTRIBUTE, Timed, events
from stepstream.simulate.scenario import Scenario
from tests.support.paths import ROOT
from tests.support.step_events import NOW_US

AGENT: dict[str, Any] = {"agent": "support", "runs_per_minute": 10}


def scenario(*faults: dict[str, Any], **more: Any) -> Scenario:
    base = {"name": "s", "duration": "10m", "agents": [AGENT], "faults": faults}
    return Scenario.model_validate({**base, **more})


def made(one: Scenario, **more: Any) -> list[Timed]:
    return list(events(one, NOW_US - one.duration, **more))


def runs_with(found: list[Timed], fault: str) -> set[str]:
    return {one.event["trace_id"] for one in found if fault in one.faults}


def test_equal_seeds_give_equal_events_and_others_other_ones() -> None:
    one = scenario({"fault": "loop", "share": 0.2})
    assert made(one) == made(one)
    assert made(one) != made(scenario({"fault": "loop", "share": 0.2}, seed=2))


def test_every_event_is_accepted_and_in_order() -> None:
    """With each fault, as a worker checks them; no step has two equal phases."""
    kinds = ("tool_timeout", "cost_blowup", "loop", "silent_error", "hung_step", "traffic_spike")
    faults = [{"fault": kind, "share": 0.5} for kind in kinds]
    found = made(scenario(*faults))
    assert len(found) > 500
    for one in found:
        verdict = accept_value(msgspec.json.encode(one.event), timestamp_us=NOW_US)
        assert isinstance(verdict, Accepted), verdict
    assert [one.at_us for one in found] == sorted(one.at_us for one in found)
    seen = [(one.event["trace_id"], one.event["step_id"], one.event["phase"]) for one in found]
    assert len(seen) == len(set(seen))


def test_a_fault_hits_its_share_of_the_runs_of_its_time() -> None:
    """And its runs are marked in the root's attributes."""
    fault = {"fault": "loop", "share": 0.5, "from": "5m", "to": "8m"}
    found = made(scenario(fault, duration="30m", agents=[{**AGENT, "runs_per_minute": 60}]))
    begins = {
        one.event["trace_id"]: one.at_us for one in reversed(found) if one.event["kind"] == "agent"
    }
    start = NOW_US - 30 * 60_000_000
    hit = runs_with(found, "loop")
    inside = {run for run, at in begins.items() if 300 <= (at - start) / 1e6 < 480}
    assert hit < inside
    assert 0.3 < len(hit) / len(inside) < 0.7
    marked = {
        one.event["trace_id"]
        for one in found
        if one.event.get("attributes", {}).get(FAULT_ATTRIBUTE) == "loop"
    }
    assert marked == hit


def test_versions_traffic_and_speed() -> None:
    """A version takes part from its time on; a stop has no runs; a double speed halves times."""
    agent = {**AGENT, "versions": [{"version": "1"}, {"version": "2", "from": "5m"}]}
    one = scenario({"fault": "traffic_stop", "from": "2m", "to": "4m"}, agents=[agent])
    found, start = made(one), NOW_US - one.duration
    roots = [
        ((timed.at_us - start) / 60e6, timed.event["agent_version"])
        for timed in found
        if timed.event["kind"] == "agent" and timed.event["phase"] == "start"
    ]
    assert {version for at, version in roots if at < 5} == {"1"}
    assert {version for at, version in roots if at > 5} == {"2"}
    assert not [at for at, _ in roots if 2 < at < 4]
    fast = made(one, speed=2.0)
    assert [(one.at_us - start) // 2 for one in found] == [one.at_us - start for one in fast]


@pytest.mark.parametrize("traffic", ["ramp", "bursts", "daily"])
def test_shapes_of_traffic_keep_the_rate(traffic: str) -> None:
    """About as many runs as steady traffic has, over a whole period."""
    agent = {**AGENT, "runs_per_minute": 1, "traffic": traffic, "most_calls": 3}
    found = made(scenario(duration="24h", agents=[agent]))
    assert 1_100 < len({one.event["trace_id"] for one in found}) < 1_800


def test_expectations_are_compared() -> None:
    """Each kind of expectation once met and once not."""
    loop = {"fault": "loop", "share": 0.3}
    met = [
        {"alert": "loop", "fault": "loop", "recall": 0.9, "precision": 0.9},
        {"alert": "hung-step", "at_most": 0},
        {"alert": "loop", "by": "8m", "at_least": 3},
    ]
    assert check(scenario(loop, expect=met), [], NOW_US).problems == ()
    missed = [
        {"alert": "hung-step"},
        {"alert": "loop", "at_most": 1},
        {"alert": "loop", "by": "1s"},
        {"alert": "hung-step", "at_least": 0, "fault": "loop", "recall": 0.5},
    ]
    problems = check(scenario(loop, expect=missed), [], NOW_US).problems
    assert len(problems) == 4
    assert problems[0] == "hung-step was raised 0 times, expected at least 1"
    assert "expected at most 1" in problems[1]
    assert "expected by 1 s" in problems[2]
    assert "recall of 0%" in problems[3]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("faults: [{fault: lop}]", "did you mean loop?"),
        ("faults: [{fault: loop, repeat: 3}]", "did you mean repeats?"),
        ("faults: [{fault: loop, share: 2}]", "at most 1"),
        ("expect: [{alert: loop, fault: loop, recall: 1}]", "no fault loop is in this scenario"),
        ("expect: [{alert: loop, recall: 1}]", "need the fault"),
        ("duration: 30d\nseed: x", "whole number"),
    ],
)
def test_a_wrong_scenario_is_refused_with_file_and_line(
    text: str, reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(f"kind: Scenario\nname: s\nagents: [{{agent: a}}]\n{text}\n")
    assert stepstream(["simulate", str(file), "--check"]) == 1
    error = capsys.readouterr().err
    assert str(file) in error
    assert reason in error


def test_too_many_runs_are_refused() -> None:
    with pytest.raises(ValueError, match="1,000,000 are the most"):
        scenario(duration="31d", agents=[{**AGENT, "runs_per_minute": 60_000}])
    # 5 minutes of 10 runs each, times a million.
    spikes = [{"fault": "traffic_spike", "factor": 1_000, "to": "5m"}] * 2
    with pytest.raises(ValueError, match=r"about 50,000,050 runs"):
        scenario(*spikes)


def test_spikes_at_the_same_time_multiply() -> None:
    """Three times three in the middle third; a spike of another agent changes nothing."""
    spike = {"fault": "traffic_spike", "factor": 3}
    both = [{**spike, "from": "10m"}, {**spike, "to": "20m"}, {**spike, "agent": "other"}]
    found = made(scenario(*both, duration="30m", agents=[{**AGENT, "most_calls": 3}]))
    begins = [one.at_us for one in found if one.event["step_id"] == f"{1:016x}"]
    assert 1_300 < len({one.event["trace_id"] for one in found}) < 1_700
    start = NOW_US - 30 * 60_000_000
    middle = [at for at in begins if 600 <= (at - start) / 1e6 < 1_200]
    assert len(middle) > len(begins) / 2


def test_the_command_writes_a_file_and_checks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Equal files for equal starts; a policy is used by the check; exit code 1 where it fails."""
    file = tmp_path / "s.yaml"
    file.write_text(
        "kind: Scenario\nname: s\nduration: 3m\nstart: 2026-01-01T00:00:00Z\n"
        "agents: [{agent: a, runs_per_minute: 10}]\nexpect: [{alert: many-steps}]\n"
    )
    for name in ("a.jsonl.gz", "b.jsonl.gz"):
        assert stepstream(["simulate", str(file), "-o", str(tmp_path / name)]) == 0
    assert (tmp_path / "a.jsonl.gz").read_bytes() == (tmp_path / "b.jsonl.gz").read_bytes()
    policy = tmp_path / "p.yaml"
    policy.write_text(
        "kind: Policy\nname: p\nrules: [{rule: expr, alert: many-steps, when: run.steps > 9}]\n"
    )
    capsys.readouterr()
    assert stepstream(["simulate", str(file), "--check", "-p", str(policy)]) == 0
    assert "1 of 1 scenarios passed" in capsys.readouterr().err
    assert stepstream(["simulate", str(file), "--check", "--format", "json"]) == 1
    (result,) = json.loads(capsys.readouterr().out)
    assert result["problems"] == ["many-steps was raised 0 times, expected at least 1"]


def test_the_examples_pass(capsys: pytest.CaptureFixture[str]) -> None:
    """Each fault is found in nearly all of its runs, and calm traffic raises nothing."""
    assert stepstream(["simulate", str(ROOT / "examples/scenarios"), "--check"]) == 0
    assert "3 of 3 scenarios passed" in capsys.readouterr().err
