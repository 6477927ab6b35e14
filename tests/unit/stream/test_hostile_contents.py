"""Property-based, short: hostile contents through all the logic. ``make chaos`` plays 400,000."""

from __future__ import annotations

import pytest

from tests.support.fuzz import Contents, Records
from tests.support.hostile import Hostile, valid_records


@pytest.mark.parametrize("seed", range(3))
def test_no_detector_raises_whatever_steps_contain(seed: int) -> None:
    played = Contents(seed)
    played.play(steps=700)
    assert played.problems() == []


@pytest.mark.parametrize("seed", range(3))
def test_no_reader_of_any_topic_raises(seed: int) -> None:
    played = Records(seed)
    played.play(each=150)
    assert played.problems() == []


def test_the_same_seed_makes_the_same() -> None:
    first, second = (Hostile(7) for _ in range(2))
    assert [first.contents() for _ in range(50)] == [second.contents() for _ in range(50)]
    valid = valid_records(1)["steps"][1]
    assert [first.record(valid) for _ in range(50)] == [second.record(valid) for _ in range(50)]
