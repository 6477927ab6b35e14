"""How fast an objective's error budget is being spent.

The method and its numbers are those of "Alerting on SLOs", chapter 5 of Google's Site Reliability
Workbook (Beyer et al., 2018), its sixth way: multiwindow, multi-burn-rate alerts. The burn rate is
the share of bad runs over the share that the objective allows. An alert fires while both a long
window and a short one (a twelfth of it, so that it ends soon after the cause does) burn at ``share
x period / long window`` or faster: 2 % of a 30 days' budget within an hour is a rate of 14.4. An
agent that is younger than the long window must have used up as much of the budget in the time that
it is known for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Final, Literal, TypeVar

from pydantic import Field

from stepstream.schemas.alert import FindingSeverity
from stepstream.schemas.durations import DurationUs
from stepstream.schemas.formatting import format_duration
from stepstream.schemas.latency import slower_than
from stepstream.schemas.rule_base import Positive, WindowRuleBase
from stepstream.schemas.rules import detector_for
from stepstream.schemas.times import DAY_US, HOUR_US, MINUTE_US
from stepstream.stream.usage.detectors.base import Group, WindowDetectorBase
from stepstream.stream.usage.windows.findings import WindowObservation
from stepstream.stream.usage.windows.totals import FAILED, SUCCESS_FALSE, Totals

Share = Annotated[float, Field(gt=0, lt=1)]


class Slo(WindowRuleBase):
    """An objective for the share of good runs, and the window that its error budget is for."""

    objective: Share
    window: DurationUs = 30 * DAY_US
    min_runs: Positive = Field(20, description="a window with fewer runs is not evaluated")


class ErrorSlo(Slo):
    """Runs fail (error, or never ended) faster than the objective's error budget allows."""

    fires_when = "runs fail faster than the error budget of the objective allows"
    usual_severity = "critical, error or warning by burn rate"

    rule: Literal["error_slo"]


class LatencySlo(Slo):
    """Runs take longer than a limit more often than the objective allows."""

    fires_when = "runs exceed the limit faster than the error budget of the objective allows"
    usual_severity = "critical, error or warning by burn rate"

    rule: Literal["latency_slo"]
    limit: DurationUs


class SuccessSlo(Slo):
    """Runs fail their Criteria documents faster than the objective's error budget allows."""

    fires_when = (
        "runs fail their Criteria faster than the error budget of the objective allows "
        "([evaluation](evaluation.md#objectives-and-drops))"
    )
    usual_severity = "critical, error or warning by burn rate"

    rule: Literal["success_slo"]


@dataclass(frozen=True, slots=True)
class BurnWindow:
    """A pair of windows, and the share of the error budget that may be spent in the long one."""

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


_Objective = TypeVar("_Objective", bound=Slo)


class BurnRateDetector(WindowDetectorBase[_Objective]):
    """Bad runs against an objective; subclasses define which runs are bad."""

    def bad_runs(self, row: Totals) -> int:
        """The bad runs among those of some minutes."""
        raise NotImplementedError

    def counted_runs(self, row: Totals) -> int:
        """The runs that the objective is about."""
        return row.finished

    def description(self) -> str:
        """What a bad run did, for a sentence: ``failed``."""
        raise NotImplementedError

    def evaluate(self, group: Group, now_us: int) -> Iterator[WindowObservation]:
        """The windows in which the budget burns too fast; the most urgent one alone."""
        for window in BURN_WINDOWS:
            observed = self._evaluate_window(group, now_us, window)
            if observed is not None:
                yield observed
                return

    def _evaluate_window(
        self, group: Group, now_us: int, window: BurnWindow
    ) -> WindowObservation | None:
        rule = self.rule
        allowed = 1 - rule.objective
        # An objective may be so low that no share of bad runs burns so fast: then most runs being
        # bad is enough.
        limit = min(window.budget_share * rule.window / window.long_us, (1 + allowed) / 2 / allowed)
        recent = group.total(now_us - window.short_us, now_us)
        if not self.bad_runs(recent) or self._burn(recent) < limit:
            return None
        long = group.total(now_us - window.long_us, now_us)
        bad, runs, burn = self.bad_runs(long), self.counted_runs(long), self._burn(long)
        known_us = min(window.long_us, now_us - (group.first_hour or 0))
        if runs < rule.min_runs or bad < MIN_BAD_RUNS or burn * known_us < limit * window.long_us:
            return None
        lasts = format_duration(int(rule.window / burn))
        return WindowObservation(
            message=f"{bad} of {runs} runs {self.description()} in the last "
            f"{format_duration(window.long_us)}, "
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

    def _burn(self, row: Totals) -> float:
        runs = self.counted_runs(row)
        return self.bad_runs(row) / runs / (1 - self.rule.objective) if runs else 0.0


@detector_for(ErrorSlo)
class ErrorSloDetector(BurnRateDetector[ErrorSlo]):
    """Runs that failed."""

    def bad_runs(self, row: Totals) -> int:
        return row.sums[FAILED]

    def description(self) -> str:
        return "failed"


@detector_for(LatencySlo)
class LatencySloDetector(BurnRateDetector[LatencySlo]):
    """Runs that took longer than the limit, to within the width of a latency bucket."""

    def bad_runs(self, row: Totals) -> int:
        return min(slower_than(row.latency, self.rule.limit), row.finished) if row.latency else 0

    def description(self) -> str:
        return f"took longer than {format_duration(self.rule.limit)}"


@detector_for(SuccessSlo)
class SuccessSloDetector(BurnRateDetector[SuccessSlo]):
    """Runs that failed their Criteria, of those whose success is known."""

    def bad_runs(self, row: Totals) -> int:
        return row.sums[SUCCESS_FALSE]

    def counted_runs(self, row: Totals) -> int:
        # Unknown is not failure, and no success either: such runs are in no share.
        return row.evaluated

    def description(self) -> str:
        return "failed their Criteria"
