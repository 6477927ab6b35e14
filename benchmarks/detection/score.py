"""Counts with intervals: what share was found, how sure that is, and the same as texts for
tables."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Final

Interval = tuple[float, float]

Z95: Final = 1.959964
RESAMPLES: Final = 2_000


def wilson(hits: int, of: int) -> Interval:
    """The 95 % interval of a share by Wilson's score; (0, 1) where nothing was counted."""
    if not of:
        return 0.0, 1.0
    share, square = hits / of, Z95 * Z95
    middle = (share + square / (2 * of)) / (1 + square / of)
    half = Z95 / (1 + square / of) * math.sqrt(share * (1 - share) / of + square / (4 * of * of))
    return max(0.0, middle - half), min(1.0, middle + half)


def bootstrap(
    values: Sequence[float],
    seed: int = 1,
    statistic: Callable[[Sequence[float]], float] = fmean,
    resamples: int = RESAMPLES,
) -> Interval:
    """The 95 % interval of a statistic of (not empty) values, by resampling them; the same for
    the same seed."""
    rng = random.Random(seed)
    drawn = sorted(statistic(rng.choices(values, k=len(values))) for _ in range(resamples))
    return drawn[int(0.025 * resamples)], drawn[min(resamples - 1, int(0.975 * resamples))]


@dataclass(frozen=True, slots=True)
class Confusion:
    """How often something was there and found, there and missed, found and not there, neither."""

    found: int = 0
    missed: int = 0
    false: int = 0
    quiet: int = 0

    def plus(self, *, truth: bool, found: bool) -> Confusion:
        """One more case."""
        if truth:
            return Confusion(self.found + found, self.missed + (not found), self.false, self.quiet)
        return Confusion(self.found, self.missed, self.false + found, self.quiet + (not found))

    def joined(self, other: Confusion) -> Confusion:
        """The cases of both."""
        return Confusion(
            self.found + other.found,
            self.missed + other.missed,
            self.false + other.false,
            self.quiet + other.quiet,
        )

    @property
    def precision(self) -> float | None:
        """The share of reported cases that are true; None where none was reported."""
        return _share(self.found, self.found + self.false)

    @property
    def recall(self) -> float | None:
        """The share of true cases that were reported; None where none is true."""
        return _share(self.found, self.found + self.missed)

    @property
    def f1(self) -> float | None:
        """The harmonic mean of both."""
        return _share(2 * self.found, 2 * self.found + self.false + self.missed)

    @property
    def false_per_100(self) -> float | None:
        """False alarms per 100 cases that are not true."""
        share = _share(self.false, self.false + self.quiet)
        return None if share is None else 100 * share

    def row(self) -> tuple[str, str, str, str]:
        """Recall, precision, F1 and false alarms per 100 as texts with their intervals."""
        alarms = self.false + self.quiet
        f1 = "-" if self.f1 is None else f"{self.f1:.3f}"
        per_100 = "-" if not alarms else per_hundred(self.false, alarms)
        return (
            share_text(self.found, self.found + self.missed),
            share_text(self.found, self.found + self.false),
            f1,
            per_100,
        )


# The columns of `Confusion.row`.
ROW: Final = ("recall", "precision", "F1", "false alarms per 100")


def share_text(hits: int, of: int) -> str:
    """A share with its counts and its interval: ``0.97 (31/32, 0.84-0.99)``."""
    if not of:
        return "-"
    low, high = wilson(hits, of)
    return f"{hits / of:.3f} ({hits}/{of}, {low:.2f}-{high:.2f})"


def per_hundred(hits: int, of: int) -> str:
    """The same as a number per 100: ``2.1 (1/48, 0.4-10.9)``."""
    low, high = wilson(hits, of)
    return f"{100 * hits / of:.1f} ({hits}/{of}, {100 * low:.1f}-{100 * high:.1f})"


def mean_text(values: Sequence[float], seed: int = 1) -> str:
    """A mean with its interval: ``0.49 (0.44-0.55)``."""
    if not values:
        return "-"
    low, high = bootstrap(values, seed)
    return f"{fmean(values):.2f} ({low:.2f}-{high:.2f})"


def _share(part: int, of: int) -> float | None:
    return part / of if of else None
