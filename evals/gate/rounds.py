"""The levels of tests that are repeated after several rounds of trials.

A test at 5 % after each of five rounds fails an unchanged agent in 14 % of its evaluations. The
level is therefore spent over the rounds: in proportion to the trials done (Lan and DeMets, 1983).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from stepstream.evals.gate.distributions import NORMAL, normal_tail

_POINTS: Final = 400
"""Intervals of Simpson's rule: the levels are then exact to five digits."""
_DEVIATIONS: Final = 8.0
_HALVINGS: Final = 60


@lru_cache(maxsize=64)
def levels(rounds: tuple[int, ...], alpha: float) -> tuple[float, ...]:
    """The one-sided level of the test after each of ``rounds``, which are numbers of trials.

    Together they reject a true hypothesis with probability ``alpha``.
    """
    last = rounds[-1]
    times = [done / last for done in rounds]
    found: list[float] = []
    density: list[tuple[float, float]] = []
    before = 0.0
    for time in times:
        to_spend = alpha * (time - before)
        boundary = _boundary(density, time, before, to_spend)
        found.append(normal_tail(boundary / math.sqrt(time)))
        density = _carried_on(density, time, before, boundary)
        before = time
    return tuple(found)


def within(rounds: tuple[int, ...], most: int) -> tuple[int, ...]:
    """The rounds of at most so many trials; the last one has exactly as many."""
    return (*(done for done in rounds if done < most), most)


def _boundary(
    density: Sequence[tuple[float, float]], time: float, before: float, to_spend: float
) -> float:
    """The value that the process exceeds at ``time``, for the first time, with this probability."""
    if not density:
        return NORMAL.inv_cdf(1 - to_spend) * math.sqrt(time)
    step = math.sqrt(time - before)
    low, high = 0.0, _DEVIATIONS * math.sqrt(time)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        crossing = sum(weight * normal_tail((middle - x) / step) for x, weight in density)
        low, high = (middle, high) if crossing > to_spend else (low, middle)
    return high


def _carried_on(
    density: Sequence[tuple[float, float]], time: float, before: float, boundary: float
) -> list[tuple[float, float]]:
    """The process at ``time`` where it has never crossed: values with their probabilities."""
    low = -_DEVIATIONS * math.sqrt(time)
    width = (boundary - low) / _POINTS
    step = math.sqrt(time - before)
    scale = 1 / (step * math.sqrt(2 * math.pi))
    found = []
    for place in range(_POINTS + 1):
        x = low + place * width
        simpson = width / 3 * (1 if place in {0, _POINTS} else 4 if place % 2 else 2)
        at_x = (
            sum(weight * math.exp(-0.5 * ((x - y) / step) ** 2) for y, weight in density)
            if density
            else math.exp(-0.5 * (x / step) ** 2)
        )
        found.append((x, simpson * scale * at_x))
    return found
