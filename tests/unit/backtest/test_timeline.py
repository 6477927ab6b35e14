"""Policies in effect at each time."""

from __future__ import annotations

from stepstream.backtest.timeline import PolicyChange, Timeline
from stepstream.schemas.policy import Policy
from tests.support.stream_bench import policy


def named(name: str, revision: int = 1) -> Policy:
    return policy(name=name, revision=revision)


CHANGES = (
    PolicyChange(10, "a", named("a")),
    PolicyChange(20, "b", named("b")),
    PolicyChange(30, "a", named("a", 2)),
    PolicyChange(40, "b", None),
)


def test_a_part_of_the_time_begins_with_what_was_in_effect() -> None:
    found = Timeline((), CHANGES).between(20, 40)
    assert found == Timeline((named("a"), named("b")), (CHANGES[2],))
    assert Timeline((), CHANGES).between(50, 60) == Timeline((named("a", 2),))


def test_a_given_policy_is_in_effect_all_the_time() -> None:
    """Also before the one that it replaces was applied; changes of others stay."""
    mine = named("b", 0)
    assert Timeline((), CHANGES).replaced([mine]) == Timeline((mine,), (CHANGES[0], CHANGES[2]))
