"""The floor: below it nothing needs to be read again, so it may be committed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stepstream.stream.core.offsets import OffsetTracker
from stepstream.stream.core.outputs import OffsetHold


def test_it_is_the_position_when_nothing_is_held() -> None:
    """All that was read needs nothing more."""
    offsets = OffsetTracker(7)
    assert (offsets.safe, offsets.oldest()) == (7, None)


def test_it_is_the_lowest_held_offset() -> None:
    """The oldest holder decides, whatever else is released."""
    offsets = OffsetTracker(100)
    first, second, third = OffsetHold(), OffsetHold(), OffsetHold()
    for holder, offset in ((first, 10), (second, 20), (third, 30)):
        offsets.hold(holder, offset)
    offsets.release(second)
    assert (offsets.safe, offsets.oldest()) == (10, first)
    offsets.release(first)
    assert (offsets.safe, offsets.oldest()) == (30, third)
    offsets.release(third)
    assert offsets.safe == 100


def test_a_holder_that_moves_on_holds_only_its_new_offset() -> None:
    """After a checkpoint a run needs only what came after it."""
    offsets = OffsetTracker(100)
    holder = OffsetHold()
    offsets.hold(holder, 10)
    offsets.hold(holder, 60)
    assert offsets.safe == 60


@given(st.lists(st.tuples(st.sampled_from(["hold", "release"]), st.integers(0, 4)), max_size=60))
def test_it_agrees_with_the_minimum_of_what_is_held(steps: list[tuple[str, int]]) -> None:
    """The heap with stale entries gives the minimum, and it never falls while offsets grow."""
    offsets = OffsetTracker()
    holders = [OffsetHold() for _ in range(5)]
    held: dict[int, int] = {}
    lowest = 0
    for offset, (what, which) in enumerate(steps):
        offsets.position = offset + 1
        if what == "hold":
            offsets.hold(holders[which], offset)
            held[which] = offset
        else:
            offsets.release(holders[which])
            held.pop(which, None)
        assert offsets.safe == min(held.values(), default=offsets.position)
        assert offsets.safe >= lowest
        lowest = offsets.safe
