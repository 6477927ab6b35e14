"""What is known of the runs of each agent's newest versions."""

from __future__ import annotations

import math
from typing import Final

import msgspec

from stepstream.schemas.money import written_nanos
from stepstream.schemas.trajectory import RunSummaryStruct
from stepstream.stream.usage.windows.totals import FAILURES, STOPPED

MEMORY: Final = 2_000
"""About how many of its newest runs a version is known by: older runs count ever less."""

MAX_AGENTS: Final = 2_000
MAX_VERSIONS: Final = 4


class VersionRuns(msgspec.Struct, array_like=True):
    """What is known of one version's runs.

    Costs are compared by their logarithms: they are skewed.
    """

    first_us: int
    runs: float = 0.0
    failed: float = 0.0
    priced: float = 0.0
    log_sum: float = 0.0
    log_squares: float = 0.0

    def add(self, is_failed: bool, cost_nanos: int | None) -> None:
        """Count a run; ``None`` where its cost is not known."""
        # Halving keeps the rates, and lets what a version did weeks ago fade out.
        if self.runs >= 2 * MEMORY:
            self.runs, self.failed, self.priced = self.runs / 2, self.failed / 2, self.priced / 2
            self.log_sum, self.log_squares = self.log_sum / 2, self.log_squares / 2
        self.runs += 1
        self.failed += is_failed
        if cost_nanos:
            amount = math.log(cost_nanos)
            self.priced += 1
            self.log_sum += amount
            self.log_squares += amount * amount

    @property
    def log_cost(self) -> tuple[float, float]:
        """Mean and variance of the logarithm of a run's cost."""
        mean = self.log_sum / self.priced
        return mean, max(1e-12, (self.log_squares - self.priced * mean * mean) / (self.priced - 1))


class VersionState(msgspec.Struct):
    """What a checkpoint keeps of them: project, environment and agent, and its versions."""

    agents: list[tuple[tuple[str, str, str], dict[str, VersionRuns]]] = []


class VersionBook:
    """The newest versions of each agent."""

    def __init__(self) -> None:
        self._agents: dict[tuple[str, str, str], dict[str, VersionRuns]] = {}

    def closed(self, summary: RunSummaryStruct) -> None:
        """Take a closed run into account."""
        if not summary.agent_version or summary.status in STOPPED:
            return
        key = (summary.project, summary.environment, summary.agent)
        versions = self._agents.get(key)
        if versions is None:
            if len(self._agents) >= MAX_AGENTS:
                # The one known for longest: an agent with new versions is added again at its next
                # run.
                self._agents.pop(next(iter(self._agents)))
            versions = self._agents[key] = {}
        known = versions.get(summary.agent_version)
        if known is None:
            known = versions[summary.agent_version] = VersionRuns(summary.first_append_time)
            if len(versions) > MAX_VERSIONS:
                del versions[min(versions, key=lambda name: versions[name].first_us)]
        cost = written_nanos(summary.cost_usd) if not summary.unpriced_steps else 0
        known.add(summary.status in FAILURES, cost or None)

    def newest(self, project: str, environment: str, agent: str) -> list[tuple[str, VersionRuns]]:
        """The newest version and the one before it; less where there are no two."""
        versions = self._agents.get((project, environment, agent), {})
        return sorted(versions.items(), key=lambda item: (-item[1].first_us, item[0]))[:2]

    def state(self) -> VersionState:
        """The state to write to a checkpoint."""
        return VersionState(list(self._agents.items()))

    def restore(self, state: VersionState) -> None:
        """Add the state of a checkpoint."""
        self._agents.update(state.agents)
