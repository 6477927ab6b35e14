"""Learns baselines from closed runs.

Each run counts once, at its highest revision, also after a replay.

A closed run is pending until no late step can change it any more. Then it is settled: added to its
day on the fleet topic and forgotten. A restart reads the settled days and the usage records of
pending runs.
"""

from __future__ import annotations

from collections.abc import Iterable
from heapq import nsmallest
from typing import Final, NamedTuple

import msgspec

from stepstream.schemas.fleet import (
    BaselineValuesStruct,
    FleetBaselineStruct,
    LearntDayStruct,
    fleet_key,
)
from stepstream.schemas.money import written_nanos
from stepstream.schemas.times import MINUTE_US
from stepstream.schemas.trajectory import RunSummaryStruct
from stepstream.stream.baselines.days import KEPT_DAYS, day_of
from stepstream.stream.baselines.history import (
    MIN_RUNS,
    Buckets,
    Day,
    History,
    Owner,
    read_day,
    written_day,
)
from stepstream.stream.baselines.sketch import bucket_of
from stepstream.stream.core.counters import Counters

PUBLISH_EVERY_US: Final = 5_000_000
"""An owner's baseline is published at most this often."""

GROWN: Final = 0.02
RECOMPUTE_EVERY_US: Final = MINUTE_US
"""How often the quantiles of an owner whose runs have grown by no more than ``GROWN`` are computed:
about 1 ms each time."""

EARLIER_US: Final = 600_000_000
"""Age of the earlier version that is published with a baseline: a run open for longer has its
baseline in its state record."""

MOVED: Final = 0.05
"""A baseline is published again when a quantile has changed by more than this share, or its runs by
a tenth."""

MAX_OWNERS: Final = 2_000
"""Owners per partition, of at most 50 KB each. At each seal those that are idle longest are
forgotten above it; between two seals up to twice as many are kept, and runs of further owners
are not learnt from."""

MAX_PENDING: Final = 200_000
"""Pending runs per partition. Further runs are not learnt from; they are counted in a metric."""

WHOLE: Final = frozenset({"ok", "error"})
"""Statuses that are learnt from: a run that was stopped, cancelled or cut off used less than it
would have."""

FleetRecord = tuple[bytes, bytes | None]
"""Key and value; None deletes."""

_encode = msgspec.json.Encoder().encode


class Pending(NamedTuple):
    """A closed run that may still change."""

    revision: int
    settles_at: int
    day: int
    owners: tuple[Owner, ...]
    """The owners whose settled days do not contain it yet; empty when it is not to be learnt from.
    """
    buckets: Buckets


