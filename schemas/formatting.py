"""Amounts for people: money, durations, counts. The only place that decides their form."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Final

from stepstream.schemas.money import NANOS_PER_USD, usd_from_nanos

SIGNIFICANT_DIGITS: Final = 3
MAX_DECIMALS: Final = 9
UNKNOWN: Final = "?"


def format_usd(nanos: int | None) -> str:
    """Nano-dollars as dollars: ``$1,234.50``, ``$0.31``, ``$0.00265``, ``$0.0000004``, ``$0``.

    From one dollar up two decimals, below it three significant digits, never fewer than two
    decimals and never an exponent. No amount but 0 reads as zero. None (unknown) is ``?``.
    """
    if nanos is None:
        return UNKNOWN
    if nanos == 0:
        return "$0"
    sign, amount = "-" if nanos < 0 else "", Decimal(usd_from_nanos(abs(nanos)))
    if amount >= 1:
        return f"{sign}${amount:,.2f}"
    # adjusted() is the exponent of the first digit: -1 for 0.1, -7 for 0.0000004.
    decimals = min(MAX_DECIMALS, SIGNIFICANT_DIGITS - 1 - amount.adjusted())
    whole, _, digits = f"{amount:.{decimals}f}".partition(".")
    return f"{sign}${whole}.{digits.rstrip('0'):0<2}"


def format_dollars(usd: float | Decimal | None) -> str:
    """An amount that is kept as a number of dollars, as ``format_usd`` writes it."""
    amount = math.nan if usd is None else float(usd)
    if not math.isfinite(amount):
        return UNKNOWN
    return format_usd(round(amount * NANOS_PER_USD))


def format_duration(duration_us: int | float) -> str:
    """Microseconds for people: ``1.25 s``, ``380 ms``, ``2 m 5 s``, ``3 h 20 m``."""
    us = max(0, round(duration_us))
    # The bounds are where rounding would reach the next unit: 999.5 ms is 1 s, 59.995 s is 1 m.
    if us < 1_000:
        return f"{us} us"
    if us < 999_500:
        return f"{us / 1_000:.0f} ms"
    if us < 59_995_000:
        return f"{us / 1_000_000:.2f}".rstrip("0").rstrip(".") + " s"
    minutes, seconds = divmod(round(us / 1_000_000), 60)
    if minutes < 60:
        return f"{minutes} m {seconds} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} m" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def format_count(count: int) -> str:
    """A count in at most five characters: ``980``, ``1.2k``, ``34k``, ``5.6M``."""
    for divisor, unit in ((1, ""), (10**3, "k"), (10**6, "M"), (10**9, "G")):
        value = count / divisor
        if value < 999.5 or unit == "G":
            break
    return f"{value:.1f}{unit}" if unit and value < 9.95 else f"{value:.0f}{unit}"


def format_number_of(count: int, noun: str) -> str:
    """A count and its noun: ``1 record``, ``2,000 records``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
