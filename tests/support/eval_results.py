"""Results of made-up agents for tests of the gate."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Final

from stepstream.evals.gate.trials import Header, Results, Trial, results_of

# Pass rates of fifty cases, from never to always.
MIXED: Final = [place % 5 / 4 for place in range(50)]


def made(
    name: str,
    rates: Sequence[float],
    trials: int = 8,
    *,
    seed: int = 1,
    cost: Callable[[int], float | None] = lambda _place: None,
    header: Header | None = None,
) -> Results:
    """Results of cases with these pass rates; costs vary by a tenth."""
    source = random.Random(seed)
    found = []
    for place, rate in enumerate(rates):
        for number in range(trials):
            dollars = cost(place)
            spread = 1 + 0.2 * (source.random() - 0.5)
            found.append(
                Trial(
                    f"case-{place}",
                    number,
                    source.random() < rate,
                    cost_usd=None if dollars is None else dollars * spread,
                )
            )
    return results_of(name, found, header)
