"""The worker's metrics: its counts, how far behind it is, and whether it is stuck."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final

from faust.types import TP

from stepstream.common.observe import Observer
from stepstream.schemas import metrics as m
from stepstream.stream.assemble.partition import AssemblePartition
from stepstream.stream.core.counters import Counters
from stepstream.stream.core.outputs import Output
from stepstream.stream.shell.batching import Backlog
from stepstream.stream.shell.partition_runner import PartitionRunner
from stepstream.stream.shell.sender import Sender
from stepstream.stream.tasks.backlog import AgentBacklog, Queue, largest
from stepstream.stream.tasks.partition import TasksPartition
from stepstream.stream.usage.partition import WindowPartition

_PLAIN: Final = {
    m.RECORDS: "records",
    m.ACCEPTED: "accepted",
    m.DUPLICATES: "duplicates",
    m.LATE: "late",
    m.TOO_LATE: "too_late",
    m.ORPHANS: "orphans",
    m.MISROUTED: "misrouted",
    m.OVER_LIMIT: "over_limit",
    m.RUNS_OPENED: "runs_opened",
    m.RUNS_CLOSED: "runs_closed",
    m.FORCED_CLOSED: "forced_closed",
    m.CLOSED_FORGOTTEN: "closed_forgotten",
    m.TRAJECTORIES: "trajectories",
    m.TRAJECTORIES_DELAYED: "trajectories_delayed",
    m.FINDINGS: "findings",
    m.FINDINGS_OVER_LIMIT: "findings_over_limit",
    m.CONTENTS_UNREAD: "contents_unread",
    m.ALERTS: "alerts",
    m.COMMANDS: "commands",
    m.STATES: "states",
    m.HALTS: "halts",
    m.FUSES: "fuses",
    m.SKIPPED: "poison_skipped",
    m.RUNS_GIVEN_UP: "runs_given_up",
    m.USAGE_RECORDS: "usage_records",
    m.USAGE_REPEATS: "usage_repeats",
    m.USAGE_TOO_LATE: "usage_too_late",
    m.RUNS_NOT_LEARNT: "runs_not_learnt",
    m.BASELINES_FORGOTTEN: "baselines_forgotten",
    m.OWNERS_NOT_LEARNT: "owners_not_learnt",
    m.USAGE_OVER_LIMIT: "usage_over_limit",
    m.USAGE_FORCED_SEALS: "usage_forced_seals",
    m.USAGE_UNKNOWN: "usage_unknown",
    m.WINDOWS_SEALED: "windows_sealed",
}
_BY_REASON: Final = {
    m.TASKS: "tasks",
    m.REJECTED: "rejected",
    m.CLAMPED: "clamped",
    m.DETECTOR_ERRORS: "detector_errors",
    m.RULE_ERRORS: "rule_errors",
}


class WorkerObservation:
    """Copies counts to metrics at each scrape; only histograms are written as things happen."""

    def __init__(
        self, observer: Observer, counters: Counters, *, hang_limit_s: float = 120.0
    ) -> None:
        """A partition without progress for more than ``hang_limit_s`` is stuck; 0: none is."""
        self.observer = observer
        self._hang_limit_s = hang_limit_s
        for metric in m.METRICS:
            if metric.name.startswith("stepstream_worker_"):
                observer.declare(metric)
        self._counters = counters
        self._batch = observer.histogram(m.BATCH)
        latency = observer.histogram(m.OUTPUT_LATENCY)
        self._latency = {
            name: latency.labels(name)
            for name in ("trajectories", "findings", "usage", "alerts", "control")
        }
        self._waits = observer.counter(m.WAITS)
        self._progress: dict[TP, tuple[int, float]] = {}
        self._states_shown: dict[tuple[str, str], set[str]] = {}

    def batch(self, records: int) -> None:
        """A batch was handed to a stage."""
        self._batch.observe(records)

    def waited(self) -> None:
        """Processing waited for acknowledgements."""
        self._waits.inc()

    def count(self, counter: str) -> None:
        """Add one to a counter."""
        setattr(self._counters, counter, getattr(self._counters, counter) + 1)

    def delivered(self, output: Output) -> None:
        """An output was acknowledged."""
        histogram = self._latency.get(output.topic)
        if histogram is not None and output.appended_us:
            histogram.observe(max(0.0, time.time() - output.appended_us / 1e6))

    def refresh(
        self,
        runners: Iterable[PartitionRunner],
        end_of: Callable[[TP], int | None],
        sender: Sender,
        backlog: Backlog,
    ) -> None:
        """Bring counters and gauges up to date."""
        for metric, name in _PLAIN.items():
            self.observer.mirror(metric, getattr(self._counters, name))
        for metric, name in _BY_REASON.items():
            for reason, count in getattr(self._counters, name).items():
                self.observer.mirror(metric, count, reason)
        self.observer.gauge(m.IN_FLIGHT).set(sender.in_flight)
        self.observer.gauge(m.BACKLOG).set(backlog.records)
        # Queues have no partition among their labels: what another worker has now is left out.
        for metric in (m.QUEUE_TASKS, m.QUEUE_OLDEST_WAIT):
            self.observer.gauge(metric).clear()
        for runner in runners:
            self._show_partition(runner, end_of(runner.tp))

    def stuck(
        self, runners: Iterable[PartitionRunner], end_of: Callable[[TP], int | None], now_s: float
    ) -> str:
        """The partition that makes no progress although there is something to read; empty if none.
        ``now_s`` is monotonic.
        """
        for runner in runners:
            if runner.processor is None or runner.halted:
                continue
            position, end = runner.processor.offsets.position, end_of(runner.tp)
            seen, since_s = self._progress.get(runner.tp, (-1, now_s))
            if position != seen or end is None or position >= end:
                self._progress[runner.tp] = (position, now_s)
            elif self._hang_limit_s and now_s - since_s > self._hang_limit_s:
                return (
                    f"{runner.tp.topic} partition {runner.tp.partition} has not moved from"
                    f" offset {position} for {now_s - since_s:.0f} s"
                )
        return ""

    def _show_partition(self, runner: PartitionRunner, end: int | None) -> None:
        processor = runner.processor
        if processor is None:
            return
        labels = (runner.tp.topic, str(runner.tp.partition))
        position = processor.offsets.position
        self.observer.gauge(m.LAG).labels(*labels).set(max(0, (end or position) - position))
        self.observer.gauge(m.SAFE_OFFSET_LAG).labels(*labels).set(
            position - processor.offsets.safe
        )
        self.observer.gauge(m.HALTED).labels(*labels).set(runner.halted)
        if runner.dead_letter_rate is not None:
            self.observer.gauge(m.DEAD_LETTER_RATE).labels(*labels).set(
                runner.dead_letter_rate.is_exceeded
            )
        if isinstance(processor, AssemblePartition):
            partition = labels[1]
            self.observer.gauge(m.OPEN_RUNS).labels(partition).set(len(processor.runs))
            self.observer.gauge(m.CLOSED_RUNS).labels(partition).set(len(processor.closed))
            self.observer.gauge(m.HELD_BYTES).labels(partition).set(processor.size_bytes)
            self.observer.gauge(m.SAFE_OFFSET_AGE).labels(partition).set(
                processor.safe_age_us / 1e6
            )
        elif isinstance(processor, WindowPartition):
            partition = labels[1]
            self.observer.gauge(m.WINDOW_OWNERS).labels(partition).set(len(processor.series))
            self.observer.gauge(m.WINDOW_RECORDS).labels(partition).set(processor.pending_records)
            self.observer.gauge(m.WINDOW_AGE).labels(partition).set(processor.behind_us / 1e6)
        elif isinstance(processor, TasksPartition):
            self._show_tasks(processor, labels[1])

    def _show_tasks(self, processor: TasksPartition, partition: str) -> None:
        queues = processor.backlogs()
        totals: Counter[str] = Counter()
        for backlog in queues.values():
            totals.update(backlog.tasks)
        self._show_queues(queues, processor.clock.now_us)
        for metric, counts in (
            (m.TASKS_OPEN, totals),
            (m.EXECUTORS, processor.executor_counts()),
            (m.TASK_SLOTS, processor.slot_counts()),
        ):
            # What is no longer there is 0, not its last count.
            known = self._states_shown.setdefault((metric.name, partition), set())
            known.update(counts)
            for state in known:
                self.observer.gauge(metric).labels(partition, state).set(counts[state])

    def _show_queues(self, queues: dict[Queue, AgentBacklog], now_us: int) -> None:
        tasks, oldest = self.observer.gauge(m.QUEUE_TASKS), self.observer.gauge(m.QUEUE_OLDEST_WAIT)
        for (project, agent), backlog in largest(queues).items():
            # An agent that is offered has these at 0, so that an autoscaler sees a queue that is
            # empty, and not one that is unknown.
            for state in {"slot", "running", *backlog.tasks}:
                tasks.labels(project, agent, state).set(backlog.tasks[state])
            waited_us = now_us - backlog.oldest_us if backlog.oldest_us else 0
            oldest.labels(project, agent).set(max(0, waited_us) / 1e6)
