"""When runs are woken: never later than a detector asked for, and not without need."""

from __future__ import annotations

import pytest

from stepstream.stream.assemble.partition import AssemblePartition
from stepstream.stream.assemble.timers import MIN_WAIT_US, wake_at
from stepstream.testing import DetectorCase
from stepstream.testing.world import World, as_they_happen
from tests.support.content_cases import CASES
from tests.support.rule_cases import CASES as RULES
from tests.support.rule_cases import Case
from tests.support.stream_bench import Bench, policy, root, step


def assert_punctual(stage: AssemblePartition) -> None:
    """No run is woken later than something about it is due."""
    for active in stage.runs.values():
        due_us = wake_at(active.run, stage.limits)
        if due_us is not None:
            assert active.scheduled_us is not None
            assert active.scheduled_us <= max(due_us, stage.clock.now_us + MIN_WAIT_US)


class Punctual(World):
    """Holds the stage to what its detectors ask for after every batch."""

    def turn(self) -> None:
        """The end of a batch."""
        super().turn()
        assert_punctual(self.stage)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_no_wake_up_comes_late(case: DetectorCase) -> None:
    """Whatever a record makes a detector wait for is in the schedule when its batch ends."""
    for events in (case.breaks, case.calm):
        Punctual(case).play(events, as_they_happen(events))


@pytest.mark.parametrize("case", RULES, ids=lambda case: case.alert)
def test_no_wake_up_comes_late_under_a_policy(case: Case) -> None:
    """The same for every rule about a running run, through records and through time."""
    bench = case.bench()
    for at_s, item in case.breaks:
        bench.send(item, at_s)
        assert_punctual(bench.logic)
    for _ in range(20):
        bench.wait(bench.now_s + 7)
        assert_punctual(bench.logic)


class WakeUps:
    """Counts how often a stage wakes a run because time has passed."""

    def __init__(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        wake = bench.logic._wake

        def counted(*args: object) -> None:
            self.count += 1
            wake(*args)  # type: ignore[arg-type]

        monkeypatch.setattr(bench.logic, "_wake", counted)


def test_a_run_is_not_woken_while_nothing_can_be_due(monkeypatch: pytest.MonkeyPatch) -> None:
    """With very many runs open wake-ups are what costs: a minute of a quiet run needs none."""
    bench = Bench()
    wake_ups = WakeUps(bench, monkeypatch)
    bench.send(root("start", 0), 0)
    for second in range(1, 60):
        bench.send(step(second + 1, "end", second, second + 0.5, kind="llm_call"), second)
    # Wake-ups are counted: a loaded machine changes the time of a test, not their number.
    assert wake_ups.count == 0


def test_a_limit_makes_wake_ups_as_rare_as_it_is_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step is due one limit after its start, so a run is woken at most once in that time."""
    bench = Bench(policy({"rule": "step_duration", "limit": "10s"}))
    wake_ups = WakeUps(bench, monkeypatch)
    bench.send(root("start", 0), 0)
    for second in range(1, 60):
        bench.send(step(second + 1, "start", second), second)
        bench.send(step(second + 1, "end", second, second + 0.5), second + 0.5)
    assert 1 <= wake_ups.count <= 6
