"""Makes the logic of a partition as whoever had it before left it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Protocol

from faust.types import TP

from stepstream.schemas.prices import PriceBook
from stepstream.schemas.settings import Settings
from stepstream.schemas.topics import topic
from stepstream.stream.alerts.lifecycle import AlertLife
from stepstream.stream.alerts.partition import FleetPartition
from stepstream.stream.assemble.partition import AssemblePartition
from stepstream.stream.baselines.learner import Learner
from stepstream.stream.baselines.normal import Baselines
from stepstream.stream.core.counters import Counters
from stepstream.stream.run.limits import AssembleLimits
from stepstream.stream.run.rules import RuleBook
from stepstream.stream.shell.config import Documents
from stepstream.stream.shell.loader import load_assemble, load_fleet, load_usage, patiently
from stepstream.stream.shell.progress_marker import Mark, Traces, mark_of
from stepstream.stream.shell.topic_stage import Restored
from stepstream.stream.usage.partition import UsagePartition
from stepstream.stream.usage.windows.limits import UsageLimits

log = logging.getLogger("stepstream.worker")


class Working(Protocol):
    """What of a worker its partitions need."""

    settings: Settings
    group: str
    counters: Counters
    documents: Documents
    baselines: Baselines
    limits: AssembleLimits
    steps_partitions: int
    rules: RuleBook
    prices: PriceBook
    marks: Path
    traces: Traces


class Restoring:
    """Loads partitions for one worker: what is in force is asked for when a partition is loaded."""

    def __init__(self, worker: Working) -> None:
        self._worker = worker

    async def assemble(self, partition: int) -> Restored:
        """A partition of steps."""
        worker = self._worker
        left = await patiently(
            lambda: load_assemble(
                worker.settings, worker.group, partition, worker.limits.late_horizon_us
            ),
            f"run states of partition {partition}",
        )
        logic = AssemblePartition(
            partition,
            worker.steps_partitions,
            rules=worker.rules,
            prices=worker.prices,
            baselines=worker.baselines,
            limits=worker.limits,
            counters=worker.counters,
            log_text=log.error,
        )
        logic.restore(left.states, left.floor)
        self._count(left.unreadable)
        return Restored(
            logic, left.ledger, left.index, left.fuse, self._mark("steps", partition), left.lettered
        )

    async def fleet(self, partition: int) -> Restored:
        """A partition of findings."""
        worker = self._worker
        left = await patiently(
            lambda: load_fleet(worker.settings, worker.group, partition),
            f"alerts of partition {partition}",
        )
        logic = FleetPartition(partition, worker.counters, AlertLife.from_settings(worker.settings))
        logic.restore(left.alerts, left.floor)
        self._count(left.unreadable)
        return Restored(
            logic, left.ledger, mark=self._mark("findings", partition), lettered=left.lettered
        )

    async def usage(self, partition: int) -> Restored:
        """A partition of usage."""
        worker = self._worker
        left = await patiently(
            lambda: load_usage(worker.settings, worker.group, partition),
            f"windows of partition {partition}",
        )
        rules, limits = worker.documents.window_rules(), UsageLimits.from_settings(worker.settings)
        learner = Learner(worker.counters)
        logic = UsagePartition(
            partition, worker.steps_partitions, rules, limits, worker.counters, learner, log.error
        )
        logic.restore(left.windows, left.checkpoint, left.floor, left.days, left.baselines)
        self._count(left.unreadable)
        return Restored(
            logic, left.ledger, mark=self._mark("usage", partition), lettered=left.lettered
        )

    def _count(self, unreadable: int) -> None:
        if unreadable:
            self._worker.counters.rejected["unreadable"] += unreadable

    def _mark(self, name: str, partition: int) -> Mark:
        mark = mark_of(
            self._worker.marks, TP(topic(self._worker.settings.topic_prefix, name), partition)
        )
        mark.is_blamed = bool(self._worker.traces.left)
        return mark
