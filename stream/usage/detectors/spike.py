"""An agent spends far more in an hour than it usually does."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Final, Literal

from pydantic import Field

from stepstream.schemas.formatting import format_dollars, format_usd
from stepstream.schemas.money import NANOS_PER_USD
from stepstream.schemas.rule_base import Dollars, WindowRuleBase
from stepstream.schemas.rules import detector_for
from stepstream.schemas.times import HOUR_US, MINUTE_US
from stepstream.stream.usage.detectors.base import Group, WindowDetectorBase
from stepstream.stream.usage.detectors.spike_model import SPREAD_US, Forecast, SpikeModel
from stepstream.stream.usage.windows.findings import WindowObservation
from stepstream.stream.usage.windows.totals import COST, STEPS, Totals
from stepstream.stream.usage.windows.version_book import VersionBook


class SpendSpike(WindowRuleBase):
    """An hour costs far more than this agent's hours usually do, day and week cycle considered."""

    on_by_default = True
    fires_when = "an hour costs several times more than usual for its hour and weekday"
    usual_severity = "error"

    rule: Literal["spend_spike"]
    factor: float = Field(
        3.0, ge=1.5, description="less than this many times the usual is never a spike"
    )
    min_usd: Dollars = Field(Decimal("0.1"), gt=0, description="nor is an hour that cost less")


SETTLED_US: Final = 15 * MINUTE_US
"""How much of an hour must have passed before its pace shows that a spike is over."""


@detector_for(SpendSpike)
class SpendSpikeDetector(WindowDetectorBase[SpendSpike]):
    """Evaluates the current hour.

    A spike is reported once the hour's usual total is far exceeded, not at its end.
    """

    def __init__(self, rule: SpendSpike, versions: VersionBook) -> None:
        super().__init__(rule, versions)
        self._model = SpikeModel(rule.factor)
        self._next_hour: int | None = None

    def evaluate(self, group: Group, now_us: int) -> Iterator[WindowObservation]:
        """The hour of the last minute and, early in an hour, the one before."""
        self._learn(group)
        start = (now_us - MINUTE_US) // HOUR_US * HOUR_US
        row = group.hour(start)
        forecast = self._above(start, row)
        if forecast is None:
            before = group.hour(start - HOUR_US)
            earlier = self._above(start - HOUR_US, before)
            if earlier is None or not _goes_on(row, now_us - start, earlier):
                return
            row, forecast = before, earlier
        spent = row.cost_nanos / NANOS_PER_USD
        times = spent / forecast.expected
        yield WindowObservation(
            message=f"{group.name} spent {format_usd(row.cost_nanos)} within the hour, "
            f"{times:.1f} times the usual {format_dollars(forecast.expected)}",
            severity=self.rule.severity
            or ("error" if times >= 2 * self.rule.factor else "warning"),
            value=spent,
            threshold=forecast.limit,
            unit="usd",
            baseline=forecast.expected,
            baseline_runs=forecast.windows,
            detail=f"learnt from {forecast.windows} hours",
        )

    def _learn(self, group: Group) -> None:
        """Take over the hours that were sealed since."""
        if self._next_hour is None:
            self._next_hour = group.first_hour
        if self._next_hour is None:
            return
        # After a restart weeks are learnt at once: the slow way is taken for the hours that give
        # the spread.
        old = group.sealed_until - SPREAD_US - 24 * HOUR_US
        for hour in group.sealed_hours(self._next_hour):
            row = group.hour(hour)
            learn = self._model.learn_old if hour < old else self._model.learn
            # Steps, not runs: cost counts in the minute a step ended in, a run in the minute its
            # root did.
            learn(hour, row.cost_nanos / NANOS_PER_USD, row.sums[STEPS])
            self._next_hour = hour + HOUR_US

    def _above(self, start: int, row: Totals) -> Forecast | None:
        """What was expected of an hour that exceeds it by far."""
        spent = row.sums[COST] / NANOS_PER_USD
        if spent < self.rule.min_usd:
            return None
        forecast = self._model.forecast(start, spent, row.sums[STEPS])
        return forecast if forecast is not None and spent > forecast.limit else None


def _goes_on(row: Totals, elapsed_us: int, forecast: Forecast) -> bool:
    """Whether the pace of an hour that has just begun is still that of a spike."""
    return (
        elapsed_us <= SETTLED_US
        or row.cost_nanos / NANOS_PER_USD * HOUR_US / elapsed_us > forecast.limit
    )
