"""Suggested limits keep the wished false-alarm rate, and short histories give none."""

from __future__ import annotations

import random

import pytest

from stepstream.backtest.suggest import (
    MEASURES,
    policy_document,
    ranks,
    rounded_up,
    runs_needed,
    suggestion,
    values_needed,
)
from stepstream.schemas.policy import Policy

COST, TOKENS, STEPS, DURATION = MEASURES


def test_a_short_history_gives_no_limit_and_states_what_is_needed() -> None:
    """For 1 % the largest of 367 runs may still be below the quantile; that of 368 bounds it."""
    assert runs_needed(0.01) == 368
    few = suggestion(COST, 367, [float(n) for n in range(367, 0, -1)], 0.01)
    assert (few.limit, few.needed, few.quantile) == (None, 368, 364.0)
    enough = suggestion(COST, 368, [float(n) for n in range(368, 0, -1)], 0.01)
    assert enough.limit is not None
    assert suggestion(COST, 0, [], 0.01).limit is None


@pytest.mark.parametrize(
    ("runs", "rate"), [(400, 0.01), (2_000, 0.01), (300, 0.05), (50_000, 0.001)]
)
def test_the_rate_is_kept_in_nearly_all_histories(runs: int, rate: float) -> None:
    """Of 400 histories at most 5 % give a limit that more than the wished share of runs exceeds."""
    # The values are uniform, so that the share beyond a limit is known exactly.
    draw = random.Random(7)
    found = ranks(runs, rate)
    assert found.high is not None
    assert found.high <= found.quantile <= found.low
    missed = 0
    for _ in range(400):
        # The k-th largest of n uniform values has the distribution Beta(n - k, k + 1).
        limit = draw.betavariate(runs - found.high, found.high + 1)
        missed += 1 - limit > rate
    assert missed <= 20


def test_it_reads_no_more_values_than_it_needs() -> None:
    """For a million runs some ten thousand of them."""
    assert values_needed(1_000_000, 0.01) < 10_300
    assert values_needed(0, 0.01) == 0
    assert values_needed(1, 0.5) == 1


def test_what_exceeded_the_limit_is_counted() -> None:
    values = [float(n) for n in range(2_000, 0, -1)]
    found = suggestion(STEPS, 2_000, values[: values_needed(2_000, 0.01)], 0.01)
    assert found.limit == 2_000
    assert found.exceeded == 0
    assert found.low is not None
    assert found.quantile is not None
    assert found.low < found.quantile < found.limit


@pytest.mark.parametrize(
    ("value", "whole", "wanted"),
    [(0.0312, False, 0.032), (1234, True, 1300), (7, True, 7), (0, True, 1), (0.3, False, 0.3)],
)
def test_limits_are_rounded_up(value: float, whole: bool, wanted: float) -> None:
    assert rounded_up(value, whole=whole) == wanted


def test_the_policy_can_be_applied() -> None:
    """Each rule that has a limit, in mode observe."""
    found = [
        suggestion(measure, 2_000, [float(n) for n in range(2_000, 0, -1)], 0.01)
        for measure in MEASURES
    ]
    found.append(suggestion(COST, 3, [3.0, 2.0, 1.0], 0.01))
    document = policy_document("suggested-support", {"agent": "support"}, found)
    policy = Policy.model_validate(document)
    assert [rule.rule for rule in policy.rules] == [measure.rule for measure in MEASURES]
    assert policy.mode == "observe"
