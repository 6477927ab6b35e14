"""Money: integers of nano-dollars inside, decimal strings outside, rounded once."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepstream.schemas.money import MAX_COST_USD, NANOS_PER_USD, nanos_from_usd, usd_from_nanos
from stepstream.schemas.step import decimal_text

amounts = st.decimals(0, MAX_COST_USD, allow_nan=False, places=15)


@given(amounts)
def test_costs_are_rounded_half_to_even(amount: Decimal) -> None:
    """A cost becomes the nearest nano-dollar, a tie the even one."""
    exact = Fraction(amount) * NANOS_PER_USD
    assert nanos_from_usd(amount) == round(exact)  # Python rounds fractions half to even


@pytest.mark.parametrize(
    ("usd", "nanos"),
    [
        ("0.0000000005", 0),
        ("0.0000000015", 2),
        ("0.0000000025", 2),
        ("0.00000000250000000000000001", 3),
        (0.1, 100_000_000),
        (1, 1_000_000_000),
        ("1e-9", 1),
        ("-0", 0),
        (MAX_COST_USD, MAX_COST_USD * NANOS_PER_USD),
    ],
)
def test_known_costs(usd: str | float, nanos: int) -> None:
    """Ties, floats, exponents and the largest cost."""
    assert nanos_from_usd(usd) == nanos


@given(st.integers(0, MAX_COST_USD * NANOS_PER_USD))
def test_amounts_survive_the_wire(nanos: int) -> None:
    """What is written as dollars is read back as the same nano-dollars, without exponent or
    trailing zeros.
    """
    text = usd_from_nanos(nanos)
    assert nanos_from_usd(text) == nanos
    assert "E" not in text
    assert "." not in text or text[-1] not in "0."


@given(st.lists(amounts, max_size=30), st.randoms())
def test_sums_do_not_depend_on_their_order(costs: list[Decimal], random: object) -> None:
    """A total is the sum of the rounded parts, in whatever order they come, and is written
    exactly.
    """
    nanos = [nanos_from_usd(cost) for cost in costs]
    expected = sum(
        (c.quantize(Decimal("1e-9"), rounding=ROUND_HALF_EVEN) for c in costs), Decimal(0)
    )
    random.shuffle(nanos)  # type: ignore[attr-defined]
    assert Decimal(usd_from_nanos(sum(nanos))) == expected


@pytest.mark.parametrize(
    ("nanos", "text"),
    [
        (0, "0"),
        (1, "0.000000001"),
        (1_500_000_000, "1.5"),
        (-2_000_000_000, "-2"),
        (-10, "-0.00000001"),
    ],
)
def test_dollars_are_written_plainly(nanos: int, text: str) -> None:
    """No exponent, no trailing zeros; differences may be negative."""
    assert usd_from_nanos(nanos) == text


@pytest.mark.parametrize(
    "usd",
    ["NaN", "sNaN", "Infinity", "-Infinity", "-0.01", "1000000.01", "", "1,5", "$1", float("nan")],
)
def test_what_is_no_cost_is_refused(usd: str | float) -> None:
    """Whatever cannot be a cost raises ValueError, and nothing else."""
    with pytest.raises(ValueError, match="amount of dollars"):
        nanos_from_usd(usd)


def test_absurd_exponents_are_not_written_out() -> None:
    """An amount with an exponent in the millions does not become a text of millions of digits."""
    assert decimal_text(Decimal("4E-7")) == "0.0000004"
    assert decimal_text(Decimal("1E+6")) == "1000000"
    assert len(decimal_text(Decimal("1E+999999"))) < 20
    assert decimal_text(Decimal("NaN")) == "NaN"
