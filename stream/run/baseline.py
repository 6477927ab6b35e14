"""The baseline that a run is compared with: what other runs of its owner use.

It is here, and not with the code that learns baselines, because it is part of a run and its state.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Final, NamedTuple

import msgspec

AMOUNTS: Final = ("cost_nanos", "duration_us", "tokens", "steps", "llm_calls")
"""The amounts that are learnt of each run, in this order."""

SHARES: Final = (0.05, 0.25, 0.5, 0.75, 0.8, 0.9, 0.95, 0.99, 1.0)
"""The published quantiles; the last is the largest amount seen."""

COST, DURATION, TOKENS, STEPS, LLM_CALLS = range(len(AMOUNTS))
MEDIAN: Final = SHARES.index(0.5)


class Owner(NamedTuple):
    """The runs of a task; without a task those of the agent, without an agent of the project."""

    project: str
    environment: str = ""
    agent: str = ""
    task: str = ""

    def wider(self) -> tuple[Owner, ...]:
        """The owner, then the ones to use where it has too few runs: the agent, the project."""
        agent, project = self._replace(task=""), self._replace(agent="", task="")
        return tuple(dict.fromkeys((self, agent, project)))


class Normal(msgspec.Struct, array_like=True, frozen=True):
    """What runs of an owner use. It is part of state records: new fields are added at the end, with
    defaults.
    """

    owner: Owner
    as_of: int
    runs: int
    priced_runs: int
    amounts: tuple[tuple[float, ...], ...]
    """For each of ``AMOUNTS`` the values at ``SHARES``; empty where it is not known."""

    def sample(self, amount: int) -> int:
        """The number of runs that an amount was learnt from."""
        # The cost of a run with unpriced steps is not known.
        return self.priced_runs if amount == COST else self.runs

    def at(self, amount: int, share: float) -> float:
        """The value that this share of runs does not exceed; ``share`` is one of ``SHARES``."""
        return self.amounts[amount][SHARES.index(share)]

    def median(self, amount: int) -> float:
        """The value that half of the runs do not exceed."""
        return self.amounts[amount][MEDIAN]

    def share_below(self, amount: int, value: float) -> float:
        """The largest of ``SHARES`` whose value is below ``value``; 0 if none is."""
        place = bisect_left(self.amounts[amount], value)
        return SHARES[place - 1] if place else 0.0

    @property
    def whose(self) -> str:
        """The owner in words: agent and task, agent, or project."""
        return "/".join(part for part in self.owner[2:] if part) or f"project {self.owner.project}"
