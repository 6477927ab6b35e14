"""The chain of steps that determines how long a run takes."""

from __future__ import annotations

from stepstream.schemas.critical_path import Span, critical_path


def path(*spans: tuple[str, str, int, int]) -> dict[str, int]:
    return {part.step_id: part.own_us for part in critical_path(Span(*span) for span in spans)}


def test_steps_one_after_the_other_are_all_on_it() -> None:
    found = path(("r", "", 0, 100), ("a", "r", 10, 40), ("b", "r", 50, 90))
    assert found == {"r": 10 + 10 + 10, "a": 30, "b": 40}


def test_of_parallel_steps_the_one_that_ended_last_is() -> None:
    found = path(("r", "", 0, 100), ("a", "r", 0, 60), ("b", "r", 0, 90), ("c", "r", 90, 100))
    assert found == {"r": 0, "b": 90, "c": 10}


def test_a_step_that_overlaps_the_next_counts_until_that_began() -> None:
    assert path(("r", "", 0, 100), ("a", "r", 0, 70), ("b", "r", 60, 100)) == {
        "r": 0,
        "a": 60,
        "b": 40,
    }


def test_it_goes_down_into_nested_steps_and_adds_up_to_the_root() -> None:
    spans = [("r", "", 0, 100), ("a", "r", 10, 90), ("b", "a", 20, 50), ("c", "b", 20, 30)]
    found = path(*spans)
    assert found == {"r": 20, "a": 50, "b": 20, "c": 10}
    assert sum(found.values()) == 100


def test_steps_outside_their_parent_count_with_the_part_within_it() -> None:
    assert path(("r", "", 0, 100), ("a", "r", -50, 20), ("b", "r", 90, 500)) == {
        "a": 20,
        "r": 70,
        "b": 10,
    }


def test_odd_trees_have_a_path_as_well() -> None:
    """Two roots, a circle, an orphan, a negative duration, a chain deeper than Python's stack."""
    assert path() == {}
    assert path(("r", "", 0, 10), ("s", "", 0, 50)) == {"s": 50}
    assert path(("a", "b", 0, 9), ("b", "a", 0, 9)) == {}
    assert path(("r", "", 0, 10), ("a", "a", 2, 4)) == {"r": 10}
    assert path(("r", "", 0, 10), ("a", "r", 5, 2)) == {"r": 10}
    chain = [(str(n), str(n - 1) if n else "", n, 10_000 - n) for n in range(3_000)]
    assert sum(path(*chain).values()) == 10_000
