"""Money: integer nano-dollars in memory, decimal strings on the wire.

Sums of integers do not depend on their order, so a total is exact. A cost is rounded once, half to
even, where it enters (``nanos_from_usd``).
"""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation

NANOS_PER_USD = 1_000_000_000
MAX_COST_USD = 1_000_000
"""A higher cost of one step is taken for a mistake (cents for dollars): it counts as unknown."""
MAX_COST_NANOS = MAX_COST_USD * NANOS_PER_USD

MAX_AMOUNT_USD = 9_000_000_000
"""Maximum of sums and limits: what 64 bits have room for in nano-dollars."""
_NANO = Decimal("1e-9")
_NANOS, _ZERO = Decimal(NANOS_PER_USD), Decimal(0)


def amount_nanos(usd: Decimal | str | float | int) -> int:
    """Nano-dollars of a sum or a limit; see ``nanos_from_usd``."""
    return nanos_from_usd(usd, MAX_AMOUNT_USD)


def nanos_from_usd(usd: Decimal | str | float | int, most_usd: int = MAX_COST_USD) -> int:
    """Nano-dollars of a step's cost in dollars, rounded half to even.

    Raises ``ValueError`` for anything that is not a number from 0 to ``most_usd``.
    """
    try:
        amount = usd if isinstance(usd, Decimal) else Decimal(str(usd))
    except InvalidOperation:
        raise ValueError(f"not an amount of dollars: {usd!r:.80}") from None
    if not amount.is_finite() or not _ZERO <= amount <= most_usd:
        raise ValueError(f"an amount of dollars lies between 0 and {most_usd:,}, not {usd!s:.40}")
    scaled = amount * _NANOS
    nanos = int(scaled)
    # Nearly always true, and faster than quantize. The product has 28 digits: if it was rounded,
    # then by far less than a nano-dollar.
    if scaled == nanos:
        return nanos
    return int(amount.quantize(_NANO, rounding=ROUND_HALF_EVEN) * _NANOS)


def usd_from_nanos(nanos: int) -> str:
    """The decimal string of an amount without trailing zeros: ``1500000000`` is ``"1.5"``."""
    sign = "-" if nanos < 0 else ""
    whole, rest = divmod(abs(nanos), NANOS_PER_USD)
    if not rest:
        return f"{sign}{whole}"
    return f"{sign}{whole}.{rest:09d}".rstrip("0")


def written_nanos(usd: str) -> int:
    """The amount in a decimal string as a worker writes it, with at most nine decimals.

    Unlike ``amount_nanos`` it accepts no exponent and rounds nothing.

    Raises:
        ValueError: the text is no such amount.
    """
    whole, _, rest = usd.partition(".")
    if (
        len(usd) > 24
        or not usd.isascii()
        or not whole.isdigit()
        or len(rest) > 9
        or (rest and not rest.isdigit())
    ):
        raise ValueError(f"cost_usd is not an amount: {usd[:40]!r}")
    return int(whole) * NANOS_PER_USD + (int(rest.ljust(9, "0")) if rest else 0)
