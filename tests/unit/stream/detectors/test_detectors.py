"""Every detector by the same rules: fires only when it should, once, and equally after restarts."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from stepstream.schemas.rules import RULES, default_rules
from stepstream.stream.detectors import make_detector
from stepstream.stream.run.rules import Applied
from tests.support.operations import lines_executed
from tests.support.rule_cases import CASES, Case, Sent, call
from tests.support.stream_bench import ROOT, Bench, policy, root, step

each = pytest.mark.parametrize(
    "case", CASES, ids=[f"{case.alert}-{index}" for index, case in enumerate(CASES)]
)


def play(
    case: Case, bench: Bench, sent: list[Sent], each_record: Callable[[Bench], None] | None = None
) -> Bench:
    """Send the records at their times, then wait."""
    for at_s, item in sent:
        bench.send(item, at_s)
        if each_record is not None:
            each_record(bench)
    bench.wait(
        max((at_s for at_s, _ in sent), default=0.0) + case.settle_s
        if not case.wait_s
        else case.wait_s
    )
    return bench


def ids(bench: Bench) -> list[str]:
    return sorted({value["finding_id"] for value in bench.values("findings")})


def test_every_rule_has_cases() -> None:
    """A new rule about one run has a run that breaks it and one that does not."""
    # Modules with tests of their own need no case here.
    own = tuple(path.stem.removeprefix("test_") for path in Path(__file__).parent.glob("test_*.py"))
    tested_elsewhere = ("content.", "stop_ignored", *own)
    rules = {
        name
        for name, kind in RULES.items()
        if kind.model.scope == "run"
        and not kind.model.__module__.partition("detectors.")[2].startswith(tested_elsewhere)
    }
    assert rules == {case.rule["rule"] for case in CASES}


@each
def test_it_fires_once_with_a_complete_and_readable_finding(case: Case) -> None:
    """Severity, subject, evidence that exists, a value with its threshold, one sentence."""
    bench = play(case, case.bench(), case.breaks)
    found = bench.findings()
    assert len(found) == case.firing
    finding = found[-1]
    assert (finding["alert"], finding["rule"], finding["policy"]) == (
        case.alert,
        case.rule["rule"],
        "p",
    )
    assert (finding.get("severity", "warning"), finding.get("unit", "")) == (
        case.severity,
        case.unit,
    )
    # A subject may end with a hash of an input, which no reader of the case could check.
    assert re.fullmatch(case.subject.replace("*", ".*"), finding.get("subject", ""))
    assert re.fullmatch(case.message, finding["message"])
    assert sorted(finding.get("step_ids", [])) == [
        f"{number:016x}" if number > 1 else ROOT for number in case.evidence
    ]
    if case.unit and case.rule["rule"] != "unpriced_model":
        assert finding["value"] >= finding["threshold"] > 0


@each
def test_it_does_not_fire_when_it_comes_close(case: Case) -> None:
    """The limit itself is no breach, progress is no loop, a retry makes good."""
    bench = play(case, case.bench(), case.calm)
    assert bench.values("findings") == []


@each
def test_it_is_off_when_the_policy_disables_it(case: Case) -> None:
    """``enabled: false`` turns a rule off."""
    assert play(case, case.bench(enabled=False), case.breaks).values("findings") == []


@each
def test_the_policy_gives_name_and_severity(case: Case) -> None:
    """The alert's name and severity can be set in the policy."""
    bench = play(case, case.bench(alert="our-name", severity="critical"), case.breaks)
    alerts = {(value["alert"], value.get("severity", "warning")) for value in bench.findings()}
    assert alerts - {("our-name", "warning")} == {("our-name", "critical")}
    assert len(alerts) == 1 or case.rule.get("warn_usd"), (
        "only what warn_usd asked for is a warning whatever the severity"
    )


@each
def test_records_that_come_twice_change_nothing(case: Case) -> None:
    """A duplicate neither fires nor repeats."""
    twice = [item for item in case.breaks for _ in range(2)]
    calm_twice = [item for item in case.calm for _ in range(2)]
    assert ids(play(case, case.bench(), twice)) == ids(play(case, case.bench(), case.breaks))
    assert len(play(case, case.bench(), twice).findings()) == case.firing
    assert play(case, case.bench(), calm_twice).values("findings") == []


