"""When a run is published: its trajectory at most once in a while as it grows, its usage less often, all of it as it closes."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count

import msgspec

from stepstream.stream.counters import Counters
from stepstream.stream.limits import AssembleLimits
from stepstream.stream.outputs import Output
from stepstream.stream.publish import run_summary, trajectory, usage_records
from stepstream.stream.tracked import Tracked

_encode = msgspec.json.Encoder().encode

Send = Callable[[Tracked, Output], None]


class Publisher:
    """Publishes runs that are due, and remembers those that will be."""

    def __init__(self, limits: AssembleLimits, counters: Counters, send: Send) -> None:
        self._revision_interval_us = limits.revision_interval_us
        self._usage_interval_us = limits.usage_interval_us
        self._counters = counters
        self._send = send
        self._waiting: list[tuple[int, int, Tracked]] = []
        self._ties = count()

    def publish_if_due(self, tracked: Tracked, now_us: int) -> None:
        """Publish what is new and due; what is not due yet is when ``publish_waiting`` is called then."""
        run = tracked.run
        if run.is_stray:
            return
        if tracked.dirty:
            due_us = tracked.published_us + self._revision_interval_us
            if run.closed or tracked.urgent or now_us >= due_us:
                self._publish(tracked, now_us)
            else:
                self._wait(tracked, due_us)
        if run.changed_minutes and not run.closed:
            due_us = tracked.usage_us + self._usage_interval_us
            if now_us >= due_us:
                self._publish_usage(tracked, now_us)
            else:
                self._wait(tracked, due_us)

    def publish_waiting(self, now_us: int) -> None:
        """Publish the runs whose time has come."""
        while self._waiting and self._waiting[0][0] <= now_us:
            due_us, _, tracked = heappop(self._waiting)
            if tracked.waits_us == due_us:
                tracked.waits_us = None
                self.publish_if_due(tracked, now_us)

    def _wait(self, tracked: Tracked, due_us: int) -> None:
        if tracked.waits_us is None or due_us < tracked.waits_us:
            tracked.waits_us = due_us
            heappush(self._waiting, (due_us, next(self._ties), tracked))

    def _publish(self, tracked: Tracked, now_us: int) -> None:
        run = tracked.run
        tracked.dirty = tracked.urgent = False
        tracked.published_us = now_us
        self._counters.trajectories += 1
        self._send(tracked, Output("trajectories", run.trace_id.encode(), _encode(trajectory(run))))
        if run.closed:
            self._publish_usage(tracked, now_us)
            self._send(tracked, Output("usage", run.identity.project.encode(), _encode(run_summary(run))))

    def _publish_usage(self, tracked: Tracked, now_us: int) -> None:
        run = tracked.run
        tracked.usage_us = now_us
        project = run.identity.project.encode()
        for usage in usage_records(run, everything=run.closed):
            self._send(tracked, Output("usage", project, _encode(usage)))
        run.changed_minutes.clear()
