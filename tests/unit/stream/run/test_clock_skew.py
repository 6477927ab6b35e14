"""Hosts whose clocks differ: a run's duration is its root's own; differing steps are counted."""

from __future__ import annotations

from typing import Any

import pytest

from stepstream.schemas.accept import Accepted, accept_value
from stepstream.schemas.prices import PriceBook
from stepstream.stream.assemble.run_records import run_summary, trajectory
from stepstream.stream.baselines.learner import buckets_of
from stepstream.stream.detectors import make_detector
from stepstream.stream.run.rules import RuleSet
from stepstream.stream.run.run import Run
from tests.support.step_events import NOW_US, TRACE_ID, value

SECOND = 1_000_000
HOUR = 3_600 * SECOND
ROOT = "f" * 16
BOOK = PriceBook()


class Log:
    """A run merged from events, each with its place in the log."""

    def __init__(self) -> None:
        self.run = Run(TRACE_ID, NOW_US, RuleSet((), make_detector))

    def add(
        self,
        number: int,
        phase: str,
        event_s: float,
        append_s: float,
        *,
        end_s: float | None = None,
        **more: Any,
    ) -> None:
        """An event with host time ``event_s``, appended at ``append_s``; seconds from the begin."""
        fields = {
            "step_id": ROOT if number == 0 else f"{number:016x}",
            "parent_step_id": more.pop("parent", "" if number == 0 else ROOT),
            "phase": phase, "kind": "agent" if number == 0 else "tool_call", "name": "x",
            "start_time": NOW_US + round(event_s * SECOND),
    "end_time": ...
                if phase == "start"
                else NOW_US + round((event_s if end_s is None else end_s) * SECOND),
        } | more  # fmt: skip
        append_us = NOW_US + round(append_s * SECOND)
        accepted = accept_value(value(**fields), timestamp_us=append_us)
        assert isinstance(accepted, Accepted)
        self.run.merge(accepted.step, BOOK.cost(accepted.step, accepted.cost_nanos), append_us, 100)

    def close(self) -> Run:
        self.run.closed = True
        return self.run


def two_hosts(ahead_s: float) -> Run:
    """A root of two seconds, and a child on a host whose clock is ahead."""
    log = Log()
    log.add(0, "start", 0, 0)
    log.add(1, "start", 0.5 + ahead_s, 0.5)
    log.add(1, "end", 0.5 + ahead_s, 1.5, end_s=1.5 + ahead_s)
    log.add(0, "end", 0, 2, end_s=2)
    return log.close()


@pytest.mark.parametrize("ahead_s", [3_600, -3_600, 90, -90])
def test_a_clock_that_differs_changes_no_duration(ahead_s: float) -> None:
    """One hour off: the run took 2 s, in trajectories, summaries, windows and baselines."""
    run, same = two_hosts(ahead_s), two_hosts(0)
    seen, summary = trajectory(run), run_summary(run)
    assert (seen.duration_us, summary.duration_us) == (2 * SECOND, 2 * SECOND)
    assert seen.end_time - seen.start_time == seen.duration_us
    assert buckets_of(summary) == buckets_of(run_summary(same))
    # Counted, so that an operator can find the host with the wrong clock.
    assert (seen.skewed_steps, trajectory(same).skewed_steps) == (1, 0)


def test_a_child_that_outlives_its_parent_is_no_skew() -> None:
    """What goes on in the background ends later, and the log shows it."""
    log = Log()
    log.add(0, "start", 0, 0)
    log.add(1, "start", 1, 1)
    log.add(0, "end", 0, 2, end_s=2)
    log.add(1, "end", 1, 60, end_s=60)
    assert trajectory(log.close()).skewed_steps == 0


def test_a_task_that_waited_in_a_queue_is_no_skew() -> None:
    """It began after its parent had ended, and came as much later in the log."""
    log = Log()
    log.add(0, "start", 0, 0)
    log.add(0, "end", 0, 2, end_s=2)
    log.add(1, "start", 600, 600)
    log.add(1, "end", 600, 601, end_s=601)
    assert trajectory(log.close()).skewed_steps == 0


def test_a_run_sent_long_after_it_happened_keeps_its_times() -> None:
    """Recordings arrive within a second; steps minutes apart in them stay so, without skew."""
    log = Log()
    # 50 minutes old, appended now: differences to the append time are no skew here.
    log.add(1, "end", -3_000, 0.1, end_s=-1_000)
    assert trajectory(log.run).duration_us == 2_000 * SECOND
    log.add(0, "end", -3_600, 0.2, end_s=-60)
    seen = trajectory(log.close())
    assert (seen.duration_us, seen.skewed_steps) == (3_540 * SECOND, 0)


def test_an_open_run_is_no_longer_than_the_log() -> None:
    """While the root is open, a step from a clock ahead adds nothing beyond log time."""
    log = Log()
    log.add(0, "start", 0, 0)
    log.add(1, "end", 3_600, 5, end_s=3_601)
    assert trajectory(log.run).duration_us == 5 * SECOND
    assert run_summary(log.close()).duration_us == 5 * SECOND


def test_hosts_that_differ_from_the_broker_alike_are_no_skew() -> None:
    """All an hour ahead of Kafka: nothing differs within the run."""
    log = Log()
    log.add(0, "start", 3_600, 0)
    log.add(1, "end", 3_601, 1, end_s=3_604)
    log.add(0, "end", 3_600, 6, end_s=3_606)
    seen = trajectory(log.close())
    assert (seen.duration_us, seen.skewed_steps) == (6 * SECOND, 0)