@each
def test_a_restart_between_any_two_records_changes_nothing(case: Case) -> None:
    """What a detector knows of a run is in the run's state."""
    calm = play(case, case.bench(), case.breaks)
    shaken = play(case, case.bench(), case.breaks, Bench.swap)
    assert shaken.values("findings") == calm.values("findings")
    assert play(case, case.bench(), case.calm, Bench.swap).values("findings") == []


@each
def test_a_restart_after_it_has_fired_does_not_fire_again(case: Case) -> None:
    """Findings already made about a run are in its state too."""
    bench = play(case, case.bench(), case.breaks)
    bench.swap()
    bench.wait(bench.now_s + 30)
    bench.send(step(99, "end", bench.now_s), bench.now_s)
    assert len(bench.findings()) == case.firing


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.any_order], ids=lambda case: case.alert
)
def test_the_order_of_records_does_not_matter(case: Case) -> None:
    """What is found about sums and ends is found in every order."""
    wanted = ids(play(case, case.bench(), case.breaks))
    for order in itertools.permutations(item for _, item in case.breaks):
        sent = [(0.1 * index, item) for index, item in enumerate(order)]
        assert ids(play(case, case.bench(), sent)) == wanted


@pytest.mark.parametrize(
    "case", [case for case in CASES if not case.wait_s], ids=lambda case: case.alert
)
def test_all_in_one_batch_finds_the_same(case: Case) -> None:
    """Where batches end is chance; timers alone fire between them."""
    bench = case.bench()
    for at_s, item in case.breaks:
        bench.process(item, at_s)
    bench.wait(bench.now_s + case.settle_s)
    assert ids(bench) == ids(play(case, case.bench(), case.breaks))


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.wait_s], ids=lambda case: case.alert
)
class TestTimers:
    """Evaluated by time alone, without any further record."""

    def test_not_before_its_time(self, case: Case) -> None:
        """A limit that has not passed gives no finding, however often it is asked."""
        bench = case.bench()
        for at_s, item in case.breaks:
            bench.send(item, at_s)
        (detector,) = [
            d for d in bench.run.rules.detectors if d.applied.rule.alert_name == case.alert
        ]
        run, found = bench.run, 0
        while not found:
            due_us = run.timers[detector.name]
            assert not list(detector.on_timer(run, due_us - 1))
            assert detector.name in run.take_due_timers(due_us)
            found = len(list(detector.on_timer(run, due_us)))
        assert found == case.firing

    def test_it_rests_once_it_has_fired(self, case: Case) -> None:
        """More time of the same silence finds nothing more."""
        bench = play(case, case.bench(), case.breaks)
        found = len(bench.findings())
        bench.wait(bench.now_s + 2 * case.wait_s)
        assert len(bench.findings()) == found

    def test_a_gap_without_processing_raises_nothing(self, case: Case) -> None:
        """After an outage producers get time: what arrives then is evaluated by its contents."""
        bench = case.bench()
        for at_s, item in case.breaks:
            bench.send(item, at_s)
        # The clock jumps over the deadline, as after an outage of the worker.
        back_s = case.wait_s + 60
        bench.tick(back_s)
        bench.wait(back_s + 9)
        assert bench.findings() == []
        bench.wait(back_s + 11)
        assert len(bench.findings()) == case.firing

    def test_a_run_of_old_data_sets_no_timer(self, case: Case) -> None:
        """Records appended long after their own time are an import: their silence means nothing."""
        bench = case.bench()
        for at_s, item in case.breaks:
            # Appended 100 s after the step's own time.
            bench.send(item, at_s + 100)
        bench.wait(100 + case.wait_s)
        assert bench.findings() == []


@each
def test_skipped_steps_would_have_given_no_finding(case: Case) -> None:
    """A step that a detector skips changes nothing in a run without findings."""
    for sent in (case.breaks, case.calm):
        bench = case.bench()
        for at_s, item in sent:
            bench.wait(at_s)
            bench.process(item, at_s)
            run = bench.run
            info = run.steps[item["step_id"]]
            for detector in run.rules.detectors:
                if not run.fired and not detector.wants_step(info.kind, ended=info.ended):
                    assert not list(detector.on_step(run, info, bench.logic.clock.now_us))


