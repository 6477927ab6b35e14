"""Money is an integer number of nano-dollars inside and a decimal string on the wire.

Sums of integers do not depend on their order, so a total is exact however often it is recomputed. A cost is rounded once,
half to even, where it enters (``nanos_from_usd``), and never again.
"""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation

NANOS_PER_USD = 1_000_000_000
MAX_COST_USD = 1_000_000
"""A single step dearer than this is taken for a mistake (cents for dollars, a garbled number), given or priced: its cost
counts as unknown."""
MAX_COST_NANOS = MAX_COST_USD * NANOS_PER_USD

_NANO = Decimal("1e-9")
_NANOS, _ZERO, _MAX_COST = Decimal(NANOS_PER_USD), Decimal(0), Decimal(MAX_COST_USD)


def nanos_from_usd(usd: Decimal | str | float | int) -> int:
    """Nano-dollars of a cost in dollars, rounded half to even.

    Raises ``ValueError`` for what is no cost: not a number, not finite, negative, above ``MAX_COST_USD``.
    """
    try:
        amount = usd if isinstance(usd, Decimal) else Decimal(str(usd))
    except InvalidOperation:
        raise ValueError(f"not an amount of dollars: {usd!r:.80}") from None
    if not amount.is_finite() or not _ZERO <= amount <= _MAX_COST:
        raise ValueError(f"an amount of dollars lies between 0 and {MAX_COST_USD:,}, not {usd!s:.40}")
    scaled = amount * _NANOS
    nanos = int(scaled)
    if scaled == nanos:  # nearly always, and quicker; where the product was rounded, it was rounded by next to nothing
        return nanos
    return int(amount.quantize(_NANO, rounding=ROUND_HALF_EVEN) * _NANOS)


def usd_from_nanos(nanos: int) -> str:
    """The decimal string of an amount, without trailing zeros: ``1500000000`` is ``"1.5"``."""
    sign = "-" if nanos < 0 else ""
    whole, rest = divmod(abs(nanos), NANOS_PER_USD)
    if not rest:
        return f"{sign}{whole}"
    return f"{sign}{whole}.{rest:09d}".rstrip("0")
