"""A new version of an agent against the one before it, judged as runs come in.

Looking again after every run makes an ordinary test lie: sooner or later it finds something. This one may be looked at any
time: the mixture sequential probability ratio test (Robbins 1970; Johari, Pekelis and Walsh, "Always Valid Inference:
Continuous Monitoring of A/B Tests", 2015, equation 8). With the difference ``d`` of two means, its variance ``V`` and a
normal prior of variance ``t`` for true differences, the ratio is ``sqrt(V / (V + t)) exp(t d^2 / (2 V (V + t)))``; that it
ever exceeds 1/a has a probability of at most a when nothing is different.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

import msgspec

from stepstream.schemas.formatting import format_dollars
from stepstream.schemas.rules_windows import VersionWorse
from stepstream.schemas.times import WEEK_US
from stepstream.schemas.trajectory import RunSummaryStruct
from stepstream.stream.usage.detectors.base import Group
from stepstream.stream.usage.windows.findings import Trouble
from stepstream.stream.usage.windows.records import nanos
from stepstream.stream.usage.windows.rows import FAILURES, STOPPED

ALPHA: Final = 0.005
"""Of each of two comparisons: one new version in a hundred is called worse that is not."""

PRIOR_FAILURES: Final = 0.1**2
PRIOR_LOG_COST: Final = 0.5**2
"""Differences worth finding: ten points in the share of failures, half as much again in cost."""

LEAST_FAILURES: Final = 0.02
LEAST_LOG_COST: Final = math.log(1.1)
"""Smaller differences may be certain and still not worth a message."""

MEMORY: Final = 2_000
"""A version is remembered by about so many of its newest runs: what was usual months ago says little."""

NEW_FOR_US: Final = WEEK_US
MAX_AGENTS: Final = 2_000
MAX_VERSIONS: Final = 4


class VersionRuns(msgspec.Struct, array_like=True):
    """What is known of one version's runs. Costs are compared by their logarithms: they are skewed."""

    first_us: int
    runs: float = 0.0
    failed: float = 0.0
    priced: float = 0.0
    log_sum: float = 0.0
    log_squares: float = 0.0

    def add(self, is_failed: bool, cost_nanos: int | None) -> None:
        """Count a run; ``None`` where its cost is not known."""
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
                self._agents.pop(next(iter(self._agents)))
            versions = self._agents[key] = {}
        known = versions.get(summary.agent_version)
        if known is None:
            known = versions[summary.agent_version] = VersionRuns(summary.first_append_time)
            if len(versions) > MAX_VERSIONS:
                del versions[min(versions, key=lambda name: versions[name].first_us)]
        cost = nanos(summary.cost_usd) if not summary.unpriced_steps else 0
        known.add(summary.status in FAILURES, cost or None)

    def newest(self, project: str, environment: str, agent: str) -> list[tuple[str, VersionRuns]]:
        """The newest version and the one before it; less where there are no two."""
        versions = self._agents.get((project, environment, agent), {})
        return sorted(versions.items(), key=lambda item: (-item[1].first_us, item[0]))[:2]

    def state(self) -> VersionState:
        """For a checkpoint."""
        return VersionState(list(self._agents.items()))

    def restore(self, state: VersionState) -> None:
        """From a checkpoint."""
        self._agents.update(state.agents)


def mixture_ratio(difference: float, variance: float, prior: float) -> float:
    """The mixture likelihood ratio of a difference of means; see the module's docstring."""
    if difference <= 0 or variance <= 0:
        return 0.0
    exponent = prior * difference * difference / (2 * variance * (variance + prior))
    return math.sqrt(variance / (variance + prior)) * math.exp(min(500.0, exponent))


class VersionWorseDetector:
    """The newest version of an agent fails more often or costs more than the one before."""

    def __init__(self, rule: VersionWorse, book: VersionBook) -> None:
        self._rule = rule
        self._book = book

    def judge(self, group: Group, now_us: int) -> Iterator[Trouble]:
        """Compare the two newest versions, while the newer one is new."""
        pair = self._book.newest(group.project, group.environment, group.agent)
        if len(pair) < 2 or now_us - pair[0][1].first_us > NEW_FOR_US:
            return
        (name, new), (old_name, old) = pair
        if min(new.runs, old.runs) >= self._rule.min_runs:
            yield from self._failures(name, new, old_name, old)
        if min(new.priced, old.priced) >= self._rule.min_runs:
            yield from self._costs(name, new, old_name, old)

    def _failures(
        self, name: str, new: VersionRuns, old_name: str, old: VersionRuns
    ) -> Iterator[Trouble]:
        rate, before = new.failed / new.runs, old.failed / old.runs
        pooled = (new.failed + old.failed + 1) / (new.runs + old.runs + 2)
        ratio = mixture_ratio(
            rate - before, pooled * (1 - pooled) * (1 / new.runs + 1 / old.runs), PRIOR_FAILURES
        )
        if ratio < 1 / ALPHA or rate - before < LEAST_FAILURES:
            return
        yield Trouble(
            message=f"version {name} fails in {100 * rate:.1f} % of {new.runs:.0f} runs; "
            f"{old_name} did in {100 * before:.1f} % of {old.runs:.0f}",
            severity=self._rule.severity or "error",
            level="failures",
            subject=name,
            agent_version=name,
            detail=f"odds against chance: {min(ratio, 1e9):,.0f} to 1",
            value=rate,
            threshold=before + LEAST_FAILURES,
            unit="ratio",
            baseline=before,
            baseline_runs=round(old.runs),
        )

    def _costs(
        self, name: str, new: VersionRuns, old_name: str, old: VersionRuns
    ) -> Iterator[Trouble]:
        (mean, spread), (before, spread_before) = new.log_cost, old.log_cost
        ratio = mixture_ratio(
            mean - before, spread / new.priced + spread_before / old.priced, PRIOR_LOG_COST
        )
        if ratio < 1 / ALPHA or mean - before < LEAST_LOG_COST:
            return
        cost, usual = math.exp(mean) / 1e9, math.exp(before) / 1e9
        yield Trouble(
            message=f"a typical run of version {name} costs {cost / usual:.1f} times what one of {old_name} did: "
            f"{format_dollars(cost)} instead of {format_dollars(usual)}, {new.priced:.0f} runs against {old.priced:.0f}",
            severity=self._rule.severity or "warning",
            level="cost",
            subject=f"{name} cost",
            agent_version=name,
            detail=f"odds against chance: {min(ratio, 1e9):,.0f} to 1",
            value=cost,
            threshold=usual * math.exp(LEAST_LOG_COST),
            unit="usd",
            baseline=usual,
            baseline_runs=round(old.priced),
        )
