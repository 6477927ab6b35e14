"""Restores the processor of a partition as its previous owner left it."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Protocol

from faust.types import TP

from stepstream.schemas.config_drift import Releases
from stepstream.schemas.prices import PriceBook
from stepstream.schemas.settings import Settings
from stepstream.schemas.topics import topic
from stepstream.stream.alerts.lifecycle import AlertLimits
from stepstream.stream.alerts.partition import AlertPartition
from stepstream.stream.assemble.partition import AssemblePartition
from stepstream.stream.baselines.learner import Learner
from stepstream.stream.baselines.normal import Baselines
from stepstream.stream.core.counters import Counters
from stepstream.stream.run.limits import AssembleLimits
from stepstream.stream.run.rules import RuleBook
from stepstream.stream.shell.config import Documents
from stepstream.stream.shell.loader import (
    load_alerts,
    load_assemble,
    load_tasks,
    load_usage,
    load_with_retries,
)
from stepstream.stream.shell.partition_runner import Restored
from stepstream.stream.shell.progress_marker import HangTraces, ProgressMarker, marker_of
from stepstream.stream.tasks.partition import TasksPartition
from stepstream.stream.usage.partition import WindowPartition
from stepstream.stream.usage.windows.limits import UsageLimits

log = logging.getLogger("stepstream.worker")


class WorkerContext(Protocol):
    """What partitions need of their worker. Read when a partition is loaded, so that it gets what
    is in force then.
    """

    settings: Settings
    group: str
    counters: Counters
    documents: Documents
    baselines: Baselines
    limits: AssembleLimits
    steps_partitions: int
    rules: RuleBook
    prices: PriceBook
    markers: Path
    hang_traces: HangTraces

    @property
    def releases(self) -> Releases: ...


class PartitionLoader:
    """Loads partitions for one worker."""

    def __init__(self, worker: WorkerContext) -> None:
        self._worker = worker

    async def assemble(self, partition: int) -> Restored:
        """A partition of steps."""
        worker = self._worker
        state = await load_with_retries(
            lambda: load_assemble(
                worker.settings, worker.group, partition, worker.limits.late_horizon_us
            ),
            f"run states of partition {partition}",
        )
        processor = AssemblePartition(
            partition,
            worker.steps_partitions,
            rules=worker.rules,
            prices=worker.prices,
            baselines=worker.baselines,
            limits=worker.limits,
            counters=worker.counters,
            log_text=log.error,
        )
        processor.publisher.releases = worker.releases
        processor.restore(state.states, state.position)
        self._count(state.unreadable)
        marker = self._marker("steps", partition)
        return Restored(
            processor,
            state.ledger,
            state.index,
            state.dead_letter_rate,
            marker,
            state.dead_lettered,
        )

    async def alerts(self, partition: int) -> Restored:
        """A partition of findings."""
        worker = self._worker
        state = await load_with_retries(
            lambda: load_alerts(worker.settings, worker.group, partition),
            f"alerts of partition {partition}",
        )
        processor = AlertPartition(
            partition, worker.counters, AlertLimits.from_settings(worker.settings)
        )
        processor.restore(state.alerts, state.position)
        self._count(state.unreadable)
        return Restored(
            processor,
            state.ledger,
            marker=self._marker("findings", partition),
            dead_lettered=state.dead_lettered,
        )

    async def usage(self, partition: int) -> Restored:
        """A partition of usage."""
        worker = self._worker
        state = await load_with_retries(
            lambda: load_usage(worker.settings, worker.group, partition),
            f"windows of partition {partition}",
        )
        rules, limits = worker.documents.window_rules(), UsageLimits.from_settings(worker.settings)
        learner = Learner(worker.counters)
        processor = WindowPartition(
            partition,
            worker.steps_partitions,
            rules,
            limits,
            counters=worker.counters,
            learner=learner,
            log=log.error,
        )
        processor.restore(
            state.windows, state.checkpoint, state.position, state.days, state.baselines
        )
        self._count(state.unreadable)
        return Restored(
            processor,
            state.ledger,
            marker=self._marker("usage", partition),
            dead_lettered=state.dead_lettered,
        )

    async def tasks(self, partition: int) -> Restored:
        """A partition of tasks."""
        worker = self._worker
        state = await load_with_retries(
            lambda: load_tasks(worker.settings, worker.group, partition),
            f"tasks of partition {partition}",
        )
        processor = TasksPartition(partition, worker.counters, nonce=os.urandom(1)[0])
        processor.restore(state.records, state.position)
        processor.change_queues(worker.documents.queues())
        self._count(state.unreadable)
        return Restored(
            processor,
            state.ledger,
            state.index,
            marker=self._marker("tasks", partition),
            dead_lettered=state.dead_lettered,
        )

    def _count(self, unreadable: int) -> None:
        if unreadable:
            self._worker.counters.rejected["unreadable"] += unreadable

    def _marker(self, name: str, partition: int) -> ProgressMarker:
        tp = TP(topic(self._worker.settings.topic_prefix, name), partition)
        marker = marker_of(self._worker.markers, tp)
        marker.has_hung = bool(self._worker.hang_traces.found)
        return marker
