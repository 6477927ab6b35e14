"""The ranker: a conditional logit over the steps of a run, with weights for two forms of runs.

The probability that step i of a run is the decisive one is exp(w . x_i) / sum_j exp(w . x_j)
(McFadden 1974). Weights are fitted by ``benchmarks.attribution`` and published in ``weights``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from stepstream.evals.blame.weights import COORDINATED, PLAIN

FAILED_BONUS: Final = 2.0
"""For a step that failed and was not repeated with success: conversations of the fitting data have
no status. Chosen so that a failed step of otherwise equal form is seven times as likely."""

CHOSE_FAILED_BONUS: Final = 2.0
"""For a model step whose call failed: people who annotate failed runs (TRAIL) put the cause of a
failing call almost always at the model step that issued it."""

CRITERIA_BONUS: Final = 2.0
"""For a call that a failed check of the run's Criteria names, as for a failed step: both are facts,
not inferred. A step of another kind gets none, because a wrong answer shows at its last step."""


def scores(
    rows: Sequence[Sequence[float]], bonuses: Sequence[float], *, coordinated: bool
) -> list[float]:
    """The probability of each step to be the decisive one; they add up to 1."""
    weights = COORDINATED if coordinated else PLAIN
    raw = [
        sum(weight * value for weight, value in zip(weights, row, strict=True)) + bonus
        for row, bonus in zip(rows, bonuses, strict=True)
    ]
    highest = max(raw, default=0.0)
    powers = [math.exp(one - highest) for one in raw]
    whole = sum(powers)
    return [power / whole for power in powers]
