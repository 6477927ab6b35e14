"""Timers that detectors set: due once, in log time, whatever becomes of the worker meanwhile."""

from __future__ import annotations

from typing import Any

import pytest

from stepstream.schemas.step import StepEvent
from stepstream.stream.assemble.partition import AssemblePartition
from stepstream.stream.detectors.base import DetectorBase, Observation, Observations
from stepstream.stream.detectors.time_limits import StuckRun
from stepstream.stream.run.rules import Applied, RuleSet
from stepstream.stream.run.run import Run
from stepstream.testing import DetectorCase
from stepstream.testing.cases import BEGIN_US
from stepstream.testing.world import World
from tests.support.stream_bench import Bench, root, step, us

AFTER_US = 5_000_000


class Overdue(DetectorBase):
    """Reports that five seconds have passed since a run's first record."""

    def on_timer(self, run: Run, now_us: int) -> Observations:
        due_us = run.first_append_us + AFTER_US
        if now_us < due_us:
            run.set_timer(self.name, due_us)
            return ()
        return (Observation("five seconds have passed", "warning"),)


class Raising(Overdue):
    def on_timer(self, run: Run, now_us: int) -> Observations:
        raise RuntimeError("no timer of mine")


def world(kind: type[DetectorBase]) -> World:
    return World(DetectorCase("overdue", StuckRun(rule="stuck_run"), kind, (), ()))


def use(bench: Bench, *kinds: type[DetectorBase]) -> None:
    """Have the bench's runs followed by these detectors alone."""
    applied = Applied(StuckRun(rule="stuck_run"))
    made = iter(kinds)
    # Not just next(made): each call takes the next kind.
    rules = RuleSet((applied,) * len(kinds), lambda item: next(made)(item))  # noqa: PLW0108
    bench.rules = bench.logic.rules = _Book(rules)  # type: ignore[assignment]


class _Book:
    def __init__(self, rules: RuleSet) -> None:
        self._rules = rules

    def rules_for(self, *_owner: str) -> RuleSet:
        return self._rules

    def restored(self, _pinned: str) -> RuleSet:
        return self._rules


@pytest.fixture
def bench() -> Bench:
    made = Bench()
    use(made, Overdue)
    return made


def due_at(logic: AssemblePartition) -> list[int]:
    """When the next timer of each open run is due."""
    return [tracked.run.next_timer_us for tracked in logic.runs.values()]


def test_a_timer_fires_once_at_its_time(bench: Bench) -> None:
    bench.send(root("start", 0), 0)
    assert due_at(bench.logic) == [us(5)]
    bench.wait(4.5)
    assert bench.findings() == []
    bench.wait(20)
    assert [finding["message"] for finding in bench.findings()] == ["five seconds have passed"]


def test_the_earlier_of_two_timers_of_one_name_stays() -> None:
    run = Run("a" * 32, 0, Bench().logic.rules.rules_for("", "", "", "", ""))
    run.set_timer("x", 10)
    # Later than the first one of this name: the earlier stays, so that nothing is missed.
    run.set_timer("x", 20)
    run.set_timer("y", 15)
    assert run.next_timer_us == 10
    assert run.take_due_timers(9) == set()
    assert run.take_due_timers(12) == {"x"}
    assert run.next_timer_us == 15


def test_two_detectors_of_one_name_are_both_called(bench: Bench) -> None:
    calls: list[int] = []

    class Noting(Overdue):
        def on_timer(self, run: Run, now_us: int) -> Observations:
            calls.append(now_us)
            return super().on_timer(run, now_us)

    use(bench, Noting, Noting)
    bench.send(root("start", 0), 0)
    # With the first record, to set their timers.
    assert len(calls) == 2
    bench.wait(6)
    assert len(calls) == 4


def test_a_restart_sets_the_timers_again(bench: Bench) -> None:
    bench.send(root("start", 0), 0)
    bench.wait(2)
    bench.swap()
    bench.wait(4.5)
    assert bench.findings() == []
    bench.wait(30)
    assert len(bench.findings()) == 1


def test_a_root_that_comes_late_brings_the_timers_of_its_rules(bench: Bench) -> None:
    # Before the root, whose agent decides which rules apply.
    bench.send(step(2, "start", 0.1), 0.1)
    use(bench, Overdue)
    bench.send(root("start", 0), 1)
    bench.wait(10)
    assert len(bench.findings()) == 1


def test_a_run_that_ended_before_its_timer_was_due_hears_no_more_of_it(bench: Bench) -> None:
    bench.send(root("start", 0), 0)
    bench.send(root("end", 0, 1), 1)
    bench.wait(30)
    assert bench.findings() == []
    assert not bench.logic.runs


def test_a_detector_whose_timer_raises_is_off_for_the_run(bench: Bench) -> None:
    use(bench, Raising, Overdue)
    bench.send(root("start", 0), 0)
    bench.wait(30)
    assert bench.logic.counters.detector_errors
    # Off for this run alone; others have it still.
    assert "stuck-run" in bench.run.off


def test_crashes_neither_lose_nor_repeat_what_a_timer_finds() -> None:
    """The state names what time has found before it is sent."""

    def played(crash_at: int | None) -> set[str]:
        made = world(Overdue)
        event: dict[str, Any] = root("start", 0)
        made.append(StepEvent.model_validate(event), BEGIN_US)
        for turn in range(20):
            if turn == crash_at:
                made.checkpoint()
                made.crash()
            made.wait(BEGIN_US + turn * 1_000_000, BEGIN_US + (turn + 1) * 1_000_000)
        made.wait(BEGIN_US + 20_000_000, BEGIN_US + 60_000_000)
        return made.ids()

    expected = played(None)
    assert len(expected) == 1
    for crash_at in range(20):
        assert played(crash_at) == expected
