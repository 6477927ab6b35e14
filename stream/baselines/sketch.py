"""Counts in logarithmic buckets.

Quantiles of skewed amounts in bounded memory, independent of the order of additions.

Costs and durations spread over decades, so buckets grow by a constant factor (as in DDSketch,
Masson et al. 2019): a quantile has a relative error of at most ``ACCURACY``. Counts are integers,
so adding, removing and merging are exact and commute; a replay or a restart gives the same numbers.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Sequence
from typing import Final

ACCURACY: Final = 0.02
"""The relative error of a quantile. A sketch over three decades has 173 counts then."""

MOST: Final = 10**15
"""Larger amounts count as this: a million dollars in nano-dollars, thirty years in microseconds."""

_GAMMA: Final = (1 + ACCURACY) / (1 - ACCURACY)
_LN_GAMMA: Final = math.log(_GAMMA)
ZERO: Final = -1
"""The bucket of the amount 0."""


def bucket_of(amount: int) -> int:
    """The bucket of an amount; ``ZERO`` for none."""
    # 1e-9: the logarithm of a bucket's exact limit may come out a little above it.
    return math.ceil(math.log(min(amount, MOST)) / _LN_GAMMA - 1e-9) if amount > 0 else ZERO


def amount_of(bucket: int) -> float:
    """The amount in the middle of a bucket: within ``ACCURACY`` of every amount in it."""
    return 0.0 if bucket == ZERO else 2 * _GAMMA**bucket / (_GAMMA + 1)


class Sketch:
    """How many amounts fell into each bucket.

    At most ``bucket_of(MOST) + 2`` counts, whatever is added.
    """

    __slots__ = ("counts", "low")

    def __init__(self, low: int = 0, counts: Iterable[int] = ()) -> None:
        self.low = low
        self.counts = array("q", counts)

    def add(self, bucket: int, times: int = 1) -> None:
        """Count one bucket more, or less with ``times=-1``."""
        if not self.counts:
            self.low = bucket
        if bucket < self.low:
            self.counts = array("q", bytes(8 * (self.low - bucket))) + self.counts
            self.low = bucket
        missing = bucket - self.low - len(self.counts) + 1
        if missing > 0:
            self.counts.extend(array("q", bytes(8 * missing)))
        self.counts[bucket - self.low] += times

    @property
    def total(self) -> int:
        """How many amounts it counts."""
        return sum(self.counts)


def quantiles(parts: Sequence[tuple[Sketch, float]], shares: Sequence[float]) -> list[float]:
    """The quantiles of weighted sketches, for each of the ascending ``shares``.

    A quantile is the smallest amount that at least this share does not exceed: always one that
    occurred, not a value between two. Zeros if nothing was counted.
    """
    filled = [(sketch, weight) for sketch, weight in parts if sketch.counts and weight > 0]
    if not filled:
        return [0.0] * len(shares)
    low = min(sketch.low for sketch, _ in filled)
    summed = [0.0] * (max(sketch.low + len(sketch.counts) for sketch, _ in filled) - low)
    for sketch, weight in filled:
        for place, count in enumerate(sketch.counts, sketch.low - low):
            if count:
                summed[place] += weight * count
    return _walk(summed, low, shares)


def _walk(summed: list[float], low: int, shares: Sequence[float]) -> list[float]:
    total = math.fsum(summed)
    if total <= 0:
        return [0.0] * len(shares)
    last = max(place for place, mass in enumerate(summed) if mass > 0)
    found: list[float] = []
    so_far, place = summed[0], 0
    for share in shares:
        # Weights are floating-point numbers: a share that is reached exactly must not fall short by
        # rounding.
        while so_far < share * total * (1 - 1e-12) and place < last:
            place += 1
            so_far += summed[place]
        found.append(amount_of(place + low))
    return found
