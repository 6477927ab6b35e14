"""Steps of two runs are aligned by what they did."""

from __future__ import annotations

from difflib import SequenceMatcher
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepstream.schemas.alignment import MAX_EDITS, align, step_key, tree_order


def shown(left: str, right: str) -> str:
    return " ".join(
        ("-" if a is None else left[a]) + ("-" if b is None else right[b])
        for a, b in align(left, right)
    )


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        ("abc", "abc", "aa bb cc"),
        ("abc", "axbc", "aa -x bb cc"),
        ("abc", "ac", "aa b- cc"),
        ("", "ab", "-a -b"),
        ("ab", "", "a- b-"),
        ("abc", "xyz", "a- b- c- -x -y -z"),
        ("sabcabce", "sabcxabce", "ss aa bb cc -x aa bb cc ee"),
    ],
)
def test_an_inserted_step_does_not_shift_the_rest(left: str, right: str, expected: str) -> None:
    assert shown(left, right) == expected


@given(st.text("abc", max_size=30), st.text("abc", max_size=30))
def test_every_step_stands_once_and_in_order(left: str, right: str) -> None:
    """And no other alignment of equal steps that difflib finds is longer."""
    pairs = align(left, right)

    assert [a for a, _ in pairs if a is not None] == list(range(len(left)))
    assert [b for _, b in pairs if b is not None] == list(range(len(right)))
    together = [(a, b) for a, b in pairs if a is not None and b is not None]
    assert all(left[a] == right[b] for a, b in together)
    blocks = SequenceMatcher(None, left, right, autojunk=False).get_matching_blocks()
    assert len(together) >= sum(block.size for block in blocks)


def test_very_different_and_very_long_runs_are_aligned() -> None:
    left = [number % 97 for number in range(20_000)]
    cut = [*left[:100], *left[150:]]
    right = [-1 - place if place % 5 == 0 else key for place, key in enumerate(cut)]
    assert sum(key < 0 for key in right) > MAX_EDITS

    pairs = align(left, right)

    assert [a for a, _ in pairs if a is not None] == list(range(len(left)))
    assert [b for _, b in pairs if b is not None] == list(range(len(right)))
    assert sum(a is not None and b is not None for a, b in pairs) > 15_000


def test_another_model_is_the_same_work() -> None:
    assert step_key("llm_call", "chat gpt-4o", "", "gpt-4o") == ("llm_call", "chat")
    assert step_key("llm_call", "chat o3", "", "o3") == ("llm_call", "chat")
    assert step_key("tool_call", "execute_tool search", "search", "") == ("tool_call", "search")
    assert step_key("llm_call", "plan", "", "") != step_key("plan", "plan", "", "")


def step(name: str, parent: str, start_us: int) -> dict[str, Any]:
    return {"step_id": name, "parent_step_id": parent, "start_us": start_us}


def test_steps_stand_below_their_parents() -> None:
    """Also with orphans, two roots, a circle of parents, a step that is its own parent."""
    steps = [
        step("late child", "root", 9),
        step("root", "", 0),
        step("child", "root", 1),
        step("grandchild", "child", 10),
        step("orphan", "never seen", 5),
        step("root 2", "", 6),
        step("circle b", "circle a", 8),
        step("circle a", "circle b", 7),
        step("own", "own", 11),
    ]
    order = [steps[place]["step_id"] for place in tree_order(steps)]
    assert order == [
        "root", "child", "grandchild", "late child", "orphan", "root 2", "circle a", "circle b",
        "own",
    ]  # fmt: skip


def test_any_depth() -> None:
    steps = [step(str(number), str(number - 1), number) for number in range(5_000)]
    assert tree_order(steps) == list(range(5_000))
