"""Runs fail, or fail their Criteria, far more often than before, where no objective was set."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

from pydantic import Field

from stepstream.schemas.durations import DurationUs
from stepstream.schemas.formatting import format_duration
from stepstream.schemas.rule_base import Positive, WindowRuleBase
from stepstream.schemas.rules import detector_for
from stepstream.schemas.times import HOUR_US, MINUTE_US
from stepstream.stream.usage.detectors.base import Group, WindowDetectorBase
from stepstream.stream.usage.windows.findings import WindowObservation
from stepstream.stream.usage.windows.totals import FAILED, SUCCESS_FALSE, Totals


class SuccessDrop(WindowRuleBase):
    """Runs fail, or fail their Criteria, far more often than they used to."""

    on_by_default = True
    fires_when = "runs fail, or fail their Criteria, much more often than in the week before"
    usual_severity = "error"

    rule: Literal["success_drop"]
    window: DurationUs = 3_600_000_000
    min_runs: Positive = Field(100, description="earlier runs needed to know what is usual")


HISTORY_US: Final = 7 * 24 * HOUR_US
CHANCE: Final = 1e-6
"""Evaluated 1,440 times a day, it fires by chance about once in two years of one agent."""

LEAST_RISE: Final = 0.1
"""Ten points and twice what it was: less may be certain and is not worth a message."""

LEAST_FAILED: Final = 5


@dataclass(frozen=True, slots=True)
class FailureKind:
    """What counts as a failed run: its place in the sums, and of which runs it is a share."""

    failed: int
    counted: Callable[[Totals], int]
    description: str
    level: str


FAILURE_KINDS: Final = (
    FailureKind(FAILED, lambda row: row.finished, "failed", ""),
    FailureKind(SUCCESS_FALSE, lambda row: row.evaluated, "failed their Criteria", "criteria"),
)


@detector_for(SuccessDrop)
class SuccessDropDetector(WindowDetectorBase[SuccessDrop]):
    """The last hour's failures against those of the week before."""

    def evaluate(self, group: Group, now_us: int) -> Iterator[WindowObservation]:
        """Compare, once there is a past to compare with.

        One observation at most: an outage makes runs fail in both senses.
        """
        start = now_us - self.rule.window + self.rule.window % MINUTE_US
        first = start - start % HOUR_US
        recent = group.total(start, now_us)
        # Summed up only where it is needed: a week has 168 rows for each owner.
        past: Totals | None = None
        for kind in FAILURE_KINDS:
            if recent.sums[kind.failed] < LEAST_FAILED:
                continue
            past = past or group.total(first - HISTORY_US, first)
            observed = self._compare(kind, recent, past)
            if observed is not None:
                yield observed
                return

    def _compare(self, kind: FailureKind, recent: Totals, past: Totals) -> WindowObservation | None:
        failed, runs = recent.sums[kind.failed], kind.counted(recent)
        failed_before, runs_before = past.sums[kind.failed], kind.counted(past)
        if runs_before < self.rule.min_runs:
            return None
        rate, before = failed / runs, failed_before / runs_before
        # From a third on twice the rate could hardly be reached: halfway to 1 is asked for instead.
        least = max(before + LEAST_RISE, min(2 * before, (1 + before) / 2))
        if rate < least or chance_of(failed, runs, failed_before, runs_before) > CHANCE:
            return None
        return WindowObservation(
            message=f"{failed} of {runs} runs {kind.description} in the last "
            f"{format_duration(self.rule.window)}, "
            f"{100 * rate:.0f} %; usually {100 * before:.1f} % do",
            severity=self.rule.severity or "error",
            level=kind.level,
            value=rate,
            threshold=least,
            unit="ratio",
            baseline=before,
            baseline_runs=runs_before,
        )


def chance_of(failed: int, runs: int, failed_before: int, runs_before: int) -> float:
    """How likely so many failures, or more, are if nothing has changed.

    The tail of the beta-binomial distribution: the posterior predictive of the past's failures
    under Jeffreys' prior, so a short past is no certain one.
    """
    a, b = failed_before + 0.5, runs_before - failed_before + 0.5
    whole = math.lgamma(runs + 1) - _log_beta(a, b)
    tail = 0.0
    for k in range(failed, runs + 1):
        term = math.exp(
            whole - math.lgamma(k + 1) - math.lgamma(runs - k + 1) + _log_beta(k + a, runs - k + b)
        )
        tail += term
        # The terms fall geometrically from here on: the rest cannot change a comparison with
        # CHANCE.
        if term < 1e-18 and k > failed + 10:
            break
    return min(1.0, tail)


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
