"""Distributions, levels of rounds, intervals and exact tests, compared with published values."""

from __future__ import annotations

import math

import pytest

from stepstream.evals.gate.distributions import hypergeometric, student_cdf, student_upper
from stepstream.evals.gate.intervals import Spread, rate_interval
from stepstream.evals.gate.rounds import levels
from stepstream.evals.gate.small_suites import p_worse


@pytest.mark.parametrize(
    ("level", "freedom", "quantile"),
    [
        # Tables of Student's t.
        (0.05, 1, 6.313752),
        (0.025, 9, 2.262157),
        (0.05, 49, 1.676551),
        (0.005, 30, 2.749996),
        (0.025, 1_000, 1.962339),
    ],
)
def test_quantiles_of_student_are_those_of_the_tables(
    level: float, freedom: int, quantile: float
) -> None:
    assert student_upper(level, freedom) == pytest.approx(quantile, abs=1e-5)
    assert 1 - student_cdf(quantile, freedom) == pytest.approx(level, abs=1e-6)


def test_extreme_values_of_student_have_their_limits() -> None:
    assert student_cdf(0.0, 5) == pytest.approx(0.5)
    assert student_cdf(-math.inf, 5) == 0
    assert student_cdf(math.inf, 5) == 1
    assert 0 < student_cdf(-40.0, 200) < 1e-50


@pytest.mark.parametrize("successes", range(7))
def test_hypergeometric_laws_sum_to_one_with_half_the_successes(successes: int) -> None:
    law = hypergeometric(3, successes)
    assert sum(law) == pytest.approx(1)
    assert sum(found * share for found, share in enumerate(law)) == pytest.approx(successes / 2)


def test_the_levels_of_five_rounds_spend_alpha_by_trials() -> None:
    expected = (0.00625, 0.00804, 0.01015, 0.01838, 0.03001)
    assert levels((1, 2, 3, 5, 8), 0.05) == pytest.approx(expected, abs=1e-5)
    assert levels((3,), 0.05) == pytest.approx((0.05,))
    assert levels((2, 4, 8), 0.05) == pytest.approx((0.0125, 0.0168, 0.0339), abs=1e-4)


def test_the_bounds_of_a_mean_are_those_of_student() -> None:
    spread = Spread.of([0.1, -0.1, 0.3, 0.0, 0.2])
    assert spread.mean == pytest.approx(0.1)
    assert spread.error == pytest.approx(math.sqrt(0.025 / 5))
    width = 2.131847 * spread.error
    assert (spread.lower(0.05), spread.upper(0.05)) == pytest.approx((0.1 - width, 0.1 + width))


def test_cases_that_all_agree_prove_no_more_than_their_number() -> None:
    assert Spread.of([0.0] * 20).p_below() == 1
    assert Spread.of([-0.1] * 20).p_below() == pytest.approx(2**-20)
    assert Spread.of([0.0] * 10).lower(0.05) == pytest.approx(-(1 - 0.05**0.1))


def test_a_rate_without_spread_has_an_interval_by_its_cases() -> None:
    low, high = rate_interval([1.0] * 20, 8)
    assert high == 1
    # Wilson's interval of 20 in 20, not of 160 in 160.
    assert low == pytest.approx(0.839, abs=0.001)


def test_an_interval_of_a_rate_is_wider_where_cases_differ() -> None:
    low, high = rate_interval([0.0, 1.0] * 15, 8)
    same_low, same_high = rate_interval([0.4, 0.6] * 15, 8)
    assert high - low > 2 * (same_high - same_low)


def test_the_exact_test_of_few_cases_is_that_of_fisher_for_one() -> None:
    assert p_worse([8], [4], 8) == pytest.approx(math.comb(8, 4) / math.comb(16, 4))


def test_trials_that_repeat_each_other_count_once() -> None:
    # Five cases, each lost as a whole: 1 in 2^5, however many trials there were.
    assert p_worse([8] * 5, [0] * 5, 8) == pytest.approx(1 / 32)
    assert p_worse([3] * 5, [3] * 5, 3) == 1