@each
def test_what_is_kept_of_a_long_run_is_bounded(case: Case) -> None:
    """Thousands of different calls neither grow the state without end nor the evidence."""
    bench = case.bench()
    bench.process(root("start", 0.0), 0.0)
    for number in range(2, 3_000):
        _, item = call(
            number,
            0.1,
            tool=f"tool {number % 700}",
            given=f"{number}",
            status="error" if number % 3 else "ok",
        )
        bench.process(item, 0.1)
    bench.wait(1)
    assert len(msgspec.json.encode(bench.run.detector_state)) < 400_000
    for value in bench.values("findings"):
        assert len(value.get("step_ids", [])) <= 20


def test_a_step_of_a_long_run_costs_no_more_than_one_of_a_short_run() -> None:
    """Also when every rule was broken long ago: the executed lines of a step do not grow."""
    rules = [
        case.rule for case in CASES if case.rule["rule"] not in ("run_duration", "step_duration")
    ]
    distinct = {rule["rule"]: rule for rule in rules}
    bench = Bench(policy(*distinct.values()))
    bench.process(root("start", 0.0), 0.0)

    def process(number: int) -> None:
        kind = "output" if number % 2_000 == 0 else "tool_call"
        status = "error" if number % 3 else "ok"
        tool = f"t{number % 5}" if status == "ok" else f"broken{number % 5}"
        more: dict[str, Any] = {
            "tool": tool,
            "input": "q",
            "output": "a",
            "usage": {"input_tokens": 50},
        }
        bench.process(
            step(number, "end", 0.0, kind=kind, status=status, cost_usd="0.01", **more), 0.0
        )

    def process_all(numbers: range) -> None:
        for number in numbers:
            process(number)

    process_all(range(2, 1_000))
    early = lines_executed(lambda: process_all(range(1_000, 1_200)))
    process_all(range(1_200, 7_000))
    # Lines are counted, not seconds: 1.5 allows for branches, a scan of the run would be 7 times.
    assert lines_executed(lambda: process_all(range(7_000, 7_200))) < 1.5 * early
    bench.process(root("end", 0.0, 1.0), 0.0)
    bench.wait(5)
    assert {value["alert"] for value in bench.findings()} >= {
        "run-cost",
        "run-tokens",
        "run-steps",
        "loop",
        "tool-error-ignored",
    }


def test_a_detector_finds_nothing_by_default() -> None:
    """The base class finds nothing."""
    detectors = [make_detector(Applied(rule)) for rule in default_rules("run")]
    bench = Bench()
    bench.send(root("start", 0.0), 0.0)
    assert all(not list(detector.on_close(bench.run, 0)) for detector in detectors)


def test_rules_of_two_policies_with_one_alert_name_are_independent() -> None:
    """Each counts for itself, and the first to fire does not hide the other's action; so after a
    restart.
    """
    bench = Bench(
        policy(
            {"rule": "run_cost", "limit_usd": "0.2", "action": "warn"},
            {"rule": "loop", "repeats": 4},
            {"rule": "repetition", "enabled": False},
            name="everyone",
            mode="enforce",
        ),
        policy(
            {"rule": "run_cost", "limit_usd": "0.5", "action": "stop"},
            {"rule": "loop", "repeats": 6},
            name="support",
            mode="enforce",
        ),
    )
    bench.process(root("start", 0.0), 0.0)
    for number in range(2, 10):
        end = {"kind": "tool_call", "tool": "t", "input": "q", "output": "a", "cost_usd": "0.1"}
        bench.send(step(number, "end", number, number + 0.5, **end), float(number))
        bench.swap()
    found = [
        (one["alert"], one["policy"], one["run_steps"], one.get("action", ""))
        for one in bench.findings()
        if one["policy"]
    ]
    assert found == [
        ("run-cost", "everyone", 4, "warn"),
        ("loop", "everyone", 5, ""),
        ("run-cost", "support", 7, "stop"),
        ("loop", "support", 7, ""),
    ]
    assert len(ids(bench)) == 4