class Learner:
    """The baselines of the projects whose usage is on one partition.

    Pure: times are those of the log.
    """

    def __init__(self, counters: Counters | None = None) -> None:
        self.counters = counters or Counters()
        self.histories: dict[Owner, History] = {}
        self._pending: dict[str, Pending] = {}
        self._settled_at: dict[tuple[Owner, int], int] = {}
        self._settled_until = 0
        self._as_of = 0
        self._dirty: set[Owner] = set()
        self._published: dict[Owner, FleetBaselineStruct] = {}
        self._computed_at: dict[Owner, tuple[int, int]] = {}
        """When an owner's baseline was worked out last, and of how many runs."""

    # -- the log -----------------------------------------------------------------------------------

    def restore(
        self,
        days: Iterable[LearntDayStruct],
        published: Iterable[FleetBaselineStruct] = (),
        settled_until: int = 0,
    ) -> None:
        """Take over the settled days of the fleet topic and the baselines that were made of them.

        Everything that settles before ``settled_until`` is in the days; a day that was written
        later has its own, later ``settled_until``.
        """
        self._settled_until = settled_until
        for baseline in published:
            self._published[
                Owner(baseline.project, baseline.environment, baseline.agent, baseline.task)
            ] = baseline
        for record in days:
            owner = Owner(record.project, record.environment, record.agent, record.task)
            history = self._history(owner, record.day)
            history.days[record.day] = read_day(record)
            self._dirty.add(owner)
            self._settled_at[owner, record.day] = record.settled_until

    def closed(self, run: RunSummaryStruct, append_us: int) -> int | None:
        """A closed run, or a later revision of one, and when its record was appended.

        Returns when it settles: its record must be read again after a restart until ``settle`` has
        passed that time. None where nothing new is learnt from it.
        """
        known = self._pending.get(run.trace_id)
        if known is not None and known.revision >= run.revision:
            return None
        settles_at = settles_at_of(run) if known is None else known.settles_at
        if known is None and settles_at < self._settled_until:
            return None
        if known is None and len(self._pending) >= MAX_PENDING:
            self.counters.runs_not_learnt += 1
            return None
        if known is not None:
            self._count(known, -1)
        new = self._as_pending(run, settles_at)
        self._pending[run.trace_id] = new
        self._as_of = max(self._as_of, append_us)
        self._count(new, 1)
        return settles_at

    def _as_pending(self, run: RunSummaryStruct, settles_at: int) -> Pending:
        # A later revision keeps settles_at and may end later: no run counts for a day after it
        # settles.
        day = min(day_of(run.time), day_of(settles_at))
        owners: tuple[Owner, ...] = ()
        if run.status in WHOLE and day > day_of(settles_at) - KEPT_DAYS:
            wider = Owner(run.project, run.environment, run.agent, run.task).wider()
            owners = tuple(
                owner
                for owner in wider
                if settles_at >= self._settled_at.get((owner, day), 0) and self._has_room(owner)
            )
        return Pending(run.revision, settles_at, day, owners, buckets_of(run))

    def _count(self, run: Pending, times: int) -> None:
        for owner in run.owners:
            history = self._history(owner, run.day)
            day = history.pending.get(run.day)
            if day is None:
                day = history.pending[run.day] = Day()
            day.add(run.buckets, times)
            if not day.runs:
                del history.pending[run.day]
            self._dirty.add(owner)

    def _has_room(self, owner: Owner) -> bool:
        """Whether an owner is known or may still be taken in before the next ones are forgotten."""
        if owner in self.histories or len(self.histories) < 2 * MAX_OWNERS:
            return True
        self.counters.owners_not_learnt += 1
        return False

    def _history(self, owner: Owner, day: int) -> History:
        history = self.histories.get(owner)
        if history is None:
            history = self.histories[owner] = History()
        history.last_day = max(history.last_day, day)
        return history

    # -- what is settled ---------------------------------------------------------------------------

    def settle(self, until_us: int) -> list[FleetRecord]:
        """Nothing that settles before ``until_us`` changes any more: what is to be written down."""
        self._settled_until = max(self._settled_until, until_us)
        ready = [
            (trace_id, run) for trace_id, run in self._pending.items() if run.settles_at < until_us
        ]
        for trace_id, run in ready:
            del self._pending[trace_id]
            for owner in run.owners:
                self._settle_run(self.histories[owner], run)
        return [*self._changed_days(), *self._expired(day_of(until_us))]

    def _settle_run(self, history: History, run: Pending) -> None:
        pending = history.pending[run.day]
        pending.add(run.buckets, -1)
        if not pending.runs:
            del history.pending[run.day]
        history.days.setdefault(run.day, Day()).add(run.buckets)
        history.changed.add(run.day)

    def _changed_days(self) -> list[FleetRecord]:
        records: list[FleetRecord] = []
        for owner, history in self.histories.items():
            for day in sorted(history.changed):
                self._settled_at[owner, day] = self._settled_until
                record = written_day(owner, day, history.days[day], self._settled_until)
                records.append((_day_key(owner, day), _encode(record)))
            history.changed.clear()
        return records

    def _expired(self, today: int) -> list[FleetRecord]:
        records: list[FleetRecord] = []
        surplus = len(self.histories) - MAX_OWNERS
        idlest = set(nsmallest(surplus, self.histories, key=self._worth)) if surplus > 0 else set()
        for owner, history in list(self.histories.items()):
            # A pending run has yet to be settled into its days.
            is_surplus = owner in idlest and not history.pending
            for day in list(history.days) if is_surplus else history.expire(today):
                self._settled_at.pop((owner, day), None)
                records.append((_day_key(owner, day), None))
            self.counters.baselines_forgotten += is_surplus
            if is_surplus or not (history.days or history.pending):
                del self.histories[owner]
                self._dirty.discard(owner)
                self._published.pop(owner, None)
                self._computed_at.pop(owner, None)
                records.append((baseline_key(owner), None))
        return records

    def _worth(self, owner: Owner) -> tuple[int, int, Owner]:
        """The sort key by which owners are kept.

        Names used once, such as ids, are forgotten before names with many runs.
        """
        history = self.histories[owner]
        return (history.last_day, history.runs, owner)

    # -- what is published -------------------------------------------------------------------------

    def publish(self, now_us: int) -> list[FleetRecord]:
        """The records of the baselines that have changed enough.

        They are as of ``now_us``, or of the newest run summary if that is later.
        """
        # Never earlier than the close of a run that is in the baseline.
        as_of = max(now_us, self._as_of)
        due = [owner for owner in self._dirty if self._is_due(owner, as_of)]
        records: list[FleetRecord] = []
        for owner in sorted(due):
            self._dirty.discard(owner)
            made = self.histories[owner].baseline(owner, as_of, day_of(as_of))
            self._computed_at[owner] = (as_of, self.histories[owner].runs)
            before = self._published.get(owner)
            if before is None or has_moved(before, made):
                made.earlier = earlier_of(before, as_of)
                self._published[owner] = made
                records.append((baseline_key(owner), _encode(made)))
        return records

    def _is_due(self, owner: Owner, as_of: int) -> bool:
        # A few more runs hardly move a quantile of many: it is computed only once a minute then.
        computed_us, runs = self._computed_at.get(owner, (0, 0))
        if as_of - computed_us < PUBLISH_EVERY_US:
            return False
        return (
            abs(self.histories[owner].runs - runs) > GROWN * runs
            or as_of - computed_us >= RECOMPUTE_EVERY_US
        )


