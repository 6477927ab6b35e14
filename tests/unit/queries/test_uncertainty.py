"""Intervals against values of published tables and examples."""

from __future__ import annotations

import pytest

from stepstream.queries.uncertainty import (
    Sample,
    mean_difference,
    rate_difference,
    share_interval,
    t95,
)


@pytest.mark.parametrize(
    ("freedom", "expected"), [(3, 3.182), (5, 2.571), (10, 2.228), (18, 2.101), (120, 1.980)]
)
def test_quantiles_of_t_are_those_of_tables(freedom: float, expected: float) -> None:
    assert t95(freedom) == pytest.approx(expected, rel=0.01)


def test_welch_s_interval() -> None:
    """Equal variances and sizes: 18 degrees of freedom, a half width of 2.1009 standard errors."""
    # The standard error is 1: sqrt(5 / 10 + 5 / 10).
    found = mean_difference(Sample(10, 0.0, 5.0), Sample(10, 1.0, 5.0))
    assert found == pytest.approx((1 - 2.1009, 1 + 2.1009), abs=1e-3)


def test_newcombe_s_interval() -> None:
    """Newcombe 1998, table II, (a): 56/70 and 48/80 give 0.0524 to 0.3339."""
    found = rate_difference(Sample(80, 48 / 80, 0), Sample(70, 56 / 70, 0))
    assert found == pytest.approx((0.0524, 0.3339), abs=1e-4)


def test_too_few_have_no_interval_and_equal_ones_one_of_no_width() -> None:
    assert mean_difference(Sample(3, 1, 1), Sample(10, 1, 1)) is None
    assert rate_difference(Sample(0, 0, 0), Sample(10, 1, 0)) is None
    found = mean_difference(Sample(9, 1.0, 0.0), Sample(9, 1.0, 0.0))
    assert found == (0.0, 0.0)
    assert not found.leaves_out_zero


def test_a_share_has_an_interval() -> None:
    assert share_interval(0.0, 0) == (0.0, 1.0)
    low, high = share_interval(0.1, 10)
    assert 0.01 < low < 0.1 < high < 0.42
