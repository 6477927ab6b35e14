"""The fit of the attribution benchmark finds known weights."""

from __future__ import annotations

import numpy as np

from benchmarks.attribution import Conversation, _folds, _recall_at, fit
from stepstream.evals.blame.features import FEATURES


def conversation(place: int, decisive: int, source: str = "algorithm_generated") -> Conversation:
    """Five steps, of which the decisive one alone has the first feature."""
    rows = np.zeros((5, len(FEATURES)))
    rows[:, 1] = place % 3
    rows[decisive, 0] = 1
    return Conversation(source, rows, tuple("abcde"), decisive, False)


def test_the_feature_of_decisive_steps_gets_the_weight() -> None:
    weights = fit([conversation(place, place % 5) for place in range(40)])
    assert weights[0] > 1
    assert np.allclose(weights[1:], 0)


def test_folds_are_of_equal_size_in_each_set() -> None:
    conversations = [conversation(place, 0) for place in range(20)]
    conversations += [conversation(place, 0, "hand_crafted") for place in range(10)]
    folds = _folds(conversations, np.random.default_rng(1))
    assert sorted(folds[:20]) == sorted([*range(10)] * 2)
    assert sorted(folds[20:]) == [*range(10)]


def test_recall_is_that_of_the_longest_list_with_the_precision() -> None:
    ranked = [(0.9, True), (0.8, False), (0.7, True), (0.6, False), (0.5, False), (0.4, False)]
    assert _recall_at(ranked, 4) == 0.5
    assert _recall_at([], 4) == 0
