"""The floor: below it nothing needs to be read again, so it may be committed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stepstream.stream.core.floor import Floor
from stepstream.stream.core.outputs import Hold


def test_it_is_the_position_when_nothing_is_held() -> None:
    """All that was read needs nothing more."""
    floor = Floor(7)
    assert (floor.value, floor.oldest()) == (7, None)


def test_it_is_the_lowest_held_offset() -> None:
    """The oldest holder decides, whatever else is released."""
    floor = Floor(100)
    first, second, third = Hold(), Hold(), Hold()
    for holder, offset in ((first, 10), (second, 20), (third, 30)):
        floor.hold(holder, offset)
    floor.release(second)
    assert (floor.value, floor.oldest()) == (10, first)
    floor.release(first)
    assert (floor.value, floor.oldest()) == (30, third)
    floor.release(third)
    assert floor.value == 100


def test_a_holder_that_moves_on_holds_only_its_new_offset() -> None:
    """After a checkpoint a run needs only what came after it."""
    floor = Floor(100)
    holder = Hold()
    floor.hold(holder, 10)
    floor.hold(holder, 60)
    assert floor.value == 60


@given(st.lists(st.tuples(st.sampled_from(["hold", "release"]), st.integers(0, 4)), max_size=60))
def test_it_agrees_with_the_minimum_of_what_is_held(steps: list[tuple[str, int]]) -> None:
    """The heap with stale entries gives the minimum, and it never falls while offsets grow."""
    floor = Floor()
    holders = [Hold() for _ in range(5)]
    held: dict[int, int] = {}
    lowest = 0
    for offset, (what, which) in enumerate(steps):
        floor.position = offset + 1
        if what == "hold":
            floor.hold(holders[which], offset)
            held[which] = offset
        else:
            floor.release(holders[which])
            held.pop(which, None)
        assert floor.value == min(held.values(), default=floor.position)
        assert floor.value >= lowest
        lowest = floor.value
