"""Amounts read alike wherever they are shown."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepstream.schemas.formatting import (
    format_count,
    format_dollars,
    format_number_of,
    format_usd,
)
from stepstream.schemas.money import NANOS_PER_USD


@pytest.mark.parametrize(
    ("nanos", "text"),
    [
        (None, "?"),
        (0, "$0"),
        (1, "$0.000000001"),
        (400, "$0.0000004"),
        (3_000, "$0.000003"),
        (12_345, "$0.0000123"),
        (1_000_000, "$0.001"),
        (12_300_000, "$0.0123"),
        (100_000_000, "$0.10"),
        (99_999_600, "$0.10"),
        (2_650_000, "$0.00265"),
        (999_900_000, "$1.00"),
        (-310_000_000, "-$0.31"),
        (310_000_000, "$0.31"),
        (1_840_000_000, "$1.84"),
        (1_234_500_000_000, "$1,234.50"),
    ],
)
def test_money_is_never_rounded_to_nothing_and_unknown_is_not_zero(
    nanos: int | None, text: str
) -> None:
    """A cost is never rounded to nothing, and a cost that is not known is never shown as $0."""
    assert format_usd(nanos) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1_000, "1.0k"),
        (1_234, "1.2k"),
        (9_960, "10k"),
        (999_600, "1.0M"),
        (5_600_000_000, "5.6G"),
    ],
)
def test_counts_are_short(count: int, text: str) -> None:
    """A count fits its column."""
    assert format_count(count) == text


@given(st.integers(1, 10**19))
def test_money_is_exact_to_three_digits(nanos: int) -> None:
    """What is read back from the text is within a cent or half a percent of the amount."""
    text = format_usd(nanos)
    read = float(text.removeprefix("$").replace(",", "")) * NANOS_PER_USD
    assert math.isclose(read, nanos, rel_tol=0.005, abs_tol=0 if nanos < 10**9 else 10**7)
    assert "e" not in text


@pytest.mark.parametrize(
    ("usd", "text"),
    [(4e-07, "$0.0000004"), (0.9999, "$1.00"), (1234.5, "$1,234.50"), (math.inf, "?"), (None, "?")],
)
def test_dollars_kept_as_floats_read_like_nanos(usd: float | None, text: str) -> None:
    """Alerts carry dollars as floats: they read as the same amount does in nano-dollars."""
    assert format_dollars(usd) == text


def test_a_count_stands_with_its_noun() -> None:
    """One is singular, nothing and many are plural."""
    counts = [format_number_of(count, "record") for count in (0, 1, 2_000)]
    assert counts == ["0 records", "1 record", "2,000 records"]
