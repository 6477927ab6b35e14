"""The clock of a partition is log time: no run times out because nothing was read."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stepstream.schemas.times import SECOND_US
from stepstream.stream.core.clock import CATCH_UP_US, JUMP_US, PartitionClock


def test_it_moves_with_the_log() -> None:
    """Records and fetches that found no more move it; small steps need no grace."""
    clock = PartitionClock()
    clock.advance(10 * SECOND_US, watching=False)
    clock.advance(11 * SECOND_US, watching=True)
    assert (clock.now_us, clock.timers_may_fire) == (11 * SECOND_US, True)


def test_it_never_goes_back() -> None:
    """Append times may step back when the leader changes; deadlines are not checked twice."""
    clock = PartitionClock()
    clock.advance(10 * SECOND_US, watching=True)
    # As after a change of the leader, whose clock is behind.
    clock.advance(9 * SECOND_US, watching=True)
    assert clock.now_us == 10 * SECOND_US


def test_after_a_jump_timers_give_producers_time_to_catch_up() -> None:
    """Nothing was read for a while: producers may be about to deliver."""
    clock = PartitionClock(now_us=SECOND_US)
    clock.advance(SECOND_US + JUMP_US + 1, watching=True)
    assert not clock.timers_may_fire
    clock.advance(clock.timers_from_us - 1, watching=False)
    assert not clock.timers_may_fire
    clock.advance(clock.timers_from_us, watching=True)
    assert clock.timers_may_fire


def test_a_step_of_exactly_the_limit_is_no_jump() -> None:
    """The limit itself still counts as watched."""
    clock = PartitionClock(now_us=SECOND_US)
    clock.advance(SECOND_US + JUMP_US, watching=True)
    assert clock.timers_may_fire


def test_a_jump_while_nothing_is_open_needs_no_grace() -> None:
    """An idle partition's first record starts no wait: there is no timer the jump could fire."""
    clock = PartitionClock(now_us=SECOND_US)
    # An hour later, and nothing was open that could be overdue.
    clock.advance(3_600 * SECOND_US, watching=False)
    assert clock.timers_may_fire


def test_a_jump_during_the_grace_begins_a_new_one() -> None:
    """An outage that comes back once more is an outage."""
    clock = PartitionClock(now_us=SECOND_US)
    clock.advance(10 * SECOND_US, watching=True)
    clock.advance(15 * SECOND_US, watching=True)
    assert clock.timers_from_us == 15 * SECOND_US + CATCH_UP_US


@given(st.lists(st.tuples(st.integers(0, 100 * SECOND_US), st.booleans())))
def test_time_is_the_highest_seen(steps: list[tuple[int, bool]]) -> None:
    """In any order of records it is the highest time seen; the grace never begins beyond it."""
    clock = PartitionClock()
    for time_us, watching in steps:
        clock.advance(time_us, watching=watching)
    assert clock.now_us == max((time_us for time_us, _ in steps), default=0)
    assert clock.timers_from_us <= clock.now_us + CATCH_UP_US


def test_what_began_after_a_jump_need_not_wait_for_what_was_delayed_during_it() -> None:
    """A failure that goes on delays everything, also what began during the grace of a jump."""
    clock = PartitionClock(now_us=SECOND_US)
    clock.advance(20 * SECOND_US, watching=True)
    assert [clock.may_close(second * SECOND_US) for second in (1, 19, 20, 21)] == [
        False,
        False,
        True,
        True,
    ]
    clock.advance(21 * SECOND_US, watching=True)
    clock.delay_timers()
    assert not clock.may_close(21 * SECOND_US)
    clock.advance(24 * SECOND_US, watching=True)
    assert not clock.may_close(24 * SECOND_US)
    clock.advance(24 * SECOND_US + CATCH_UP_US, watching=True)
    assert not clock.may_close(24 * SECOND_US)
    for second in range(1, CATCH_UP_US // SECOND_US + 1):
        clock.advance((24 + second) * SECOND_US + CATCH_UP_US, watching=True)
    assert clock.may_close(0)
