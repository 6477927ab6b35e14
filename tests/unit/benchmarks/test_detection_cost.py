"""Cost spikes on real runs: all that end at five times the median are found.

Ordinary ones raise nothing.
"""

from __future__ import annotations

import pytest

from benchmarks.detection.cost import ORDINARY, SPIKE, Case, read_cases, reported_at
from benchmarks.detection.score import Confusion, bootstrap, wilson
from tests.support.data_cases import real_data


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    real_data("trail_gaia")
    return read_cases()


def others(cases: list[Case], case: Case) -> list[Case]:
    return [other for other in cases if other is not case]


def test_every_spike_is_found_before_its_run_ends(cases: list[Case]) -> None:
    """Compared with the other runs; on average less than 60 % of the cost is spent by then."""
    spikes = [case for case in cases if case.times_median >= SPIKE]
    # Fewer would make the share below an average of almost nothing.
    assert len(spikes) == 7
    shares = []
    for case in spikes:
        found = reported_at(case, (other.summary for other in others(cases, case)))
        assert found is not None
        assert found < case.last_us
        shares.append(case.cost_by(found) / case.cost)
    assert sum(shares) / len(shares) < 0.6


def test_the_most_expensive_ordinary_runs_raise_nothing(cases: list[Case]) -> None:
    """The ten that come closest to three times the median; none of them is reported."""
    ordinary = sorted(
        (case for case in cases if case.times_median < ORDINARY), key=lambda case: -case.cost
    )[:10]
    assert [
        reported_at(case, (other.summary for other in others(cases, case))) for case in ordinary
    ] == [None] * 10


def test_intervals_are_those_of_the_books() -> None:
    """Wilson's interval for 8 of 10; equal values have no spread; no values give no interval."""
    assert wilson(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert wilson(0, 0) == (0.0, 1.0)
    assert bootstrap([2.0] * 5) == (2.0, 2.0)
    low, high = bootstrap([0.0, 1.0] * 50, seed=3)
    assert 0.3 < low < 0.45
    assert 0.55 < high < 0.7
    counts = (
        Confusion()
        .plus(truth=True, found=True)
        .plus(truth=True, found=False)
        .plus(truth=False, found=True)
    )
    assert (counts.recall, counts.precision, counts.false_per_100) == (0.5, 0.5, 100.0)
    assert Confusion().recall is None
