"""How far two sides agree on which runs are good: a confusion table, and Cohen's kappa."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Agreement:
    """Counts of pairs (label, outcome). Unknown outcomes are counted apart."""

    both_true: int = 0
    both_false: int = 0
    only_label: int = 0
    """The label is true and the outcome false."""
    only_outcome: int = 0
    """The label is false and the outcome true."""
    unknown: int = 0

    @property
    def known(self) -> int:
        return self.both_true + self.both_false + self.only_label + self.only_outcome

    @property
    def share(self) -> float | None:
        """The share of known outcomes that equal their label."""
        return (self.both_true + self.both_false) / self.known if self.known else None

    @property
    def kappa(self) -> float | None:
        """Cohen's kappa: 0 for agreement by chance, 1 for full agreement.

        J. Cohen, A coefficient of agreement for nominal scales, 1960. None where both sides give
        one answer only.
        """
        if not self.known:
            return None
        labels = (self.both_true + self.only_label) / self.known
        outcomes = (self.both_true + self.only_outcome) / self.known
        by_chance = labels * outcomes + (1 - labels) * (1 - outcomes)
        if by_chance >= 1:
            return None
        return ((self.share or 0.0) - by_chance) / (1 - by_chance)


def agreement(pairs: Iterable[tuple[bool, bool | None]]) -> Agreement:
    """The agreement of labels with outcomes."""
    counts = {(True, True): 0, (False, False): 0, (True, False): 0, (False, True): 0}
    unknown = 0
    for label, outcome in pairs:
        if outcome is None:
            unknown += 1
        else:
            counts[label, outcome] += 1
    return Agreement(
        counts[True, True],
        counts[False, False],
        counts[True, False],
        counts[False, True],
        unknown,
    )


def lines(found: Agreement, name: str) -> Iterator[str]:
    """The confusion table as text."""
    yield f"{'':14}{name} passes  {name} fails"
    width = len(name) + 8
    yield f"{'label true':14}{found.both_true:>{width}}{found.only_label:>{width}}"
    yield f"{'label false':14}{found.only_outcome:>{width}}{found.both_false:>{width}}"
    if found.unknown:
        yield f"unknown: {found.unknown}"
    if found.share is None:
        yield "no outcome is known"
        return
    kappa = "" if found.kappa is None else f", kappa {found.kappa:.2f}"
    yield f"agreement {found.share:.1%} of {found.known}{kappa}"
