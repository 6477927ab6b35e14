"""The window of steps that were stored: exact within its span, the same after a restart, eight
bytes a key.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stepstream.sinks.clickhouse.window import PRIME, KeySet, SeenWindow, step_keys

KEYS = st.integers(0, PRIME - 1)


@given(st.lists(KEYS | st.integers(0, 50)), st.lists(KEYS | st.integers(0, 50)))
def test_a_key_set_is_a_set(added: list[int], asked: list[int]) -> None:
    """Also for 0, and for keys that differ in a few bits alone."""
    keys_known = KeySet()
    keys_known.update(added)
    assert [key in keys_known for key in asked + added] == [
        key in set(added) for key in asked + added
    ]
    assert keys_known.intersection(asked + added[::2]) == set(added).intersection(
        asked + added[::2]
    )
    assert keys_known.count == len(set(added))


def test_a_key_set_grows() -> None:
    """Every key is still found after it grew, also where all low bits agree."""
    keys_known = KeySet()
    keys = [number << 20 for number in range(20_000)]
    keys_known.update(keys)
    assert all(key in keys_known for key in keys)
    assert not any(key + 1 in keys_known for key in keys)


def test_ids_that_count_up_have_different_keys() -> None:
    """Ids need not be random: counters in both of them do not meet."""
    keys = step_keys(
        f"{trace:032x}{step:016x}" for trace in range(1, 200) for step in range(1, 200)
    )
    # A sum or xor of both counters would give the same key many times.
    assert len(set(keys)) == 199 * 199


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 40)), max_size=60), st.data())
def test_the_window_is_the_same_after_a_restart(
    batches: list[tuple[int, int]], data: st.DataObject
) -> None:
    """What was stored in the last ``span`` offsets is known, and a sink that starts anew knows what
    the old one knew.
    """
    span = 50
    window = SeenWindow(0, span)
    stored: dict[int, int] = {}
    offset = 0
    for key, gap in batches:
        offset += gap
        window.move_to(offset)
        expected = any(other == key and offset - at <= span for at, other in stored.items())
        assert key in window or not expected
        window.update([key])
        stored[offset] = key
    following = offset + data.draw(st.integers(1, 3 * span))
    window.move_to(following)
    fresh = SeenWindow(following, span)
    older, newest = (
        [stored[at] for at in stored if low <= at < high] for low, high in fresh.ranges
    )
    fresh.load(older, newest)
    assert [key in fresh for key in range(31)] == [key in window for key in range(31)]
    assert fresh.intersection(range(31)) == {key for key in range(31) if key in window}


def test_old_keys_are_forgotten() -> None:
    """At most two spans are kept."""
    window = SeenWindow(0, 100)
    window.update(range(100))
    assert window.move_to(99) is False
    assert window.move_to(100) is True
    assert 5 in window
    window.move_to(200)
    assert (5 in window, len(window)) == (False, 0)
