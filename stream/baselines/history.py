"""What was learnt about the runs of one agent and task: a sketch of each amount for each day."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from stepstream.schemas.fleet import FleetBaselineStruct, LearntAmountsStruct, LearntDayStruct
from stepstream.stream.baselines.days import KEPT_DAYS, day_weights
from stepstream.stream.baselines.sketch import Sketch, quantiles
from stepstream.stream.run.baseline import AMOUNTS, SHARES, Owner

__all__ = ["AMOUNTS", "MIN_RUNS", "SHARES", "Buckets", "Day", "History", "Owner"]

MIN_RUNS: Final = 30
"""What a rule asks for by default. With 30 runs the upper fifth has six of them: fewer would be
chance."""

Buckets = tuple[int | None, ...]
"""The bucket of each of ``AMOUNTS``; None where the amount is not known."""


class Day:
    """The runs of one day."""

    __slots__ = ("runs", "sketches")

    def __init__(self) -> None:
        self.runs = 0
        self.sketches = tuple(Sketch() for _ in AMOUNTS)

    def add(self, buckets: Buckets, times: int = 1) -> None:
        """Count a run, or with ``times=-1`` take it out again."""
        self.runs += times
        for sketch, bucket in zip(self.sketches, buckets, strict=True):
            if bucket is not None:
                sketch.add(bucket, times)


class History:
    """The days of one owner: those that are settled, and the runs that may still change."""

    __slots__ = ("changed", "days", "last_day", "pending", "wide")

    def __init__(self) -> None:
        self.days: dict[int, Day] = {}
        self.pending: dict[int, Day] = {}
        self.changed: set[int] = set()
        """Days whose settled part has grown since it was last written."""
        self.last_day = 0

    def expire(self, today: int) -> list[int]:
        """Forget the days that no longer count; returns them."""
        old = [day for day in self.days if day <= today - KEPT_DAYS]
        for day in old:
            del self.days[day]
        self.changed.difference_update(old)
        return old

    @property
    def runs(self) -> int:
        """Runs that are known."""
        return sum(day.runs for day in self._all())

    def baseline(self, owner: Owner, as_of: int, today: int) -> FleetBaselineStruct:
        """What is normal as of now."""
        counts: dict[int, int] = {}
        for days in (self.days, self.pending):
            for number, day in days.items():
                counts[number] = counts.get(number, 0) + day.runs
        weights = day_weights(counts, today)
        weighted = [
            (day, weights[number])
            for days in (self.days, self.pending)
            for number, day in days.items()
            if number in weights
        ]
        values = {
            name: [
                round(value)
                for value in quantiles(
                    [(day.sketches[index], weight) for day, weight in weighted], SHARES
                )
            ]
            for index, name in enumerate(AMOUNTS)
        }
        return FleetBaselineStruct(
            project=owner.project,
            environment=owner.environment,
            agent=owner.agent,
            task=owner.task,
            as_of=as_of,
            runs=sum(counts[number] for number in weights),
            # The cost's sketch has a run only if every step of it had a price.
            priced_runs=sum(day.sketches[0].total for day, _ in weighted),
            days=len(weights),
            wanted_runs=MIN_RUNS,
            shares=list(SHARES),
            values={name: [float(value) for value in amounts] for name, amounts in values.items()},
        )

    def _all(self) -> Iterable[Day]:
        return (*self.days.values(), *self.pending.values())


def written_day(owner: Owner, number: int, day: Day, settled_until: int) -> LearntDayStruct:
    """A settled day as it is kept on the fleet topic."""
    return LearntDayStruct(
        project=owner.project,
        environment=owner.environment,
        agent=owner.agent,
        task=owner.task,
        day=number,
        settled_until=settled_until,
        runs=day.runs,
        amounts={
            name: LearntAmountsStruct(low=sketch.low, counts=sketch.counts.tolist())
            for name, sketch in zip(AMOUNTS, day.sketches, strict=True)
            if sketch.counts
        },
    )


def read_day(record: LearntDayStruct) -> Day:
    """The day that a record holds. Amounts that this learner does not know are left out."""
    day = Day()
    day.runs = record.runs
    day.sketches = tuple(
        Sketch(found.low, found.counts)
        if (found := record.amounts.get(name)) is not None
        else Sketch()
        for name in AMOUNTS
    )
    return day
