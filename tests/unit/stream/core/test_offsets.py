"""The safe offset: below it nothing needs to be read again, so it may be committed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stepstream.stream.core.offsets import OffsetTracker
from stepstream.stream.core.outputs import OffsetHold


def test_it_is_the_position_when_nothing_is_needed() -> None:
    """All that was read needs nothing more."""
    offsets = OffsetTracker(7)
    assert (offsets.safe, offsets.oldest()) == (7, None)


def test_it_is_the_lowest_needed_offset() -> None:
    """The oldest hold decides, whatever else is released."""
    offsets = OffsetTracker(100)
    first, second, third = OffsetHold(), OffsetHold(), OffsetHold()
    for hold, offset in ((first, 10), (second, 20), (third, 30)):
        offsets.hold(hold, offset)
    offsets.release(second)
    assert (offsets.safe, offsets.oldest()) == (10, first)
    offsets.release(first)
    assert (offsets.safe, offsets.oldest()) == (30, third)
    offsets.release(third)
    assert offsets.safe == 100


def test_a_hold_that_moves_on_keeps_only_its_new_offset() -> None:
    """After a checkpoint a run needs only what came after it."""
    offsets = OffsetTracker(100)
    hold = OffsetHold()
    offsets.hold(hold, 10)
    offsets.hold(hold, 60)
    assert offsets.safe == 60


@given(st.lists(st.tuples(st.sampled_from(["hold", "release"]), st.integers(0, 4)), max_size=60))
def test_it_agrees_with_the_minimum_of_what_is_needed(steps: list[tuple[str, int]]) -> None:
    """The heap with stale entries gives the minimum, and it never falls while offsets grow."""
    offsets = OffsetTracker()
    holds = [OffsetHold() for _ in range(5)]
    needed: dict[int, int] = {}
    lowest = 0
    for offset, (what, which) in enumerate(steps):
        offsets.position = offset + 1
        if what == "hold":
            offsets.hold(holds[which], offset)
            needed[which] = offset
        else:
            offsets.release(holds[which])
            needed.pop(which, None)
        assert offsets.safe == min(needed.values(), default=offsets.position)
        assert offsets.safe >= lowest
        lowest = offsets.safe
