"""How fast an objective's error budget is being spent.

The method and its numbers are those of "Alerting on SLOs", chapter 5 of Google's Site Reliability Workbook (Beyer et al.,
2018), its sixth way: multiwindow, multi-burn-rate alerts. The burn rate is the share of bad runs over the share that the
objective allows. An alert fires while both a long window and a short one (a twelfth of it, so that it ends soon after the
trouble does) burn at ``share x period / long window`` or faster: 2 % of a 30 days' budget within an hour is a rate of 14.4.
An agent that is younger than the long window must have used up as much of the budget in the time that it is known for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from stepstream.schemas.alert import FindingSeverity
from stepstream.schemas.formatting import format_duration
from stepstream.schemas.latency import slower_than
from stepstream.schemas.rules_windows import ErrorSlo, LatencySlo, Slo
from stepstream.schemas.times import HOUR_US, MINUTE_US
from stepstream.stream.usage.detectors.base import Group
from stepstream.stream.usage.windows.findings import Trouble
from stepstream.stream.usage.windows.rows import FAILED, Row


@dataclass(frozen=True, slots=True)
class BurnWindow:
    """A pair of windows and the share of the period's error budget that may be spent in the long one."""

    long_us: int
    short_us: int
    budget_share: float
    severity: FindingSeverity


BURN_WINDOWS: Final = (
    BurnWindow(HOUR_US, 5 * MINUTE_US, 0.02, "critical"),
    BurnWindow(6 * HOUR_US, 30 * MINUTE_US, 0.05, "error"),
    BurnWindow(72 * HOUR_US, 6 * HOUR_US, 0.10, "warning"),
)

MIN_BAD_RUNS: Final = 3
"""One bad run among few is bad luck, whatever rate it makes."""


class BurnRateDetector:
    """Bad runs against an objective."""

    def __init__(self, rule: Slo, bad: Callable[[Row], int], what: str) -> None:
        self._rule = rule
        self._bad = bad
        self._what = what

    def judge(self, group: Group, now_us: int) -> Iterator[Trouble]:
        """The windows in which the budget burns too fast; the most urgent one alone."""
        for window in BURN_WINDOWS:
            trouble = self._look(group, now_us, window)
            if trouble is not None:
                yield trouble
                return

    def _look(self, group: Group, now_us: int, window: BurnWindow) -> Trouble | None:
        rule = self._rule
        allowed = 1 - rule.objective
        # An objective may be so low that no share of bad runs burns so fast: then most runs being bad is enough.
        limit = min(window.budget_share * rule.window / window.long_us, (1 + allowed) / 2 / allowed)
        recent = group.total(now_us - window.short_us, now_us)
        if not self._bad(recent) or self._burn(recent) < limit:
            return None
        long = group.total(now_us - window.long_us, now_us)
        bad, runs, burn = self._bad(long), long.finished, self._burn(long)
        known_us = min(window.long_us, now_us - (group.first_hour or 0))
        if runs < rule.min_runs or bad < MIN_BAD_RUNS or burn * known_us < limit * window.long_us:
            return None
        lasts = format_duration(int(rule.window / burn))
        return Trouble(
            message=f"{bad} of {runs} runs {self._what} in the last {format_duration(window.long_us)}, "
            f"{burn:.1f} times what the objective of {100 * rule.objective:g} % allows",
            detail=f"at this rate the error budget of {format_duration(rule.window)} lasts {lasts}",
            severity=rule.severity or window.severity,
            level=format_duration(window.long_us),
            value=bad / runs,
            threshold=limit * allowed,
            unit="ratio",
            baseline=allowed,
            baseline_runs=runs,
        )

    def _burn(self, row: Row) -> float:
        runs = row.finished
        return self._bad(row) / runs / (1 - self._rule.objective) if runs else 0.0


def error_burn(rule: ErrorSlo) -> BurnRateDetector:
    """Runs that failed."""
    return BurnRateDetector(rule, lambda row: row.sums[FAILED], "failed")


def latency_burn(rule: LatencySlo) -> BurnRateDetector:
    """Runs that took longer than the limit, to within the width of a latency bucket."""
    limit_us = rule.limit
    return BurnRateDetector(
        rule, lambda row: _slow(row, limit_us), f"took longer than {format_duration(limit_us)}"
    )


def _slow(row: Row, limit_us: int) -> int:
    return min(slower_than(row.latency, limit_us), row.finished) if row.latency else 0