def settles_at_of(run: RunSummaryStruct) -> int:
    """When a closed run settles, by its first summary."""
    return max(run.time, run.first_append_time)


def buckets_of(run: RunSummaryStruct) -> Buckets:
    """The bucket of each of a run's amounts; None for the cost if a step could not be priced."""
    amounts = (
        None if run.unpriced_steps else written_nanos(run.cost_usd),
        run.duration_us,
        run.input_tokens + run.output_tokens,
        run.steps,
        run.llm_calls,
    )
    return tuple(None if amount is None else bucket_of(amount) for amount in amounts)


def earlier_of(before: FleetBaselineStruct | None, now_us: int) -> BaselineValuesStruct | None:
    """The earlier version that is published along with a new one, for runs that began before it."""
    if before is None or before.as_of > now_us - EARLIER_US:
        return None if before is None else before.earlier
    return BaselineValuesStruct(
        as_of=before.as_of, runs=before.runs, priced_runs=before.priced_runs, values=before.values
    )


def has_moved(before: FleetBaselineStruct, after: FleetBaselineStruct) -> bool:
    """Whether the difference is large enough to publish the baseline again."""
    if before.runs < MIN_RUNS or after.runs < MIN_RUNS:
        return before.runs != after.runs
    if abs(after.runs - before.runs) > 0.1 * before.runs:
        return True
    if before.shares != after.shares or before.values.keys() != after.values.keys():
        return True  # written by a worker of another version
    pairs = (
        pair
        for name, old in before.values.items()
        for pair in zip(old, after.values[name], strict=True)
    )
    return any(abs(new - old) > MOVED * old for old, new in pairs)


def baseline_key(owner: Owner) -> bytes:
    """The key of an owner's baseline on the fleet topic."""
    return fleet_key(owner.project, "baseline", owner.environment, owner.agent, owner.task)


def _day_key(owner: Owner, day: int) -> bytes:
    return fleet_key(owner.project, "learnt", owner.environment, owner.agent, owner.task, day)
