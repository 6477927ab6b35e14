"""Exact tests for suites of fewer than ten cases, where Student's t does not hold.

They are about these cases, not about the agent: nothing can pass by them.
"""

from __future__ import annotations

from collections.abc import Sequence

from stepstream.evals.gate.distributions import hypergeometric


def p_worse(baseline: Sequence[int], candidate: Sequence[int], trials: int) -> float:
    """The probability of so few successes of the candidate if both sides were the same.

    ``baseline`` and ``candidate`` are the successes of each case in ``trials`` trials.
    """
    if all(found in {0, trials} for found in (*baseline, *candidate)):
        # All trials of each case agree, as with temperature 0 or a cache: they count as one.
        return _sign_flips(baseline, candidate, trials)
    return _stratified(baseline, candidate, trials)


def _stratified(baseline: Sequence[int], candidate: Sequence[int], trials: int) -> float:
    """The trials of both sides are exchanged within each case; the laws of the cases are summed."""
    law = [1.0]
    for before, after in zip(baseline, candidate, strict=True):
        of_case = hypergeometric(trials, before + after)
        summed = [0.0] * (len(law) + trials)
        for left, p in enumerate(law):
            for right, q in enumerate(of_case):
                summed[left + right] += p * q
        law = summed
    return min(1.0, sum(law[: sum(candidate) + 1]))


def _sign_flips(baseline: Sequence[int], candidate: Sequence[int], trials: int) -> float:
    changes = [
        (after - before) // trials for before, after in zip(baseline, candidate, strict=True)
    ]
    changed, lost = sum(map(abs, changes)), sum(change < 0 for change in changes)
    # Binomial: each changed case would have been lost or won with equal probability.
    law = [1.0]
    for _ in range(changed):
        law = [a + b for a, b in zip([0.0, *law], [*law, 0.0], strict=True)]
    return sum(law[lost:]) / 2.0**changed
