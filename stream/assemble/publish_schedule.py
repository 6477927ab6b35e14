"""When a run is published: its trajectory at most once in a while as it grows, its usage less often, all of it as it closes.

Trajectories of growing runs may cost a worker only so much: with very many runs open, or as much to read as it can, they are
published in the order in which they became due, as a budget allows. Findings and ends never wait, beginnings only where
extremely many runs are open. The usage of very many growing runs is told less often.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from typing import Final

import msgspec

from stepstream.schemas.times import MINUTE_US
from stepstream.stream.assemble.checkpoint import RunCheckpoint
from stepstream.stream.assemble.run_records import run_summary, trajectory, usage_records
from stepstream.stream.core.counters import Counters
from stepstream.stream.core.outputs import Output
from stepstream.stream.run.limits import AssembleLimits

_encode = msgspec.json.Encoder().encode

RECORDS_EACH: Final = 128
"""One growing trajectory for so many records,"""
EACH_SECOND: Final = 300
"""and so many a second beside."""

TOLD_IN_TIME: Final = 5_000
"""With more runs open than this on a partition each run's usage is told as many times less often as there are more,"""
LONGEST_USAGE_US: Final = MINUTE_US
"""but once a minute."""

CROWD: Final = 50_000
"""With more runs open than this on a partition not even the first trajectory of one is published at once."""

Send = Callable[[RunCheckpoint, Output], None]
GiveUp = Callable[[RunCheckpoint, Exception], None]


class Budget:
    """How many growing trajectories may be published now."""

    __slots__ = ("_left", "_position", "_time_us")

    def __init__(self) -> None:
        self._left = float(EACH_SECOND)
        self._position = self._time_us = 0

    def refill(self, position: int, now_us: int) -> None:
        """The log was read up to here."""
        earned = (position - self._position) / RECORDS_EACH + (
            now_us - self._time_us
        ) * EACH_SECOND / 1_000_000
        self._left = min(self._left + earned, 2.0 * EACH_SECOND)
        self._position, self._time_us = position, now_us

    @property
    def is_spent(self) -> bool:
        """No more for now."""
        return self._left < 1

    def spend(self) -> None:
        """One was published."""
        self._left -= 1


def usage_every_us(interval_us: int, open_runs: int) -> int:
    """How often what a growing run used is told, with so many open."""
    return max(interval_us, min(LONGEST_USAGE_US, interval_us * open_runs // TOLD_IN_TIME))


class PublishSchedule:
    """Publishes runs that are due, and remembers those that will be."""

    def __init__(
        self, limits: AssembleLimits, counters: Counters, send: Send, give_up: GiveUp
    ) -> None:
        """``give_up`` is told of a run whose publishing raised in ``advance``."""
        self._give_up = give_up
        self._revision_interval_us = limits.revision_interval_us
        self._usage_interval_us = self._usage_every_us = limits.usage_interval_us
        self._counters = counters
        self._send = send
        self._waiting: list[tuple[int, int, RunCheckpoint]] = []
        self._usage_waiting: list[tuple[int, int, RunCheckpoint]] = []
        """By when each was told last, or began."""
        self._ties = count()
        self._budget = Budget()
        self._is_crowded = False

    def told_until_us(self, now_us: int) -> int:
        """Up to when the usage of every run is published."""
        return self._usage_waiting[0][0] if self._usage_waiting else now_us

    def advance(self, position: int, now_us: int, open_runs: int) -> None:
        """The log was read up to here: publish the runs that have waited for it."""
        self._budget.refill(position, now_us)
        while self._waiting and self._waiting[0][0] <= now_us and not self._budget.is_spent:
            due_us, _, tracked = heappop(self._waiting)
            if tracked.waits_us == due_us:
                tracked.waits_us = None
                self._attempt(tracked, now_us)
        self._usage_every_us = usage_every_us(self._usage_interval_us, open_runs)
        self._is_crowded = open_runs > CROWD
        told_by_us = now_us - self._usage_every_us
        while (
            self._usage_waiting and self._usage_waiting[0][0] <= told_by_us
        ):  # whatever the budget: windows count on it
            _, _, tracked = heappop(self._usage_waiting)
            if tracked.usage_waits:
                tracked.usage_waits = False
                self._attempt(tracked, now_us)

    def _attempt(self, tracked: RunCheckpoint, now_us: int) -> None:
        if tracked.has_failed:
            return
        try:
            self.publish_if_due(tracked, now_us)
        except Exception as error:
            self._give_up(tracked, error)

    def publish_if_due(self, tracked: RunCheckpoint, now_us: int) -> None:
        """Publish what is new and due; what has to wait for that is published by ``advance``."""
        run = tracked.run
        if (
            tracked.waits_us is not None
            and tracked.usage_waits
            and not (tracked.urgent or run.closed)
        ):
            self._counters.trajectories_delayed += now_us >= tracked.waits_us
            return  # ``advance`` has seen to all that is due, as far as the budget goes
        if run.is_late_fragment:
            return
        if tracked.dirty:
            due_us = tracked.published_us + self._revision_interval_us
            if run.closed or tracked.urgent or not (tracked.published_us or self._is_crowded):
                self._publish(tracked, now_us)
            elif now_us >= due_us and not self._budget.is_spent:
                self._budget.spend()
                self._publish(tracked, now_us)
            else:
                self._counters.trajectories_delayed += now_us >= due_us
                if tracked.waits_us is None or due_us < tracked.waits_us:
                    tracked.waits_us = due_us
                    heappush(self._waiting, (due_us, next(self._ties), tracked))
        if run.changed_minutes and not run.closed:
            told_us = tracked.usage_us or run.first_append_us
            if now_us >= told_us + self._usage_every_us:
                self._publish_usage(tracked, now_us)
            elif not tracked.usage_waits:
                tracked.usage_waits = True
                heappush(self._usage_waiting, (told_us, next(self._ties), tracked))

    def _publish(self, tracked: RunCheckpoint, now_us: int) -> None:
        run = tracked.run
        tracked.dirty = tracked.urgent = False
        tracked.published_us = now_us
        self._counters.trajectories += 1
        self._send(tracked, Output("trajectories", run.trace_id.encode(), _encode(trajectory(run))))
        if run.closed:
            self._publish_usage(tracked, now_us)
            self._send(
                tracked, Output("usage", run.identity.project.encode(), _encode(run_summary(run)))
            )

    def _publish_usage(self, tracked: RunCheckpoint, now_us: int) -> None:
        run = tracked.run
        tracked.usage_us = now_us
        project = run.identity.project.encode()
        for usage in usage_records(run, everything=run.closed):
            self._send(tracked, Output("usage", project, _encode(usage)))
        run.changed_minutes.clear()
