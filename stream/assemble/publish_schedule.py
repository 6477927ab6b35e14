"""When a run is published: its trajectory at intervals as it grows, its usage less often, all of it
as it closes.

Publishing growing trajectories may only take a share of a worker's time. With very many runs open,
or as much to read as the worker can process, they are published in the order in which they became
due, as a budget allows. Findings and ends never wait; a run's first trajectory waits only where
extremely many runs are open. The usage of very many growing runs is published less often.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from heapq import heappop, heappush
from typing import Final

import msgspec

from stepstream.schemas.config_drift import Releases
from stepstream.schemas.times import MINUTE_US
from stepstream.stream.assemble.active_run import ActiveRun
from stepstream.stream.assemble.run_records import (
    NO_RELEASES,
    run_summary,
    trajectory,
    usage_records,
)
from stepstream.stream.assemble.success import NOT_EVALUATED, success_of
from stepstream.stream.core.counters import Counters
from stepstream.stream.core.outputs import Output
from stepstream.stream.run.limits import AssembleLimits

_encode = msgspec.json.Encoder().encode

# The budget of growing trajectories: one for this many records read, and a number each second.
RECORDS_EACH: Final = 128
EACH_SECOND: Final = 300

# With more runs open than this on a partition, each run's usage is published as many times less
# often as there are more runs, but at least once a minute.
RUNS_AT_FULL_RATE: Final = 5_000
LONGEST_USAGE_US: Final = MINUTE_US

VERY_MANY_RUNS: Final = 50_000
"""With more runs open than this on a partition even the first trajectory of a run waits for the
budget.
"""

Send = Callable[[ActiveRun, Output], None]
OnError = Callable[[ActiveRun, Exception], None]


class Budget:
    """How many growing trajectories may be published now."""

    __slots__ = ("_left", "_position", "_time_us")

    def __init__(self) -> None:
        self._left = float(EACH_SECOND)
        self._position = self._time_us = 0

    def refill(self, position: int, now_us: int) -> None:
        """Add what the log's growth and the time since the last call are worth, up to two seconds'
        worth.
        """
        seconds = (now_us - self._time_us) / 1_000_000
        earned = (position - self._position) / RECORDS_EACH + seconds * EACH_SECOND
        self._left = min(self._left + earned, 2.0 * EACH_SECOND)
        self._position, self._time_us = position, now_us

    @property
    def is_spent(self) -> bool:
        return self._left < 1

    def spend(self) -> None:
        """One growing trajectory was published."""
        self._left -= 1


def usage_every_us(interval_us: int, open_runs: int) -> int:
    """The interval at which a growing run's usage is published, with this many runs open."""
    return max(interval_us, min(LONGEST_USAGE_US, interval_us * open_runs // RUNS_AT_FULL_RATE))


class PublishSchedule:
    """Publishes runs that are due, and queues those that will be."""

    def __init__(
        self,
        runs: Mapping[str, ActiveRun],
        limits: AssembleLimits,
        counters: Counters,
        send: Send,
        on_error: OnError,
    ) -> None:
        """``on_error`` is called with a run whose publishing raised in ``advance``."""
        self._runs = runs
        self._on_error = on_error
        self.releases: Releases = NO_RELEASES
        """What the configuration of a run is compared with."""
        self.with_trajectories = True
        """False where no one reads them, as in a backtest."""
        self._revision_interval_us = limits.revision_interval_us
        self._usage_interval_us = self._usage_every_us = limits.usage_interval_us
        self._counters = counters
        self._send = send
        self._queue: list[tuple[int, str]] = []  # by when the trajectory is due
        self._usage_queue: list[tuple[int, str]] = []  # by when the usage was published last
        self._budget = Budget()
        self._has_very_many_runs = False

    def usage_complete_until_us(self, now_us: int) -> int:
        """The log time until which the usage of every run is published."""
        return self._usage_queue[0][0] if self._usage_queue else now_us

    def advance(self, position: int, now_us: int, open_runs: int) -> None:
        """The log was read up to ``position``: publish the queued runs that are due."""
        self._budget.refill(position, now_us)
        queue, usage_queue = self._queue, self._usage_queue
        while queue and queue[0][0] <= now_us and not self._budget.is_spent:
            due_us, trace_id = heappop(queue)
            active = self._runs.get(trace_id)
            if active is not None and active.publication.due_us == due_us:
                active.publication.due_us = None
                self._attempt(active, now_us)
        self._usage_every_us = usage_every_us(self._usage_interval_us, open_runs)
        self._has_very_many_runs = open_runs > VERY_MANY_RUNS
        published_by_us = now_us - self._usage_every_us
        # Usage does not wait for the budget: windows are only sealed once the usage of their time
        # is published.
        while usage_queue and usage_queue[0][0] <= published_by_us:
            _, trace_id = heappop(usage_queue)
            active = self._runs.get(trace_id)
            if active is not None and active.publication.usage_is_queued:
                active.publication.usage_is_queued = False
                self._attempt(active, now_us)

    def _attempt(self, active: ActiveRun, now_us: int) -> None:
        try:
            self.publish_if_due(active, now_us)
        except Exception as error:
            self._on_error(active, error)

    def publish_if_due(self, active: ActiveRun, now_us: int) -> None:
        """Publish what is new and due, and queue what is due later: ``advance`` publishes that."""
        run, publication = active.run, active.publication
        is_at_once = publication.is_urgent or run.closed
        if publication.due_us is not None and publication.usage_is_queued and not is_at_once:
            # Both are queued, and ``advance`` has published what was due, as far as the budget
            # goes.
            self._counters.trajectories_delayed += now_us >= publication.due_us
            return
        if run.is_late_fragment:
            return
        if publication.is_outdated:
            if is_at_once or not (publication.published_us or self._has_very_many_runs):
                self._publish(active, now_us)
            else:
                self._publish_or_queue(active, now_us)
        if run.changed_minutes and not run.closed:
            self._publish_usage_or_queue(active, now_us)

    def _publish_or_queue(self, active: ActiveRun, now_us: int) -> None:
        publication = active.publication
        due_us = publication.published_us + self._revision_interval_us
        if now_us >= due_us and not self._budget.is_spent:
            self._budget.spend()
            self._publish(active, now_us)
            return
        self._counters.trajectories_delayed += now_us >= due_us
        if publication.due_us is None or due_us < publication.due_us:
            publication.due_us = due_us
            heappush(self._queue, (due_us, active.run.trace_id))

    def _publish(self, active: ActiveRun, now_us: int) -> None:
        run, publication = active.run, active.publication
        publication.is_outdated = publication.is_urgent = False
        publication.published_us = now_us
        self._counters.trajectories += 1
        # Evaluated for each revision of the closed run: late steps may change it.
        success, reason = success_of(run) if run.closed else NOT_EVALUATED
        if self.with_trajectories:
            value = _encode(trajectory(run, self.releases, success, reason))
            self._send(active, Output("trajectories", run.trace_id.encode(), value))
        if run.closed:
            self._publish_usage(active, now_us)
            project = run.identity.project.encode()
            self._send(active, Output("usage", project, _encode(run_summary(run, success))))

    def _publish_usage_or_queue(self, active: ActiveRun, now_us: int) -> None:
        publication = active.publication
        before_us = publication.usage_published_us or active.run.first_append_us
        if now_us >= before_us + self._usage_every_us:
            self._publish_usage(active, now_us)
        elif not publication.usage_is_queued:
            publication.usage_is_queued = True
            heappush(self._usage_queue, (before_us, active.run.trace_id))

    def _publish_usage(self, active: ActiveRun, now_us: int) -> None:
        run = active.run
        active.publication.usage_published_us = now_us
        project = run.identity.project.encode()
        for usage in usage_records(run, everything=run.closed):
            self._send(active, Output("usage", project, _encode(usage)))
        run.changed_minutes.clear()
