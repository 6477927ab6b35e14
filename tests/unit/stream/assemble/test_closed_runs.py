"""Closed runs: states for the late horizon, names for twice as long, both bounded."""

from __future__ import annotations

from stepstream.schemas.times import HOUR_US
from stepstream.stream.assemble.closed_runs import ClosedRuns


def test_a_state_is_kept_for_the_horizon() -> None:
    """A late step within it finds the run again."""
    closed = ClosedRuns(HOUR_US, 10)
    closed.put("a", 1_000, 5, b"state of a")
    closed.expire(1_000 + HOUR_US)
    assert (closed.through("a"), "a" in closed, len(closed)) == (5, True, 1)
    assert closed.take("a") == b"state of a"
    assert (closed.through("a"), closed.is_known("a")) == (None, False)


def test_after_the_horizon_the_name_alone_is_known() -> None:
    """A step that comes then is too late, not the beginning of another run."""
    closed = ClosedRuns(HOUR_US, 10)
    closed.put("a", 1_000, 5, b"")
    closed.expire(1_001 + HOUR_US)
    assert (closed.through("a"), closed.is_known("a"), closed.is_known("b")) == (None, True, False)


def test_after_twice_the_horizon_the_name_is_forgotten() -> None:
    """Names do not pile up."""
    closed = ClosedRuns(HOUR_US, 10)
    closed.put("a", 1_000, 5, b"")
    closed.expire(1_001 + HOUR_US)
    closed.expire(1_001 + 3 * HOUR_US)
    assert not closed.is_known("a")


def test_no_more_states_than_the_bound() -> None:
    """The oldest give way, and are known by name."""
    closed = ClosedRuns(HOUR_US, 3)
    for number in range(10):
        closed.put(f"run {number}", 1_000 + number, number, b"")
    assert len(closed) == 3
    assert [closed.through(f"run {number}") for number in range(10)] == [None] * 7 + [7, 8, 9]
    assert all(closed.is_known(f"run {number}") for number in range(7))


def test_a_run_put_again_counts_from_then() -> None:
    """A late step renews its run's entry: it is the newest, and the bound evicts others first."""
    closed = ClosedRuns(HOUR_US, 2)
    closed.put("a", 1_000, 1, b"old")
    closed.put("b", 1_001, 2, b"")
    closed.put("a", 1_000, 3, b"new")
    closed.put("c", 1_002, 4, b"")
    assert (closed.through("a"), closed.through("b"), closed.through("c")) == (3, None, 4)
    assert closed.take("a") == b"new"
