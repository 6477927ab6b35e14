"""A new version of an agent against the one before it, evaluated as runs close.

An ordinary test that is repeated after every run finds something sooner or later. This one may be
evaluated at any time: the mixture sequential probability ratio test (Robbins 1970; Johari, Pekelis
and Walsh, "Always Valid Inference: Continuous Monitoring of A/B Tests", 2015, equation 8). With the
difference ``d`` of two means, its variance ``V`` and a normal prior of variance ``t`` for true
differences, the ratio is ``sqrt(V / (V + t)) exp(t d^2 / (2 V (V + t)))``; that it ever exceeds 1/a
has a probability of at most a when nothing is different.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final, Literal

from pydantic import Field

from stepstream.schemas.formatting import format_dollars
from stepstream.schemas.rule_base import Positive, WindowRuleBase
from stepstream.schemas.rules import detector_for
from stepstream.schemas.times import WEEK_US
from stepstream.stream.usage.detectors.base import Group, WindowDetectorBase
from stepstream.stream.usage.windows.findings import WindowObservation
from stepstream.stream.usage.windows.version_book import VersionRuns


class VersionWorse(WindowRuleBase):
    """A new version of an agent fails more often, or costs more per run, than the one before it."""

    on_by_default = True
    fires_when = "a new version fails more often, or costs more per run, than the version before"
    usual_severity = "error; warning"

    rule: Literal["version_worse"]
    min_runs: Positive = Field(30, description="runs that each version needs")


ALPHA: Final = 0.005
"""Of each of two comparisons: one new version in a hundred is called worse that is not."""

PRIOR_FAILURES: Final = 0.1**2
PRIOR_LOG_COST: Final = 0.5**2
"""Differences worth finding: ten points in the share of failures, half as much again in cost."""

LEAST_FAILURES: Final = 0.02
LEAST_LOG_COST: Final = math.log(1.1)
"""Smaller differences may be certain and still not worth a message."""

NEW_FOR_US: Final = WEEK_US


def mixture_ratio(difference: float, variance: float, prior: float) -> float:
    """The mixture likelihood ratio of a difference of means; see the module's docstring."""
    if difference <= 0 or variance <= 0:
        return 0.0
    exponent = prior * difference * difference / (2 * variance * (variance + prior))
    # exp(710) overflows a double; the ratio is compared with 200.
    return math.sqrt(variance / (variance + prior)) * math.exp(min(500.0, exponent))


@detector_for(VersionWorse)
class VersionWorseDetector(WindowDetectorBase[VersionWorse]):
    """The newest version of an agent fails more often or costs more than the one before."""

    def evaluate(self, group: Group, now_us: int) -> Iterator[WindowObservation]:
        """Compare the two newest versions, while the newer one is new."""
        pair = self.versions.newest(group.project, group.environment, group.agent)
        if len(pair) < 2 or now_us - pair[0][1].first_us > NEW_FOR_US:
            return
        (name, new), (old_name, old) = pair
        if min(new.runs, old.runs) >= self.rule.min_runs:
            yield from self._failures(name, new, old_name, old)
        if min(new.priced, old.priced) >= self.rule.min_runs:
            yield from self._costs(name, new, old_name, old)

    def _failures(
        self, name: str, new: VersionRuns, old_name: str, old: VersionRuns
    ) -> Iterator[WindowObservation]:
        rate, before = new.failed / new.runs, old.failed / old.runs
        # Laplace's rule of succession: the variance is never 0, also if no run or every run failed.
        pooled = (new.failed + old.failed + 1) / (new.runs + old.runs + 2)
        ratio = mixture_ratio(
            rate - before, pooled * (1 - pooled) * (1 / new.runs + 1 / old.runs), PRIOR_FAILURES
        )
        if ratio < 1 / ALPHA or rate - before < LEAST_FAILURES:
            return
        yield WindowObservation(
            message=f"version {name} fails in {100 * rate:.1f} % of {new.runs:.0f} runs; "
            f"{old_name} did in {100 * before:.1f} % of {old.runs:.0f}",
            severity=self.rule.severity or "error",
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
    ) -> Iterator[WindowObservation]:
        (mean, spread), (before, spread_before) = new.log_cost, old.log_cost
        ratio = mixture_ratio(
            mean - before, spread / new.priced + spread_before / old.priced, PRIOR_LOG_COST
        )
        if ratio < 1 / ALPHA or mean - before < LEAST_LOG_COST:
            return
        cost, usual = math.exp(mean) / 1e9, math.exp(before) / 1e9
        yield WindowObservation(
            message=f"a typical run of version {name} costs {cost / usual:.1f} times what one of "
            f"{old_name} did: "
            f"{format_dollars(cost)} instead of {format_dollars(usual)}, {new.priced:.0f} runs "
            f"against {old.priced:.0f}",
            severity=self.rule.severity or "warning",
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
